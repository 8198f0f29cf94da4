"""The tables at the end of a sweep's page: all trials, and what was swept."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tljax.report.markup import details, duration, escape, listing, section, table
from tljax.report.provenance import config_html
from tljax.report.sweep_answer import score, setting
from tljax.report.sweep_best import Ranking
from tljax.report.sweep_records import (
    STATES,
    Sweep,
    Trial,
    short_names,
    standard_error,
)

SHOWN = 60  # trials that are not folded


def trials_html(sweep: Sweep, ranking: Ranking) -> str:
    """All trials, best first; those without a score last, with the reasons below."""
    names, metric = short_names(list(sweep.space)), sweep.plan["metric"]
    rows = {row["number"]: row for row in sweep.trials}
    others = [row for row in sweep.trials if row["number"] not in ranking.means]
    others.sort(key=lambda row: (STATES.index(row["state"]), row["number"]))
    cells = []
    for row in [*(rows[number] for number in ranking.order), *others]:
        settings = [setting(row["params"].get(key, "–")) for key in names]
        took = duration(row.get("seconds"))
        told = _score_html(row, ranking, metric)
        cells.append([str(row["number"]), *told, *map(escape, settings), took])
    keys = map(escape, names.values())
    head = ["Trial", escape(metric.rpartition("/")[2]), "±", *keys, "Time"]
    note = (
        "Best first: the mean over seeds ± one standard error; in bold the best and"
        " those that cannot be told apart from it."
    )
    folded = ""
    if len(cells) > SHOWN:
        more = f"{len(cells) - SHOWN} more trials"
        folded = details(more, table(head, cells[SHOWN:]))
    return section(
        "Trials",
        f'<p class="note">{note}</p>',
        table(head, cells[:SHOWN]),
        folded,
        _reasons_html(others),
    )


def _score_html(row: Trial, ranking: Ranking, metric: str) -> tuple[str, str]:
    """Mean and standard error, or how the trial ended."""
    number = row["number"]
    if number not in ranking.means:
        return escape(row["state"]), "–"
    told, error = score(ranking.means[number], metric), standard_error(row["values"])
    if number == ranking.best or number in ranking.alike:
        told = f"<strong>{told}</strong>"
    return told, "–" if error is None else score(error, metric)


def _reasons_html(rows: Sequence[Trial]) -> str:
    """Why trials have no score: each reason once, with its trials."""
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if row.get("reason"):
            reasons.setdefault(row["reason"], []).append(str(row["number"]))
    if not reasons:
        return ""
    listed = "".join(
        f"<li>Trial{'s' * (len(numbers) > 1)} {listing(numbers)}: {escape(reason)}</li>"
        for reason, numbers in reasons.items()
    )
    return f"<h3>Without a score</h3><ul>{listed}</ul>"


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
