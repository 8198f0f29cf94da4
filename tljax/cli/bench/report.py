"""Runs the works in turns, prints a table as they end, writes JSON."""

import importlib.metadata
import os
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
from rich.console import Console
from rich.table import Table

from tljax.cli import parts
from tljax.cli.bench import data, populations, pretrained, start, training
from tljax.cli.bench.ceiling import ceilings, of_peak
from tljax.cli.bench.peer import Peer
from tljax.cli.bench.turns import Row, Work, as_record, measure
from tljax.train.files import write_json


def run(
    names: Sequence[str],
    *,
    peer: str | None,
    scripts: str | None,
    turns: int,
    sizes: list[str],
    out: Path | None,
) -> None:
    """Measures the works named; see `tljax bench --help` for the arguments.

    Raises:
      InputError: the peer's environment or scripts are not there, or fail.
    """
    other = None
    if peer:
        other = Peer(Path(peer), Path(scripts or peer))
    parts.prepare_devices()
    console = Console()
    found = ceilings()
    told = ", ".join(f"{dtype} {rate / 1e9:.0f}" for dtype, rate in found.items())
    console.print(f"matrix products of this machine, GFLOP/s: {told}")
    shares_of = of_peak(found, jax.devices()[0].device_kind)
    if shares_of != found:
        promised = shares_of["bfloat16"] / 1e12
        console.print(f"shares of bfloat16 work are MFU, of {promised:.0f} TFLOP/s")
    rows = []
    for name in names:
        for work in _works(name, sizes, other):
            console.print(f"{work.name} ...", style="dim")
            rows.append(measure(work, turns=turns, ceilings=shares_of))
    console.print(table(rows))
    if out:
        record = {"machine": machine(found), "rows": [as_record(row) for row in rows]}
        write_json(out, record)


def _works(name: str, sizes: list[str], peer: Peer | None) -> Iterator[Work]:
    small = sizes == ["tiny"]
    match name:
        case "train":
            yield from training.works(sizes, peer)
        case "memory":
            yield from training.memory_works("tiny" if small else "vocabulary", peer)
        case "data":
            yield from data.works(small=small)
        case "start":
            yield from start.works()
        case "populations":
            yield from populations.works(peer, small=small)
        case _:
            yield from pretrained.works(name, peer, small=small)


def table(rows: Sequence[Row]) -> Table:
    """Medians, spread, ratio; what misses its target is marked."""
    made = Table("work", "tljax", "other", "ratio", "target", "of the ceiling")
    for row in rows:
        ratio, target = row.ratio, row.target
        missed = ratio is not None and target is not None and ratio < target
        share = row.share_of_ceiling
        made.add_row(
            row.name,
            f"{_number(row.ours)} {row.unit}",
            _number(row.theirs),
            "" if ratio is None else f"{ratio:.2f}{' (missed)' if missed else ''}",
            "" if target is None else f"{target:.2f}",
            "" if share is None else f"{share:.0%}",
        )
    return made


def _number(values: list[float]) -> str:
    """'1,234 (1,200 to 1,250)'."""
    if not values:
        return ""
    middle, low, high = statistics.median(values), min(values), max(values)
    digits = 0 if middle >= 100 else 2
    spread = f" ({low:,.{digits}f} to {high:,.{digits}f})" if len(values) > 1 else ""
    return f"{middle:,.{digits}f}{spread}"


def machine(found: dict[str, float]) -> dict:
    """What a reader of the figures must know of where they are from.

    Args:
      found: of `ceilings`.
    """
    return {
        "devices": [device.device_kind for device in jax.devices()],
        "cores": os.cpu_count(),
        "jax": jax.__version__,
        "tljax": importlib.metadata.version("tljax"),
        "ceiling_flops_per_second": found,
    }
