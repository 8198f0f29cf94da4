"""The ablation's own figure: the arms, one below the other, on each set of items."""

from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tljax.report.drawing import STYLE, WIDE, arm_style, to_svg


def arms_svg(arms: Mapping[str, Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """A panel a column: mean with interval, and one pale dot a seed.

    Args:
      arms: of the summary; {arm: {column: {"mean", "ci95", "values"}}}, shares.
      columns: key -> title.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDE[0], 0.9 + 0.34 * len(arms)), layout="constrained")
        panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
        for axes, (key, title) in zip(panels, columns.items(), strict=True):
            for place, (arm, row) in enumerate(arms.items()):
                style, found = arm_style(arm), row[key]
                values = 100 * np.array(found["values"])
                axes.scatter(
                    values,
                    np.full(len(values), place + 0.22),
                    s=10,
                    color=style.color,
                    alpha=0.45,
                    linewidth=0,
                )
                low, high = (100 * end for end in found["ci95"])
                axes.hlines(place, low, high, color=style.color, linewidth=2)
                axes.plot(100 * found["mean"], place, style.marker, color=style.color)
            axes.set_xlabel(title)
            axes.grid(visible=False, axis="y")
            axes.xaxis.set_major_locator(MaxNLocator(5))
        panels[0].set_yticks(range(len(arms)), [arm_style(arm).label for arm in arms])
        panels[0].invert_yaxis()
        description = "Accuracy of every arm with its interval"
        return to_svg(figure, name="arms", description=description)
