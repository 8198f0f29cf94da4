"""From calling the command to its first training step, compiled programs being kept.

The run says itself when its first step has ended (`first step after ...`); the clock
here is the caller's, so that starting Python and importing JAX count.
"""

import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

from tljax.cli.bench.turns import Work
from tljax.settings import InputError

QUICKSTART = pathlib.Path("configs") / "pretrain.py"
TOLD = "first step"


def works() -> list[Work]:
    """The second start of the quickstart's model; the first fills the caches.

    Raises:
      InputError: called outside of a checkout, which has the quickstart's config.
    """
    if not QUICKSTART.exists():
        raise InputError(
            f"there is no {QUICKSTART} here; call `tljax bench start` in a checkout"
        )
    return [Work("second start to first step", "s", _prepare)]


def _prepare():
    _start()
    return _start


def _start() -> float:
    """Seconds until a fresh run tells of its first step; then it is ended."""
    folder = pathlib.Path(tempfile.mkdtemp())
    call = "import sys; from tljax.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", call, "train"]
    command += [f"--config={QUICKSTART}", f"--workdir={folder / 'run'}"]
    started = time.perf_counter()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run:
        said = ""
        for line in run.stderr:
            said = line.strip() or said
            if TOLD in line:
                seconds = time.perf_counter() - started
                run.kill()
                shutil.rmtree(folder, ignore_errors=True)
                return seconds
    raise InputError(f"the run to be timed ended before its first step: {said}")
