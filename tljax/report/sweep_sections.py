"""What a sweep's page says, in its order: answer, each key, all keys, importance,
would more pay, learning curves; the tables are sweep_tables.py.

Each section is a function of the loaded sweep and its ranking and returns HTML.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import batched
from typing import Any

from tljax.report import sweep_figures, sweep_look
from tljax.report.curves import mean_band
from tljax.report.markup import (
    duration,
    escape,
    panels,
    section,
    wide_figure,
)
from tljax.report.sweep_best import Ranking, expected_bests, scores_in_order
from tljax.report.sweep_importance import Importance
from tljax.report.sweep_parallel import MOST_KEYS, parallel_svg
from tljax.report.sweep_records import Sweep, short_names, trial_curves


def _colours(ranking: Ranking) -> str:
    """The legend of all figures."""
    names = {sweep_look.BEST: "best"}
    if ranking.alike:
        names[sweep_look.ALIKE] = "cannot be told apart from it"
    names[sweep_look.OTHER] = "other trials"
    spans = (
        f'<span class="arm" style="--arm:{color}">{name}</span>'
        for color, name in names.items()
    )
    return f'<p class="legend">{"".join(spans)}</p>'


def answer_html(told: Sequence[str], sweep: Sweep) -> str:
    """The sentences, warnings standing out, and how much work it was."""
    first, *others = told
    lines = [f"<p><strong>{escape(first)}</strong></p>"]
    lines += [f"<p>{escape(one)}</p>" for one in others]
    counts = Counter(row["state"] for row in sweep.trials)
    facts = [(f"{counts['complete']}", "trials with a score")]
    facts += [
        (f"{counts[s]}", f"trials {s}") for s in ("failed", "pruned") if counts[s]
    ]
    facts.append((duration(sweep.seconds), "of computing in all trials"))
    boxes = "".join(
        f"<div><dt>{name}</dt><dd>{value}</dd></div>" for value, name in facts
    )
    return f'<div class="answer">{"".join(lines)}</div><dl class="facts">{boxes}</dl>'


def isolation_html(sweep: Sweep, ranking: Ranking) -> str:
    """One small panel a key: its value against the score."""
    names = short_names(list(sweep.space))
    drawn = [
        sweep_figures.isolation_svg(sweep, ranking, key, title=names[key])
        for key in sweep.space
    ]
    caption = (
        "One dot a trial, its mean over seeds; all other keys vary unseen. A cross at"
        " the axis is a trial that failed or was pruned, a triangle one whose score is"
        " still worse."
    )
    return section(
        "Each key alone", panels(drawn, caption, legend_html=_colours(ranking))
    )


def parallel_html(sweep: Sweep, ranking: Ranking) -> str:
    """All keys at once."""
    names = short_names(list(sweep.space))
    rows = [dict(row) for row in batched(names.items(), MOST_KEYS)]
    drawn = "".join(parallel_svg(sweep, ranking, row) for row in rows)
    caption = (
        "One line a trial; it passes below an axis whose key does not apply to it."
    )
    if len(rows) > 1:
        caption += " Every row of keys ends at the score."
    return section("All keys together", _colours(ranking), wide_figure(drawn, caption))


def importance_html(found: Importance, sweep: Sweep) -> str:
    """fANOVA's shares, or the line that says why there are none."""
    if not found.shares:
        return section("Importance", f"<p>{escape(found.note)}</p>")
    names = short_names(list(sweep.space))
    drawn = sweep_figures.importance_svg(found.shares, names)
    caption = (
        "Share of the score’s variance over the whole space that a key makes by itself"
        " (fANOVA: a random forest fitted to the trials). It says where to look, not"
        f" what is certain. {escape(found.note)}"
    )
    return section("Importance", wide_figure(drawn, caption))


def curves_html(sweep: Sweep, ranking: Ranking) -> str:
    """Validation curves of the runs: loss, and the metric where it was logged."""
    split, _, metric = sweep.plan["metric"].rpartition("/")
    keys = ["loss_nats"]
    if split == "validation" and metric != "loss_nats":
        keys.append(metric)
    found: dict[str, dict[int, Any]] = {key: {} for key in keys}
    for number in ranking.order:
        for key, curves in trial_curves(sweep, number, keys).items():
            band = mean_band(curves)
            if band is not None:
                found[key][number] = band
    loss = sweep_look.Score("validation loss (nats)", 1.0, larger_is_better=False)
    looks = {"loss_nats": loss, metric: sweep_look.score_axis(sweep)}
    drawn = [
        sweep_figures.curves_svg(bands, ranking, looks[key])
        for key, bands in found.items()
        if bands
    ]
    if not drawn:
        return ""
    caption = (
        "Means over seeds: the best, up to three of the blue ones, grey the others."
    )
    return section(
        "Learning curves", panels(drawn, caption, legend_html=_colours(ranking))
    )


def progress_html(sweep: Sweep, ranking: Ranking) -> str:
    """Best so far, and what so many trials are worth."""
    scores = scores_in_order(sweep.trials)
    means, deviations = expected_bests(scores, sweep.plan["direction"])
    drawn = sweep_figures.progress_svg(
        scores, means, deviations, sweep_look.score_axis(sweep)
    )
    caption = (
        "Orange: the best so far, in the order of ending. Dashed: the best to be"
        " expected of so many trials drawn from these (Dodge et al. 2019), which does"
        " not hang on their order; its spread shrinks to nothing at the right end only"
        " because all of them are drawn there. Where it still rises at the end, more"
        " trials would pay."
    )
    if sweep.plan["search"] == "tpe":
        caption += " TPE’s later trials depend on the earlier ones: they are not draws."
    if any(row["state"] == "pruned" for row in sweep.trials):
        caption += " Pruned trials have no score and are left out."
    return section("Would more trials pay?", wide_figure(drawn, caption))
