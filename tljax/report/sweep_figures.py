"""A sweep's figures, each a pure function from trials to an inline SVG string.

Dots, bars and lines in the colours of sweep_look.py; a trial without a score is a cross
at the axis, one whose score is far worse than the others' a triangle there.
"""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, ScalarFormatter

from tljax.report.curves import Band
from tljax.report.drawing import PANEL, QUIET, STYLE, WIDE, new_figure, to_svg
from tljax.report.sweep_best import Ranking
from tljax.report.sweep_look import (
    ALIKE,
    BEST,
    OTHER,
    Score,
    bound,
    score_axis,
    short_setting,
    trial_color,
)
from tljax.report.sweep_records import Sweep

NARROW = 20  # characters of choices that fit below a panel side by side


def isolation_svg(sweep: Sweep, ranking: Ranking, key: str, *, title: str) -> str:
    """One key's values against the score, one dot a trial; the rest varies unseen.

    Args:
      sweep: whose trials are drawn, where the key applies to them.
      ranking: of its trials, at least one with a score.
      key: of the space.
      title: stands above the panel.
    """
    one, score = sweep.space[key], score_axis(sweep)
    applies = [row for row in sweep.trials if key in row["params"]]
    lost = [row for row in applies if row["state"] in ("failed", "pruned")]
    means = np.array(list(ranking.means.values()))
    drawn = bound(means, larger_is_better=score.larger_is_better)
    height = dict(zip(ranking.means, drawn, strict=True))
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(PANEL, x_name="", y_name=score.name, title=title)
        room = score.scale * 0.06 * (np.ptp(drawn) or 1.0)
        # All panels of a page have the same heights.
        low, high = score.scale * drawn.min() - room, score.scale * drawn.max() + room
        axes.set_ylim(low, high)
        for row in applies:
            number = row["number"]
            if number not in height:
                continue
            best = number == ranking.best
            beyond = height[number] != ranking.means[number]
            axes.plot(
                _place(one, row),
                score.scale * height[number],
                marker=_marker(best, beyond=beyond, score=score),
                markersize=12 if best else 5.5,
                color=trial_color(ranking, number),
                markeredgecolor="white",
                markeredgewidth=0.7,
                zorder=3 + 2 * best + (number in ranking.alike),
            )
        for row in lost:
            axes.plot(
                _place(one, row),
                0.02,
                marker="x",
                markersize=5,
                color=QUIET,
                transform=axes.get_xaxis_transform(),
                clip_on=False,
            )
        _scale(axes, one)
        description = f"Score against {key}, one dot a trial"
        return to_svg(figure, name=f"isolation {key}", description=description)


def importance_svg(shares: Mapping[str, float], names: Mapping[str, str]) -> str:
    """Bars of fANOVA's shares, the largest on top.

    Args:
      shares: key -> share, largest first.
      names: key -> what stands beside its bar.
    """
    size = (WIDE[0], 0.7 + 0.32 * len(shares))
    with matplotlib.rc_context(STYLE):
        x_name = "Share of the score's variance (%)"
        figure, axes = new_figure(size, x_name=x_name, y_name="")
        places = np.arange(len(shares))[::-1]
        widths = 100 * np.array(list(shares.values()))
        axes.barh(places, widths, height=0.6, color=ALIKE)
        for place, width in zip(places, widths, strict=True):
            axes.annotate(
                f"{width:.0f}",
                (width, place),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
            )
        axes.set_yticks(places, [names[key] for key in shares])
        axes.grid(visible=False, axis="y")
        axes.set_xlim(0, 1.08 * widths.max())
        return to_svg(figure, name="importance", description="Importance of each key")


