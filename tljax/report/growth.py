"""How cost grows with a size: measured exponents beside theory's, as table and page.

    cost ~ size^exponent: an exponent is a slope on logarithmic axes

Reads what `tljax bench growth` writes; knows nothing of how it was measured.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator
from scipy import special

from tljax.report.drawing import (
    PANEL,
    QUIET,
    STYLE,
    arm_style,
    new_figure,
    to_svg,
)
from tljax.report.markup import escape, panels, section, table
from tljax.report.page import assemble

COSTS = {"seconds": ("time", "Time (s)", 1.0), "bytes": ("memory", "Memory (MB)", 1e-6)}
HEAD = ("against", "from", "to", "cost", "exponent", "of the last two",
        "theory", "")  # fmt: skip
NEGLIGIBLE = 0.05  # of an exponent: over a factor of ten, 12 % of the cost
CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Growth:
    """How one cost grows over the upper half of an axis's points.

    Attributes:
      exponent: of what was measured.
      error: half of its interval's width.
      last: the exponent between the two largest points.
      theory: the exponent of what theory says, over the same points as `exponent`.
    """

    exponent: float
    error: float
    last: float
    theory: float

    @property
    def above(self) -> bool:
        """Whether it grows faster than theory says, by more than its interval."""
        return self.exponent - self.theory > max(self.error, NEGLIGIBLE)


def fit_growth(
    sizes: Sequence[float], costs: Sequence[float], theory: Sequence[float]
) -> Growth:
    """Fits exponents by least squares of logarithms.

    The upper half of the points counts: below it, what does not grow hides what does.
    The interval is that of the slope of log(cost / theory), for a bend that theory has
    too is no error; Student's t with two degrees of freedom fewer than points.

    Args:
      sizes: three or more, ascending.
      costs: measured, one a size.
      theory: what they are said to be proportional to.

    Raises:
      ValueError: fewer than three sizes.
    """
    if len(sizes) < 3:
        raise ValueError(f"{len(sizes)} sizes: a slope with an interval needs three")
    used = slice(min(len(sizes) // 2, len(sizes) - 3), None)
    log_size, log_cost, log_theory = (
        np.log(np.asarray(one, float))[used] for one in (sizes, costs, theory)
    )
    (slope, _), covariance = np.polyfit(log_size, log_cost - log_theory, 1, cov=True)
    quantile = special.stdtrit(len(log_size) - 2, 0.5 + CONFIDENCE / 2)
    theory_slope = np.polyfit(log_size, log_theory, 1)[0]
    return Growth(
        exponent=float(theory_slope + slope),
        error=float(quantile * np.sqrt(covariance[0, 0])),
        last=float(np.diff(log_cost)[-1] / np.diff(log_size)[-1]),
        theory=float(theory_slope),
    )


def rows(record: Mapping[str, Any]) -> Iterator[list[str]]:
    """The table under HEAD: two rows an axis, time and memory, as plain text."""
    for axis in record["axes"]:
        at = [f"{point['at']:,}" for point in axis["points"]]
        for key, (name, _, _) in COSTS.items():
            growth = Growth(**axis["growth"][key])
            yield [
                axis["name"], at[0], at[-1], name,
                f"{growth.exponent:.2f} ± {growth.error:.2f}", f"{growth.last:.2f}",
                f"{growth.theory:.2f}", "above" if growth.above else "",
            ]  # fmt: skip


def build_growth_page(record: Mapping[str, Any]) -> str:
    """growth.html: the table, then time and memory against each size."""
    told = (
        "Exponents are slopes on logarithmic axes over the upper half of the points,"
        f" with their {CONFIDENCE:.0%} intervals; 'above' marks what grows faster than"
        " theory by more than that. Theory counts from shapes, without measuring:"
        f" {record['theory']}"
    )
    cells = [[escape(cell) for cell in row] for row in rows(record)]
    exponents = table([escape(cell) for cell in HEAD], cells)
    base = ", ".join(f"{key} {value:,}" for key, value in record["base"].items())
    return assemble(
        "How cost grows",
        f"Training steps around {base}; {record['dtype']}",
        [
            section("Exponents", exponents, f'<p class="note">{escape(told)}</p>'),
            *(_axis_html(axis) for axis in record["axes"]),
        ],
    )


def _axis_html(axis: Mapping[str, Any]) -> str:
    drawn = [growth_svg(axis, key) for key in COSTS]
    caption = "Blue: measured. Grey: theory, through the first point."
    return section(axis["told"].capitalize(), panels(drawn, caption))


def growth_svg(axis: Mapping[str, Any], key: str) -> str:
    """One cost against one size, and theory's line through the first point.

    Args:
      axis: of the record: "name", "told", "points", "growth".
      key: of COSTS.
    """
    name, y_name, unit = COSTS[key]
    sizes, costs, theory = (
        np.array([point[one] for point in axis["points"]])
        for one in ("at", key, f"theory_{key}")
    )
    growth = Growth(**axis["growth"][key])
    title = f"{name} ~ {growth.exponent:.2f}, by theory {growth.theory:.2f}"
    style = arm_style("transfer")
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(
            PANEL, x_name=axis["name"], y_name=y_name, title=title
        )
        expected = unit * costs[0] * theory / theory[0]
        axes.plot(sizes, expected, "--", color=QUIET, linewidth=1.2)
        axes.plot(sizes, unit * costs, color=style.color, marker="o", markersize=4.5)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.xaxis.set_major_locator(FixedLocator(sizes[::2]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(lambda at, _: f"{at:,.0f}")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(lambda cost, _: f"{cost:g}")
        description = f"{name} against {axis['name']}, measured and by theory"
        return to_svg(
            figure, name=f"growth {axis['name']} {name}", description=description
        )
