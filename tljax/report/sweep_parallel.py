"""Parallel coordinates: one line a trial through its value of every key to its score.

lr_peak   method   rank    score
  |--------|-------|--------|       the best on top of all, a dash below an axis
  |        |       -        |       where a key does not apply
"""

from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tljax.report.drawing import STYLE, WIDE, to_svg
from tljax.report.sweep_best import Ranking
from tljax.report.sweep_look import (
    ALIKE,
    BEST,
    OTHER,
    bound,
    score_axis,
    short_setting,
    trial_color,
)
from tljax.report.sweep_records import Sweep, place_of

MOST_KEYS = 7  # side by side
ABSENT = -0.14  # below the axis
LINES = {OTHER: (0.7, 0.6), ALIKE: (1.2, 0.8), BEST: (2.6, 1.0)}  # width, opacity


def parallel_svg(sweep: Sweep, ranking: Ranking, names: Mapping[str, str]) -> str:
    """All trials with a score as lines over some keys; MOST_KEYS of them can be read.

    Args:
      sweep: whose trials are drawn.
      ranking: of its trials, at least one with a score.
      names: key -> what stands above its axis; these keys are drawn.
    """
    keys, score = list(names), score_axis(sweep)
    means = np.array(list(ranking.means.values()))
    drawn = score.scale * bound(means, larger_is_better=score.larger_is_better)
    low, high = drawn.min(), drawn.max()
    heights = (drawn - low) / ((high - low) or 1.0)
    at = dict(zip(ranking.means, heights, strict=True))
    rows = {row["number"]: row for row in sweep.complete}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDE[0], 3.9))
        figure.subplots_adjust(left=0.07, right=0.92, top=0.86, bottom=0.06)
        axes = figure.add_subplot()
        for number in reversed(ranking.order):  # the best last, on top
            params = rows[number]["params"]
            line = [_height(sweep.space[key], params) for key in keys]
            color = trial_color(ranking, number)
            width, alpha = LINES[color]
            axes.plot([*line, at[number]], color=color, linewidth=width, alpha=alpha)
        for place, key in enumerate(keys):
            _axis(axes, place, names[key], _ticks(sweep.space[key]))
            if any(key not in row["params"] for row in rows.values()):
                axes.text(place, ABSENT, " –", va="center", color="#555555")
        ends = [(0.0, f"{low:.4g}"), (1.0, f"{high:.4g}")]
        _axis(axes, len(keys), score.name, ends)
        axes.set_xlim(-0.1, len(keys) + 0.1)
        axes.set_ylim(ABSENT - 0.04, 1.03)
        axes.set_axis_off()
        description = "Parallel coordinates"
        return to_svg(figure, name=f"parallel {keys[0]}", description=description)


def _axis(axes: Axes, place: int, name: str, ticks: list[tuple[float, str]]) -> None:
    axes.plot([place, place], [0, 1], color="#555555", linewidth=1, zorder=5)
    title = name.replace(" ", "\n", 1).replace(".", ".\n")
    axes.annotate(
        title, (place, 1), xytext=(0, 11), textcoords="offset points", ha="center",
        fontweight="bold",
    )  # fmt: skip
    for height, text in ticks:
        axes.annotate(
            text, (place, height), xytext=(4, 0), textcoords="offset points",
            va="center", fontsize=8.5, zorder=6,
            bbox={"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.6},
        )  # fmt: skip


def _ticks(one: Mapping[str, Any]) -> list[tuple[float, str]]:
    if one["kind"] == "choice":
        steps = max(len(one["choices"]) - 1, 1)
        return [
            (i / steps, short_setting(value)) for i, value in enumerate(one["choices"])
        ]
    return [(0.0, short_setting(one["low"])), (1.0, short_setting(one["high"]))]


def _height(one: Mapping[str, Any], params: Mapping[str, Any]) -> float:
    return place_of(one, params[one["key"]]) if one["key"] in params else ABSENT