def curves_svg(bands: Mapping[int, Band], ranking: Ranking, look: Score) -> str:
    """Curves of all trials against steps: the best few in colour, the others grey.

    Args:
      bands: number of the trial -> its mean over seeds; some may lack.
      ranking: tells the best, and those that are as good.
      look: how what they show is drawn.
    """
    shown = look.scale * np.concatenate([band.mean for band in bands.values()])
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(PANEL, x_name="Steps", y_name=look.name)
        few = {ranking.best, *ranking.alike[:3]}
        for number, band in bands.items():
            named = number in few
            axes.plot(
                band.x,
                look.scale * band.mean,
                color=trial_color(ranking, number) if named else OTHER,
                linewidth=2 if named else 0.8,
                alpha=1 if named else 0.7,
                marker="o" if len(band.x) == 1 else None,
                markersize=3,
                zorder=2 + named + (number == ranking.best),
            )
        kept = bound(shown, larger_is_better=look.larger_is_better)
        if (kept != shown).any():  # a curve that is lost hides the others
            worst = kept.min() if look.larger_is_better else kept.max()
            axes.set_ylim(**{"bottom" if look.larger_is_better else "top": worst})
        axes.xaxis.set_major_locator(MaxNLocator(6))
        description = f"{look.name} by step"
        return to_svg(figure, name=f"curves {look.name}", description=description)


def progress_svg(
    scores: Sequence[float],
    expected: Sequence[float],
    deviations: Sequence[float],
    score: Score,
) -> str:
    """Best so far in the order of ending, beside what k trials are expected to give.

    Args:
      scores: of the trials, in the order of their ending.
      expected: the best of k of them, k = 1, 2, ...; [] draws none.
      deviations: its standard deviations, as many.
      score: how they are drawn.
    """
    found = score.scale * bound(
        np.array(scores), larger_is_better=score.larger_is_better
    )
    keep = np.maximum if score.larger_is_better else np.minimum
    trials = np.arange(1, len(found) + 1)
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(
            (WIDE[0], 3.4), x_name="Trials with a score", y_name=score.name
        )
        axes.plot(trials, found, "o", color=OTHER, markersize=4, label="each trial")
        if len(expected):
            middle, half = (
                score.scale * np.array(one) for one in (expected, deviations)
            )
            low, high = np.clip(  # no subset has a best beyond the scores
                [middle - half, middle + half], found.min(), found.max()
            )
            axes.fill_between(trials, low, high, color=ALIKE, alpha=0.15, linewidth=0)
            name = "expected best of so many (± 1 sd)"
            axes.plot(trials, middle, "--", color=ALIKE, label=name)
        axes.step(
            trials, keep.accumulate(found), where="post", color=BEST,
            label="best so far",
        )  # fmt: skip
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0)
        return to_svg(figure, name="progress", description="Best score so far")


def _place(one: Mapping, row: Mapping) -> float:
    """Where a trial stands on a key's axis; in a strip of choices a little aside."""
    value = row["params"][one["key"]]
    if one["kind"] != "choice":
        return value
    aside = (row["number"] * 0.618) % 1 - 0.5  # golden ratio: neighbours stay apart
    return one["choices"].index(value) + 0.36 * aside


def _marker(best: bool, *, beyond: bool, score: Score) -> str:
    if beyond:
        return "v" if score.larger_is_better else "^"
    return "*" if best else "o"


def _scale(axes: Axes, one: Mapping) -> None:
    """The range or the choices of a key, whole, whatever was drawn of them."""
    if one["kind"] == "choice":
        names = [short_setting(choice) for choice in one["choices"]]
        turned = (
            {} if sum(map(len, names)) <= NARROW else {"rotation": 25, "ha": "right"}
        )
        axes.set_xticks(range(len(names)), names, **turned)
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.grid(visible=False, axis="x")
    elif one.get("log"):
        axes.set_xscale("log")
        axes.set_xlim(one["low"] / 1.1, one["high"] * 1.1)
        if one["high"] < 100 * one["low"]:
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        room = 0.03 * (one["high"] - one["low"]) or 0.5
        axes.set_xlim(one["low"] - room, one["high"] + room)
        steps = MaxNLocator(6, integer=one["kind"] == "int", steps=[1, 2, 5, 10])
        axes.xaxis.set_major_locator(steps)
