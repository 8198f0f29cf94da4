"""How every figure looks: one light style, one colour per arm, and SVG for a page.

Knows nothing of experiments; figures.py draws with it.
"""

import dataclasses
import io
import re
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class ArmStyle:
    """How an arm looks in every figure, table and legend."""

    label: str
    color: str
    marker: str


# Okabe and Ito's colour-blind-safe hues; the baseline is grey, and each arm has its own
# marker, so that no figure depends on hue alone.
_STYLES = {
    "scratch": ArmStyle("scratch", "#D55E00", "s"),
    "transfer": ArmStyle("transfer", "#0072B2", "o"),
    "tfidf": ArmStyle("TF-IDF", "#5F6368", "^"),
    "smollm2": ArmStyle("SmolLM2", "#00805E", "D"),
    "smollm2_lora": ArmStyle("SmolLM2, LoRA", "#8A3FA0", "v"),
}
_SPARE = (("#AA3377", "v"), ("#8A6000", "P"), ("#117A8B", "X"))
_INK = "#222222"
QUIET = "#767676"  # reference lines and their names
STYLE = {
    "font.size": 9.5,
    "axes.labelsize": 9.5,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": _INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.8,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "text.color": _INK,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    # Outlines: the figure looks the same on every machine, whatever fonts it has.
    "svg.fonttype": "path",
}
WIDE, PANEL = (8.6, 4.2), (4.2, 2.9)  # inches; 96 CSS pixels each


def arm_style(arm: str) -> ArmStyle:
    """The one look of an arm; an arm without a place of its own gets a spare hue."""
    if arm in _STYLES:
        return _STYLES[arm]
    color, marker = _SPARE[sum(arm.encode()) % len(_SPARE)]
    return ArmStyle(arm, color, marker)


def arm_order(arms: Sequence[str]) -> list[str]:
    """Known arms first, in the order of the palette, then the others by name."""
    known = [arm for arm in _STYLES if arm in arms]
    return known + sorted(arm for arm in arms if arm not in _STYLES)


def new_figure(
    size: tuple[float, float], *, x_name: str, y_name: str, title: str = ""
) -> tuple[Figure, Axes]:
    """An empty figure with one pair of axes; call it within rc_context(STYLE)."""
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x_name)
    axes.set_ylabel(y_name)
    axes.set_title(title)
    return figure, axes


def label_ends(
    axes: Axes, ends: Sequence[tuple[float, str, str, bool]], *, x: float
) -> None:
    """Writes names beside line ends, pushed apart where they would overlap.

    Args:
      ends: (height in data units, text, colour, bold).
      x: where the lines end, in data units; the axes' limits must stand.
    """
    low, high = axes.get_ylim()
    ends = sorted(ends)
    heights = spread([end[0] for end in ends], gap=0.06 * (high - low))
    for height, (_, text, color, bold) in zip(heights, ends, strict=True):
        axes.annotate(
            text,
            (x, height),
            xytext=(14, 0),
            textcoords="offset points",
            va="center",
            color=color,
            fontweight="bold" if bold else "normal",
        )


def spread(heights: Sequence[float], *, gap: float) -> list[float]:
    """Moves ascending `heights` as little as keeps neighbours at least `gap` apart."""
    groups: list[list[float]] = []
    for height in heights:
        groups.append([height])
        # A group is centred on the mean of its members, which stand `gap` apart.
        while (
            len(groups) > 1
            and _ends(groups[-2], gap)[1] + gap > (_ends(groups[-1], gap)[0])
        ):
            groups[-2:] = [groups[-2] + groups[-1]]
    return [
        _ends(group, gap)[0] + gap * place
        for group in groups
        for place in range(len(group))
    ]


def _ends(group: Sequence[float], gap: float) -> tuple[float, float]:
    centre, half = sum(group) / len(group), gap * (len(group) - 1) / 2
    return centre - half, centre + half


def readable_ticks(sizes: Sequence[int]) -> list[int]:
    """Those of ascending sizes that can be labelled on a log axis without touching."""
    least = 0.055 * np.log(sizes[-1] / sizes[0])
    kept = [sizes[0]]
    for size in sizes[1:]:
        if np.log(size / kept[-1]) >= least:
            kept.append(size)
        elif size == sizes[-1] and len(kept) > 1:
            kept[-1] = size  # the largest is named rather than its neighbour
    return kept


def to_svg(figure: Figure, *, name: str, description: str) -> str:
    """The figure as an <svg> element whose ids are its own on a page of many.

    Args:
      name: unique on the page; the ids begin with it.
      description: read aloud in place of the figure; plain words, no markup.
    """
    file = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):  # same input, same bytes
        figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    own = re.sub(r"[^a-z0-9]+", "-", name.lower())
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{own}-", text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{description}" ', 1)
