"""The report's figures, each a pure function from numbers to an inline SVG string.

Shares between 0 and 1 come in and are drawn in per cent. Reads no file and decides
nothing about what is shown: page.py does.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator

from tljax.report.curves import Band, Reliability
from tljax.report.drawing import (
    PANEL,
    QUIET,
    STYLE,
    WIDE,
    arm_order,
    arm_style,
    label_ends,
    new_figure,
    readable_ticks,
    to_svg,
)


def label_efficiency_svg(
    arms: Mapping[str, Mapping[str, Mapping[str, Any]]], *, chance: float | None = None
) -> str:
    """Test accuracy against the number of labels: intervals and one dot a seed.

    Args:
      arms: `summary["arms"]`: arm -> str(n) -> {"mean", "ci95", "values"}, shares.
      chance: accuracy of always naming the largest class; drawn as a dotted line.
    """
    sizes = sorted({int(n) for rows in arms.values() for n in rows})
    # Natural units of the log axis; a lone n gets room to both sides.
    span = np.log(sizes[-1] / sizes[0]) or 1.0
    half = 0.02 * (len(arms) - 1) / 2  # of the span, that arms stand to each side
    left, right, names = (
        at * np.exp(step * span)
        for at, step in ((sizes[0], -0.08), (sizes[-1], 0.24), (sizes[-1], half + 0.01))
    )
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(
            WIDE, x_name="Labelled training items, n", y_name="Test accuracy (%)"
        )
        ends = []
        for place, arm in enumerate(arm_order(list(arms))):
            # Side by side on the log axis, so that intervals at one n stay apart.
            shift = np.exp((0.02 * place - half) * span)
            _draw_arm(axes, arm, arms[arm], shift=shift, dot=np.exp(0.007 * span))
            last = arms[arm][max(arms[arm], key=int)]["mean"]
            style = arm_style(arm)
            ends.append((100 * last, style.label, style.color, True))
        if chance is not None:
            level = [100 * chance, 100 * chance]
            axes.plot([left, names], level, ":", color=QUIET, linewidth=1)
            ends.append((100 * chance, "largest class", QUIET, False))
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(readable_ticks(sizes)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(lambda n, _: f"{n:,.0f}")
        axes.grid(visible=False, axis="x")
        axes.set_xlim(left, right)
        label_ends(axes, ends, x=names)
        description = "Test accuracy against labelled training items, per arm"
        return to_svg(figure, name="label-efficiency", description=description)


def learning_curve_svg(
    bands: Mapping[tuple[str, str], Band], *, title: str, quantity: str, unit: str
) -> str:
    """Training (dashed) and validation (solid) curves of each arm at one n.

    Args:
      bands: (arm, split) -> mean and band over seeds, split "train" or "validation".
      title: stands above the panel, e.g. "n = 100".
      quantity: "loss_nats" or "accuracy".
      unit: of the bands' x: "epochs" or "steps".
    """
    percent = quantity == "accuracy"
    y_name = "Accuracy (%)" if percent else "Loss (nats per item)"
    x_name = {"epochs": "Epochs (passes over the labels)", "steps": "Steps"}[unit]
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(PANEL, x_name=x_name, y_name=y_name, title=title)
        for arm, split in sorted(bands):
            _draw_band(
                axes,
                bands[arm, split],
                color=arm_style(arm).color,
                split=split,
                scale=100 if percent else 1,
            )
        if not percent:
            axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        description = f"{y_name} over training, {title}"
        return to_svg(figure, name=f"{quantity} {title}", description=description)


def reliability_svg(reliability: Mapping[str, Reliability], *, title: str) -> str:
    """Confidence against accuracy, one line an arm; a point's area is its share.

    Args:
      reliability: arm -> bins and expected calibration error.
      title: stands above the panel, e.g. "n = 100".
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(
            PANEL, x_name="Confidence (%)", y_name="Accuracy (%)", title=title
        )
        lowest = 100.0
        for place, arm in enumerate(arm_order(list(reliability))):
            found, style = reliability[arm], arm_style(arm)
            x, y = 100 * found.confidence, 100 * found.accuracy
            lowest = min(lowest, x.min(), y.min())
            axes.plot(x, y, color=style.color, linewidth=1.4)
            axes.scatter(
                x, y, s=12 + 110 * found.share, color=style.color, marker=style.marker
            )
            axes.annotate(
                f"{style.label}: ECE {100 * found.error:.1f}",
                (0.02, 0.98 - 0.085 * place),
                xycoords="axes fraction",
                va="top",
                color=style.color,
                fontsize=9,
            )
        low = max(0.0, 10 * np.floor((lowest - 2) / 10))
        axes.plot([low, 100], [low, 100], color=QUIET, linewidth=1, linestyle=":")
        axes.set_xlim(low, 101)
        axes.set_ylim(low, 102)
        description = f"Accuracy against confidence, {title}"
        return to_svg(figure, name=f"calibration {title}", description=description)


def pretraining_svg(bands: Mapping[str, Band]) -> str:
    """Loss of next-word prediction against steps, on a log axis.

    Args:
      bands: split -> curve of one run (nats per token).
    """
    names = {"train": "training", "validation": "held-out text"}
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(
            (WIDE[0], 3.2), x_name="Steps", y_name="Loss (nats per token)"
        )
        for split in (name for name in names if name in bands):
            band = bands[split]
            seen = band.x > 0  # a log axis has no place for step 0
            shown = dataclasses.replace(
                band,
                **{k: getattr(band, k)[seen] for k in ("x", "mean", "low", "high")},
            )
            color = arm_style("transfer").color
            _draw_band(
                axes, shown, color=color, split=split, scale=1, label=names[split]
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda x, _: _short(x))
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.legend(loc="upper right")
        return to_svg(figure, name="pretraining", description="Pre-training loss")


def _draw_arm(
    axes: Axes, arm: str, rows: Mapping[str, Any], *, shift: float, dot: float
) -> None:
    """One arm's line and intervals; its seeds' dots stand a little to the right."""
    style = arm_style(arm)
    sizes = sorted(rows, key=int)
    x = np.array([int(n) for n in sizes]) * shift
    mean = 100 * np.array([rows[n]["mean"] for n in sizes])
    interval = 100 * np.array([rows[n]["ci95"] for n in sizes])
    # Not errorbar(): a bootstrap's interval need not hold the mean.
    axes.vlines(x, interval[:, 0], interval[:, 1], color=style.color, linewidth=2)
    axes.plot(x, mean, color=style.color, marker=style.marker, markersize=6.5)
    for at, n in zip(x, sizes, strict=True):
        values = 100 * np.array(rows[n]["values"])
        axes.scatter(
            np.full(len(values), at * dot),
            values,
            s=12,
            color=style.color,
            alpha=0.45,
            linewidth=0,
        )


def _draw_band(
    axes: Axes, band: Band, *, color: str, split: str, scale: float, label: str = ""
) -> None:
    axes.plot(
        band.x,
        scale * band.mean,
        "--" if split == "train" else "-",
        color=color,
        marker="o" if len(band.x) == 1 else None,
        linewidth=1.3 if split == "train" else 2,
        label=label or None,
    )
    if band.runs > 1:
        low, high = scale * band.low, scale * band.high
        axes.fill_between(band.x, low, high, color=color, alpha=0.13, linewidth=0)


def _short(count: float) -> str:
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= unit:
            return f"{count / unit:g} {name}"
    return f"{count:g}"
