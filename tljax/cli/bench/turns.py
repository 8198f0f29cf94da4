"""Ours and theirs in turns on the same work: what is compared, and what is written.

    Work -> measure: ours, theirs, ours, theirs ... -> Row: medians, spread, ratio

Absolute figures drift from hour to hour on shared machines; a ratio of medians of one
run, taken in turns, does not.
"""

import dataclasses
import statistics
from collections.abc import Callable

Measure = Callable[[], float]
COSTS = ("s", "MiB")  # units of which less is better


@dataclasses.dataclass(frozen=True)
class Work:
    """One thing to measure.

    Attributes:
      name: in the table, e.g. 'train: width 256, 6 layers, bfloat16'.
      unit: of what is measured, e.g. 'tokens/s'; more is better but for COSTS.
      prepare: () -> measure; all that is not timed (data, compilation) happens in it.
      theirs: the peer's measure; None = there is no peer for it.
      flops: of one unit, counted from shapes; 0 = not counted.
      target: least ratio to reach; None = none is set.
      dtype: of products, whose ceiling the share is of.
      xla_flops: flops by XLA's cost analysis; None = it has none.
    """

    name: str
    unit: str
    prepare: Callable[[], Measure]
    theirs: Measure | None = None
    flops: float = 0.0
    target: float | None = None
    dtype: str = "bfloat16"
    xla_flops: Callable[[], float | None] = lambda: None


@dataclasses.dataclass(frozen=True)
class Row:
    """What was found. `ratio` is above 1 where ours is better, whatever the unit."""

    name: str
    unit: str
    ours: list[float]
    theirs: list[float]
    flops: float
    target: float | None
    share_of_ceiling: float | None
    xla_flops: float | None = None

    @property
    def ratio(self) -> float | None:
        """Of the medians; None without a peer."""
        if not self.theirs:
            return None
        ours, theirs = map(statistics.median, (self.ours, self.theirs))
        return theirs / ours if self.unit in COSTS else ours / theirs


def measure(work: Work, *, turns: int, ceilings: dict[str, float]) -> Row:
    """Takes turns and returns what was found.

    Args:
      work: what to measure.
      turns: of each side.
      ceilings: FLOP/s of this machine's matrix products by dtype.
    """
    ours, theirs = [], []
    take = work.prepare()
    for _ in range(turns):
        ours.append(take())
        if work.theirs:
            theirs.append(work.theirs())
    share = None
    if work.flops and work.dtype in ceilings:
        share = statistics.median(ours) * work.flops / ceilings[work.dtype]
    return Row(
        name=work.name,
        unit=work.unit,
        ours=ours,
        theirs=theirs,
        flops=work.flops,
        target=work.target,
        share_of_ceiling=share,
        xla_flops=work.xla_flops(),
    )


def as_record(row: Row) -> dict:
    """The row as JSON holds it."""
    sides = {
        name: {
            "median": statistics.median(values),
            "low": min(values),
            "high": max(values),
            "values": values,
        }
        for name, values in (("ours", row.ours), ("theirs", row.theirs))
        if values
    }
    return {
        "name": row.name,
        "unit": row.unit,
        **sides,
        "ratio": row.ratio,
        "target": row.target,
        "flops_per_unit": row.flops or None,
        "flops_per_unit_by_xla": row.xla_flops,
        "share_of_ceiling": row.share_of_ceiling,
    }
