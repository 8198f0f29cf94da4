"""A short stay on a GPU: what docs/speed.md asks of one, in less than 8 minutes.

    python scripts/gpu_bench.py [--out=gpu_bench.json] [--only=decoder_1b,population] \\
        [--peer=ENVIRONMENT --peer_scripts=DIR] [--small]

section       what it measures                                          to reach
taken         whether bfloat16 is faster and cuDNN's attention is in
              the compiled step; how far that is from XLA's attention   true, true
ceiling       8192^3 products, FLOP/s
decoder_1b    a step of 1.0 B parameters, 8 x 2,048 tokens              50 % MFU
decoder_124m  a step of GPT-2's size, 32 x 1,024 tokens                 40 % MFU
smollm2       a fine-tuning step of SmolLM2's size, 16 x 512 tokens,
              all weights; in turns with compiled Transformers          1.2 x
population    32 small classifiers by vmap, and in turn                 15 x
packed_124m   decoder_124m's, rows of several documents (a mask)

MFU is of the FLOP/s that the maker promises (bench/ceiling.py); the share of the
measured product stands beside it. FLOPs are counted as `tljax bench` does: recomputed
work counts for nothing. Every section is a process of its own with a share of the time:
what it has found by the end of that is kept, and the file is written after each one.
`--small` shows on any device, a CPU too, that all of it runs; its figures say nothing.
"""

import argparse
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from tljax.cli import parts
from tljax.cli.bench import accelerator
from tljax.cli.bench.peer import Peer
from tljax.cli.command import check_file
from tljax.settings import InputError
from tljax.train.files import write_json

ROOT = pathlib.Path(__file__).parents[1]
LIMIT = 470  # seconds of everything
SECONDS = {
    "taken": 50, "ceiling": 30, "decoder_1b": 110, "decoder_124m": 70,
    "smollm2": 150, "population": 90, "packed_124m": 60,
}  # of each section, at most; if time runs out, what has no target is left  # fmt: skip
TARGETS = {
    "decoder_1b": {"mfu": 0.5}, "decoder_124m": {"mfu": 0.4}, "smollm2": {"ratio": 1.2},
    "population": {"ratio": 15.0},
}  # fmt: skip


SECTIONS = tuple(SECONDS)


def figures(name: str, *, small: bool, peer: Peer | None) -> Iterator[dict]:
    """Of a section, one by one; the layers of the deep are scanned, to compile soon."""
    gpt2 = {"remats": ["none", "products"], "small": small}
    deep = {"remats": ["products", "layer"], "small": small, "scan_layers": True}
    match name:
        case "taken":
            return accelerator.taken(small=small)
        case "ceiling":
            return accelerator.products(small=small)
        case "decoder_1b":
            return accelerator.decoder(accelerator.BILLION, packed=False, **deep)
        case "decoder_124m":
            return accelerator.decoder(accelerator.GPT2, packed=False, **gpt2)
        case "packed_124m":
            return accelerator.decoder(accelerator.GPT2, packed=True, **gpt2)
        case "smollm2":
            return accelerator.against_peer(peer, small=small)
        case "population":
            return accelerator.members(small=small)


def run_section(name: str, flags: list[str], seconds: float) -> dict:
    """What a section's process has printed by the end of its time."""
    command = [sys.executable, __file__, f"--section={name}", *flags]
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(
            command,
            stdout=said,
            stderr=errors,
            start_new_session=True,
            env=_environment(peer=name == "smollm2" and "--peer" in " ".join(flags)),
        )
        try:
            ended = child.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)  # with the peer that it may have begun
            ended = child.wait()
        said.seek(0)
        errors.seek(0)
        found = {}
        for line in said.read().splitlines():
            if line.startswith("{") and line.endswith("}"):
                found |= json.loads(line)
        if ended == -signal.SIGKILL:
            found["stopped"] = f"after {seconds:.0f} s, its share of the time"
        elif ended:
            lines = errors.read().strip().splitlines()
            found["failed"] = (lines or ["nothing was said"])[-1]
    for key, target in TARGETS.get(name, {}).items():
        found["target"] = {key: target}
        if found.get(key) is not None:
            found["reached"] = found[key] >= target
    return found


def _environment(*, peer: bool) -> dict[str, str]:
    """Of a section: it finds tljax, and takes the memory unless a peer needs some."""
    known = os.environ.get("PYTHONPATH")
    paths = os.pathsep.join([str(ROOT), *([known] if known else [])])
    memory = {"XLA_PYTHON_CLIENT_MEM_FRACTION": ".92"}
    if peer:
        memory = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    return {**os.environ, "PYTHONPATH": paths, **memory}


def main() -> None:
    """Runs the sections in turn, or, in a process of its own, one of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", default="gpu_bench.json")
    parser.add_argument("--only", default=",".join(SECTIONS))
    parser.add_argument("--peer")
    parser.add_argument("--peer_scripts")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--section", choices=SECTIONS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.section:
        return _print_section(given)
    names = given.only.split(",")
    if unknown := [name for name in names if name not in SECTIONS]:
        parser.error(f"--only has {unknown[0]!r}; allowed: {', '.join(SECTIONS)}")
    out = pathlib.Path(given.out)
    try:
        check_file(out, ".json")
        _peer(given)
    except InputError as error:
        parser.error(str(error))
    flags = [
        f"--{name}={value}"
        for name in ("peer", "peer_scripts")
        if (value := getattr(given, name))
    ] + ["--small"] * given.small
    started, results = time.monotonic(), {}
    for name in names:
        left = LIMIT - (time.monotonic() - started)
        if left < SECONDS[name] / 2:
            results[name] = {"skipped": f"{left:.0f} s are left, too few for it"}
        else:
            results[name] = run_section(name, flags, min(left, SECONDS[name]))
        print(name, json.dumps(results[name]), flush=True)
        seconds = round(time.monotonic() - started, 1)
        record = {"small": given.small, "seconds": seconds, "sections": results}
        write_json(out, record)


def _print_section(given: argparse.Namespace) -> None:
    """One JSON line as each figure is found."""
    parts.prepare_devices()
    for found in figures(given.section, small=given.small, peer=_peer(given)):
        print(json.dumps(found), flush=True)


def _peer(given: argparse.Namespace) -> Peer | None:
    if not given.peer:
        return None
    return Peer(
        pathlib.Path(given.peer), pathlib.Path(given.peer_scripts or given.peer)
    )


if __name__ == "__main__":
    main()
