"""tljax bench: how fast this machine is, ours and a peer in turns on the same work.

works (training, pretrained, data, ...) -> measured in turns -> table, JSON
"""

from collections.abc import Sequence
from pathlib import Path

from tljax.cli.command import Flag, Given, check_file, help_text, read_flags
from tljax.settings import InputError, suggestion

DESCRIPTION = """
Measures this installation on this machine, and where a peer's environment is given,
PyTorch and Transformers on the same work, in turns; prints medians, spread and ratio,
and the share of the machine's measured matrix-product ceiling.

  tljax bench train
  tljax bench train generate --peer=DIR --peer_scripts=DIR --out=bench.json

works: train (a next-word step, some sizes), memory (its peak, 49,152 words), features,
generate, lora (SmolLM2, fetched once), data (tokenise, shuffle, pack), start (second
start to first step), populations (many runs as one against one after another; half an
hour), growth (how time and memory grow with length, batch, width, depth, vocabulary,
members and text; alone, some ten minutes; beside FILE.json it draws FILE.html). None
named = train. Nothing else should run while it measures.
"""
WORKS = (
    "train", "memory", "features", "generate", "lora", "data", "start", "populations",
    "growth",
)  # fmt: skip
FLAGS = (
    Flag("peer", "DIR", "virtual environment with PyTorch and Transformers"),
    Flag("peer_scripts", "DIR", "folder of its train_step.py, ...; as --peer if left"),
    Flag("turns", "N", "of each side; 3 if left out"),
    Flag(
        "sizes",
        "A,B",
        "of train: base, wide, narrow, tiny; the first three if left"
        " (tiny makes all works small: only to see that they work, without SmolLM2)",
    ),
    Flag("out", "FILE.json", "where to write what was found"),
)


def run(argv: Sequence[str]) -> None:
    """Measures and prints."""
    program = "tljax bench"
    given = read_flags(argv, FLAGS, program=program)
    if "help" in given.flags:
        print(help_text(f"{program} [WORK ...]", DESCRIPTION, FLAGS))
        return
    for word in given.words:
        if word not in WORKS:
            raise InputError(
                f"{word!r} is no work{suggestion(word, WORKS)}; allowed:"
                f" {', '.join(WORKS)}"
            )
    out = Path(given.flags["out"]) if "out" in given.flags else None
    if out:
        check_file(out, ".json")
    turns = _turns(given.flags.get("turns", "3"))
    if "growth" in given.words:
        _run_growth(given, turns, out)
        return
    from tljax.cli.bench import report

    report.run(
        given.words or ["train"],
        peer=given.flags.get("peer"),
        scripts=given.flags.get("peer_scripts"),
        turns=turns,
        sizes=_sizes(given.flags.get("sizes", "base,wide,narrow")),
        out=out,
    )


def _run_growth(given: Given, turns: int, out: Path | None) -> None:
    if len(given.words) > 1 or given.flags.keys() & {"peer", "peer_scripts"}:
        raise InputError(
            "growth is measured alone, without a peer: tljax bench growth --out=FILE"
        )
    sizes = given.flags.get("sizes", "small")
    if sizes not in ("small", "tiny"):
        raise InputError(
            f"--sizes={sizes}: growth is measured around 'small', or around 'tiny' only"
            " to see that it works"
        )
    if out:
        check_file(out.with_suffix(".html"), ".html")
    from tljax.cli.bench import growth

    growth.run(sizes, turns=turns, out=out)


def _turns(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise InputError(f"--turns={text} must be a whole number of at least 1")
    return int(text)


def _sizes(text: str) -> list[str]:
    from tljax.cli.bench.training import SIZES

    sizes = text.split(",")
    for size in sizes:
        if size not in SIZES:
            raise InputError(
                f"--sizes has {size!r}{suggestion(size, SIZES)}; allowed:"
                f" {', '.join(SIZES)}"
            )
    return sizes
