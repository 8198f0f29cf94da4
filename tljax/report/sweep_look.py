"""How a sweep looks in all its figures: colours of trials, the score as an axis.

The best trial is orange, those that cannot be told apart from it blue, all others grey.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tljax.report.sweep_answer import setting
from tljax.report.sweep_best import Ranking
from tljax.report.sweep_records import Sweep, is_share

BEST, ALIKE, OTHER = "#D55E00", "#0072B2", "#B4BBC2"
FAR = 3.0  # interquartile ranges beyond the worse quartile that are still drawn
LONGEST = 14  # characters of a choice beside an axis


@dataclass(frozen=True)
class Score:
    """A metric as an axis: its name with the unit, and what scores are drawn times."""

    name: str
    scale: float
    larger_is_better: bool


def score_axis(sweep: Sweep) -> Score:
    """How this sweep's metric is drawn: shares in per cent."""
    metric, larger = sweep.plan["metric"], sweep.plan["direction"] == "maximize"
    name = metric.replace("/", " ").replace("_", " ")
    if is_share(metric):
        return Score(f"{name} (%)", 100.0, larger)
    if name.endswith(" nats"):
        name = f"{name.removesuffix(' nats')} (nats)"
    return Score(name, 1.0, larger)


def short_setting(value: Any) -> str:
    """A value as a mark on an axis: of a long name its end, as paths differ there."""
    text = setting(value)
    return text if len(text) <= LONGEST else f"…{text[1 - LONGEST :]}"


def trial_color(ranking: Ranking, number: int) -> str:
    """Orange, blue or grey."""
    if number == ranking.best:
        return BEST
    return ALIKE if number in ranking.alike else OTHER


def bound(scores: np.ndarray, *, larger_is_better: bool) -> np.ndarray:
    """Pulls scores far off on the worse side in, so that the others can be told apart.

    Args:
      scores: of trials.
      larger_is_better: which side is the worse one.

    Returns:
      The scores, none further than 3 interquartile ranges beyond the worse quartile.
    """
    low, high = np.quantile(scores, [0.25, 0.75])
    if high == low:
        return scores
    if larger_is_better:
        return np.maximum(scores, low - FAR * (high - low))
    return np.minimum(scores, high + FAR * (high - low))
