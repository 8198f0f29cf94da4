"""Transformers doing the same work, called as a program of its own environment."""

import json
import pathlib
import subprocess

from tljax.cli.host_memory import without_huge_pages
from tljax.settings import InputError

# A script that asks getrusage for its peak gets its parent's, where that is larger: a
# shell between the two is small, whatever the benchmark holds.
_SMALL_PARENT = ("/bin/sh", "-c", '"$@"; exit $?', "sh")


class Peer:
    """Scripts that print one JSON line each, and the Python that runs them.

    Args:
      environment: folder of a virtual environment with PyTorch and Transformers.
      scripts: folder of train_step.py, generate.py, features.py, ...

    Raises:
      InputError: one of the two is not there.
    """

    def __init__(self, environment: pathlib.Path, scripts: pathlib.Path):
        self._python, self._scripts = environment / "bin" / "python", scripts
        if not self._python.exists():
            raise InputError(
                f"--peer={environment} has no bin/python; give the folder of the peers'"
                " virtual environment"
            )
        if not (scripts / "train_step.py").exists():
            raise InputError(
                f"{scripts} has no train_step.py; give the folder of the peers' scripts"
                " by --peer_scripts=DIR"
            )

    def run(self, script: str, key: str, *flags: object) -> float:
        """What a script prints under the key.

        Raises:
          InputError: the script failed; with the last line that it said.
        """
        command = [*_SMALL_PARENT, self._python, self._scripts / script, *flags]
        done = subprocess.run(
            [str(one) for one in command], capture_output=True, text=True,
            env=without_huge_pages(),  # as its users run it
        )  # fmt: skip
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
            raise InputError(f"the peer's {script} failed: {said}")
        return json.loads(done.stdout.strip().splitlines()[-1])[key]
