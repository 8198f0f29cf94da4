"""How time and memory grow along one size at a time, around one base size.

axis -> points, measured in turns -> exponents beside theory's (report/growth.py)
     -> table, growth.json, growth.html

Memory of a step is what XLA plans for it, exactly; of a corpus the process's largest.
"""

import dataclasses
import functools
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tljax.cli.bench import corpus, training
from tljax.cli.bench.ceiling import ceilings
from tljax.cli.bench.report import machine
from tljax.cli.bench.training import Size
from tljax.report.growth import COSTS, HEAD, build_growth_page, fit_growth, rows
from tljax.train.files import write_json, write_text

STEPS = 2  # timed in a turn
SLIM = 8  # a member's batch is so many times smaller: its labels are few
GRIDS = {
    "small": {
        "length": (64, 128, 256, 512, 1024, 2048, 4096),
        "batch": (4, 8, 16, 32, 64, 128, 256),
        "width": (64, 96, 128, 192, 256, 384, 512),
        "depth": (1, 2, 3, 4, 6, 8, 12),
        "vocab": (1024, 2048, 4096, 8192, 16384, 32768, 65536),
        "members": (1, 2, 3, 4, 6, 8, 12, 16),
        "megabytes": (2, 3, 4, 6, 8, 12, 16, 24, 32),
    },
    "tiny": {
        "length": (8, 16, 32),
        "batch": (1, 2, 4),
        "width": (16, 32, 64),
        "depth": (1, 2, 3),
        "vocab": (128, 256, 512),
        "members": (1, 2, 3),
        "megabytes": (0.01, 0.02, 0.04),
    },
}
THEORY = (
    "time as FLOPs (of a corpus: bytes); memory as parameters, two moments and gradient"
    " in float32, and what the backward pass must read of the forward pass (attention's"
    " weights not, which can be computed again); of a corpus as constant."
)


@dataclasses.dataclass(frozen=True)
class Point:
    """One size on an axis.

    Attributes:
      at: the size.
      theory: what (seconds, bytes) are said to be proportional to.
      take: () -> (seconds, bytes), measured.
    """

    at: float
    theory: tuple[float, float]
    take: Callable[[], tuple[float, int]]


def run(size: str, *, turns: int, out: Path | None) -> None:
    """Measures every axis, prints the table, writes JSON and the page.

    Args:
      size: key of GRIDS and of training.SIZES.
      turns: over the points of an axis.
      out: of the JSON; the page goes beside it. None = neither is written.
    """
    base, console = training.SIZES[size], Console()
    record = {
        "machine": machine(ceilings()),
        "base": dataclasses.asdict(base),
        "dtype": training.best_dtype(),
        "theory": THEORY,
        "axes": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, grid in GRIDS[size].items():
            told = _told(base)[name]
            console.print(f"{told} ...", style="dim")
            points = list(_points(base, name, grid, Path(folder)))
            record["axes"].append(
                {"name": name, "told": told, **measure(points, turns)}
            )
    made = Table(*HEAD)
    for row in rows(record):
        made.add_row(*row)
    console.print(made)
    if out:
        write_json(out, record)
        write_text(out.with_suffix(".html"), build_growth_page(record))


def measure(points: list[Point], turns: int) -> dict:
    """Takes turns over the points; medians, and the growth of both costs.

    Returns:
      {"points": [{"at", "seconds", "bytes", "theory_...", "seconds_taken"}, ...],
      "growth": {"seconds": fields of a Growth, "bytes": likewise}}.
    """
    taken = [[] for _ in points]
    for _ in range(turns):
        for point, one in zip(points, taken, strict=True):
            one.append(point.take())
    found = []
    for point, one in zip(points, taken, strict=True):
        seconds, sizes = zip(*one, strict=True)
        found.append(
            {
                "at": point.at,
                "seconds": statistics.median(seconds),
                "bytes": statistics.median(sizes),
                "theory_seconds": point.theory[0],
                "theory_bytes": point.theory[1],
                "seconds_taken": list(seconds),
            }
        )
    growth = {
        key: dataclasses.asdict(
            fit_growth(
                *(
                    [point[one] for point in found]
                    for one in ("at", key, f"theory_{key}")
                )
            )
        )
        for key in COSTS
    }
    return {"points": found, "growth": growth}


def _told(base: Size) -> dict[str, str]:
    """What each axis is, in words."""
    return {
        "length": f"tokens of a row, {base.tokens:,} tokens a step",
        "batch": f"rows of {base.length:,} tokens",
        "width": "width, with as many more heads and inner width",
        "depth": "layers",
        "vocab": "words of the vocabulary",
        "members": "members of a population, a step of each",
        "megabytes": "megabytes of text, opened and tokenised",
    }


def _points(base: Size, name: str, grid: tuple, folder: Path) -> Iterator[Point]:
    if name == "megabytes":
        for at in grid:
            path = corpus.write_corpus(folder, at)
            yield Point(at, (at, 1.0), functools.partial(corpus.cost, path))
        return
    for at in grid:
        size, members = moved(base, name, at), 0
        if name == "members":
            size, members = dataclasses.replace(base, batch=base.batch // SLIM or 1), at
        flops = size.flops * size.tokens * (members or 1)
        theory = flops, least_bytes(size, members or 1)
        yield Point(at, theory, step_cost(size, members))


def moved(base: Size, name: str, at: int) -> Size:
    """The base with one size changed, and what must go with it."""
    if name == "length":
        return dataclasses.replace(base, length=at, batch=base.tokens // at)
    if name == "width":
        heads, mlp = base.heads * at // base.width, base.mlp * at // base.width
        return dataclasses.replace(base, width=at, heads=heads, mlp=mlp)
    return base if name == "members" else dataclasses.replace(base, **{name: at})


def least_bytes(size: Size, members: int = 1) -> float:
    """What the steps of members in turn need at least, counted from shapes.

    Per parameter 4 bytes for it, 8 for the moments (of every member) and 4 for its
    gradient. Per token, 2 bytes for each number that a backward pass reads: in a layer
    8 D (the stream twice, both norms, query, key, value and the mix) and 3 F (gate, up
    and their product), and the last D. Attention's weights are not kept: they can be
    computed again from a sum a row.

    Source: Dao et al. 2022 (FlashAttention), theorem 1, for attention's memory.
    """
    layer = 4 * size.width**2 + 3 * size.width * size.mlp
    parameters = size.depth * layer + size.vocab * size.width
    read = size.depth * (8 * size.width + 3 * size.mlp) + size.width
    return (12.0 * members + 4.0) * parameters + 2.0 * size.tokens * read


def step_cost(size: Size, members: int = 0) -> Callable[[], tuple[float, int]]:
    """Compiles a step; returns take() -> (seconds of one, bytes that XLA plans)."""
    made = training.make_step(size, training.best_dtype(), members)
    planned, seconds = made[0].memory_analysis(), training.timed(*made)
    needed = (
        planned.argument_size_in_bytes
        + planned.output_size_in_bytes
        - planned.alias_size_in_bytes  # what is written where an argument stood
        + planned.temp_size_in_bytes
    )

    def take() -> tuple[float, int]:
        seconds()
        return statistics.median(seconds() for _ in range(STEPS)), needed

    return take
