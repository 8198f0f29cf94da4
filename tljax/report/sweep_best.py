"""Which trial is best, how sure is that, is it on an edge, and would more trials pay?

    trial i cannot be told apart from the best:
    mean(d) - t sd(d) / sqrt(S) <= 0 <= mean(d) + t sd(d) / sqrt(S),
    d_S = values of the best - values of i, paired by seed

Pure: rows of trials.json in, nothing read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tljax.report.spread import expected_best, spread_of_best
from tljax.report.statistics import Interval, student_interval
from tljax.report.sweep_records import Trial, is_complete, place_of

MOST_EXPECTED = 1_000  # trials; beyond, the ways to choose k of them leave float64
_NO_WIDTH = 1e-9
EDGE = 0.05  # of a range, on its own scale, that counts as its edge


@dataclass(frozen=True)
class Ranking:
    """The complete trials by the mean of their seeds.

    Attributes:
      order: numbers of the trials, best first; equal means by number.
      means: number -> mean over seeds.
      seeds: of every trial.
      interval: of the best's mean over seeds; None with one seed.
      differences: number -> best - it, paired by seed; {} with one seed.
    """

    order: tuple[int, ...]
    means: dict[int, float]
    seeds: int
    interval: Interval | None
    differences: dict[int, Interval]

    @property
    def best(self) -> int | None:
        """The number of the best trial; None if none is complete."""
        return self.order[0] if self.order else None

    @property
    def alike(self) -> tuple[int, ...]:
        """The others that cannot be told apart from the best, best first.

        Two seeds' differences that happen to be the same tell nothing of their spread.
        """
        width = _NO_WIDTH if self.seeds < 3 else 0.0
        return tuple(
            number
            for number, gap in self.differences.items()
            if gap.low <= 0 <= gap.high or gap.high - gap.low < width
        )


def best_trials(trials: Sequence[Trial], direction: str) -> Ranking:
    """Ranks trials by their mean over seeds and compares each with the best.

    Seeds are what varies: all trials answer the same validation items, so intervals say
    what other seeds would give, not other items. That the best was chosen by these same
    numbers is not in them.

    Args:
      trials: rows of trials.json; those without a score are passed over.
      direction: 'maximize' or 'minimize'.

    Raises:
      ValueError: an unknown direction, or trials with unequal numbers of seeds.
    """
    if direction not in ("maximize", "minimize"):
        raise ValueError(f"direction {direction!r}: 'maximize' or 'minimize'")
    values = {
        row["number"]: np.array(row["values"], np.float64)
        for row in trials
        if is_complete(row)
    }
    counts = {len(values_S) for values_S in values.values()}
    if len(counts) > 1:
        raise ValueError(f"trials of {sorted(counts)} seeds cannot be paired by seed")
    if not values:
        return Ranking((), {}, 0, None, {})
    means = {number: float(values_S.mean()) for number, values_S in values.items()}
    sign = -1 if direction == "maximize" else 1
    order = sorted(means, key=lambda number: (sign * means[number], number))
    best_S, seeds = values[order[0]], counts.pop()
    if seeds == 1:
        return Ranking(tuple(order), means, 1, None, {})
    differences = {
        number: student_interval(best_S - values[number]) for number in order[1:]
    }
    return Ranking(tuple(order), means, seeds, student_interval(best_S), differences)


def edges(
    space: Sequence[Mapping[str, Any]], params: Mapping[str, Any]
) -> dict[str, str]:
    """Where a point lies on the edge of the space: key -> 'lower' or 'upper'.

    A range's edge is its outer 5 %, on its own scale; that of choices the smallest or
    largest of three or more numbers. A space that begins at 0, or a count that begins
    at 1, has no lower edge: below it there is nothing to try.

    Args:
      space: `space` of sweep.json.
      params: of the trial; a key that does not apply to it is absent.
    """
    found = {}
    for one in space:
        key = one["key"]
        if key not in params or not _has_ends(one):
            continue
        if one["kind"] == "choice":
            ordered = sorted(one["choices"])
            lowest = ordered[0]
            place = ordered.index(params[key]) / (len(ordered) - 1)
        else:
            lowest, place = one["low"], place_of(one, params[key])
        if place <= EDGE and not _is_least(lowest):
            found[key] = "lower"
        elif place >= 1 - EDGE:
            found[key] = "upper"
    return found


def _is_least(value: float) -> bool:
    return value == 0 or (isinstance(value, int) and value == 1)


def _has_ends(one: Mapping[str, Any]) -> bool:
    """Whether a key's values have an order that goes on beyond its ends."""
    if one["kind"] != "choice":
        return one["high"] > one["low"]
    choices = one["choices"]
    numbers = all(type(choice) in (int, float) for choice in choices)
    return numbers and len(choices) >= 3


def scores_in_order(trials: Sequence[Trial]) -> list[float]:
    """The means over seeds of the trials with a score, in the order of their ending."""
    rows = [row for row in trials if is_complete(row)]
    rows.sort(key=lambda row: (row["order"], row["number"]))
    return [float(np.mean(row["values"])) for row in rows]


def expected_bests(
    scores: Sequence[float], direction: str
) -> tuple[list[float], list[float]]:
    """The best to be expected of k = 1, 2, ... of the trials, and its deviations.

    Args:
      scores: of the trials; of none, or more than 1,000, two empty lists come back.
      direction: 'maximize' or 'minimize'.

    Source: `spread.expected_best`.
    """
    if not 0 < len(scores) <= MOST_EXPECTED:
        return [], []
    sign = 1.0 if direction == "maximize" else -1.0
    signed, budgets = sign * np.array(scores), range(1, len(scores) + 1)
    means = [sign * mean for mean in expected_best(signed, budgets)]
    return means, spread_of_best(signed, budgets)
