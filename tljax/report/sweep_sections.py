"""What a sweep's page says, in its order: answer, plots, trials, what was swept.

Each section is a function of the loaded sweep and its ranking and returns HTML.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import batched
from typing import Any

import numpy as np

from tljax.report import sweep_figures
from tljax.report.curves import mean_band
from tljax.report.markup import (
    details,
    duration,
    escape,
    listing,
    panels,
    section,
    table,
    wide_figure,
)
from tljax.report.provenance import config_html
from tljax.report.sweep_answer import score, setting
from tljax.report.sweep_best import Ranking, expected_bests, scores_in_order
from tljax.report.sweep_importance import Importance
from tljax.report.sweep_parallel import MOST_KEYS, parallel_svg
from tljax.report.sweep_records import STATES, Sweep, short_names, trial_curves

SHOWN = 60  # trials of the table that are not folded


def _colours(ranking: Ranking) -> str:
    """The legend of all figures."""
    names = {sweep_figures.BEST: "best"}
    if ranking.alike:
        names[sweep_figures.ALIKE] = "cannot be told apart from it"
    names[sweep_figures.OTHER] = "other trials"
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
    own, loss = sweep_figures.score_axis(sweep), ("validation loss (nats)", 1.0)
    looks = {"loss_nats": loss, metric: (own.name, own.scale)}
    drawn = [
        sweep_figures.curves_svg(
            bands, ranking, y_name=looks[key][0], scale=looks[key][1]
        )
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
        scores, means, deviations, sweep_figures.score_axis(sweep)
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


def trials_html(sweep: Sweep, ranking: Ranking) -> str:
    """All trials, best first, those without a score last, with the reason."""
    names, metric = short_names(list(sweep.space)), sweep.plan["metric"]
    rows = {row["number"]: row for row in sweep.trials}
    others = [number for number in rows if number not in ranking.means]
    order = sorted(others, key=lambda n: (STATES.index(rows[n]["state"]), n))
    cells = []
    for number in [*ranking.order, *order]:
        row = rows[number]
        settings = [setting(row["params"].get(key, "–")) for key in names]
        told = [_score_html(row, ranking, metric), _error(row, ranking, metric)]
        cells.append(
            [str(number), *told, *map(escape, settings), duration(row.get("seconds"))]
        )
    head = [
        "Trial",
        escape(metric.rpartition("/")[2]),
        "±",
        *map(escape, names.values()),
        "Time",
    ]
    note = (
        "Best first: the mean over seeds ± one standard error; in bold the best and"
        " those that cannot be told apart from it."
    )
    reasons = "".join(
        f"<li>Trial {n}: {escape(rows[n]['reason'])}</li>"
        for n in order
        if rows[n].get("reason")
    )
    lost = f"<h3>Without a score</h3><ul>{reasons}</ul>" if reasons else ""
    listed = table(head, cells[:SHOWN])
    if len(cells) > SHOWN:
        listed += details("All trials", table(head, cells))
    return section("Trials", f'<p class="note">{note}</p>', listed, lost)


def _score_html(row: dict[str, Any], ranking: Ranking, metric: str) -> str:
    number = row["number"]
    if number not in ranking.means:
        return escape(row["state"])
    told = score(ranking.means[number], metric)
    if number == ranking.best or number in ranking.alike:
        return f"<strong>{told}</strong>"
    return told


def _error(row: dict[str, Any], ranking: Ranking, metric: str) -> str:
    if row["number"] not in ranking.means or ranking.seeds < 2:
        return "–"
    return score(float(np.std(row["values"], ddof=1)) / ranking.seeds**0.5, metric)


def swept_html(sweep: Sweep) -> str:
    """The space, the search, the effort, and the config that it started from."""
    plan = sweep.plan
    rows = [[escape(key), *map(escape, _key(one))] for key, one in sweep.space.items()]
    counts = Counter(row["state"] for row in sweep.trials)
    ended = listing([f"{counts[state]} {state}" for state in STATES if counts[state]])
    facts = [
        ["Search", escape(plan["search"]) + f", seed {plan.get('seed', 0)}"],
        ["Pruning", escape(plan["prune"])],
        ["Seeds a trial", str(plan["seeds"])],
        ["Trials", f"{plan['trials']} asked: {ended or 'none begun'}"],
        ["Score", escape(f"{plan['metric']}, to {plan['direction']}")],
        ["Time", f"{duration(sweep.seconds)} in all trials together"],
    ]
    return section(
        "What was swept",
        table(["Key", "Values", "Applies"], rows, numeric=False),
        table([], facts, numeric=False),
        config_html("Config", plan["config"]),
    )


def _key(one: dict[str, Any]) -> tuple[str, str]:
    if one["kind"] == "choice":
        values = listing([setting(choice) for choice in one["choices"]])
    else:
        whole = "whole numbers, " * (one["kind"] == "int")
        scale = "log" if one.get("log") else "linear"
        values = f"{setting(one['low'])} to {setting(one['high'])} ({whole}{scale})"
    only = one.get("only")
    if not only:
        return values, "always"
    return values, f"{only['key']} = {' or '.join(map(setting, only['values']))}"
