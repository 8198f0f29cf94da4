"""report.html, summary.json and trials.csv of a sweep, from its records alone.

sweep.json, trials.json, trials/*/metrics.jsonl, final.json -> Sweep -> Ranking ->
sections in the order a doubtful reader asks: answer, each key, all keys, importance,
would more pay, learning curves, trials, what was swept.
"""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tljax.report import sweep_sections, sweep_tables
from tljax.report.export_trials import export_trials
from tljax.report.page import assemble
from tljax.report.sweep_answer import best_params, sentences
from tljax.report.sweep_best import (
    Ranking,
    best_trials,
    edges,
    expected_bests,
    scores_in_order,
)
from tljax.report.sweep_importance import Importance, importance
from tljax.report.sweep_records import Sweep, load_sweep
from tljax.train.files import write_json, write_text


def write_sweep_report(folder: Path | str) -> dict[str, Any]:
    """Rebuilds WORKDIR/report.html, summary.json and trials.csv, each whole or not.

    A sweep that has not ended may be told of: what is there counts.

    Returns:
      The summary: "sentences" (the answer first), "best", "alike", "edges",
      "importance", "expected_best", "trials", "seconds", "test".

    Raises:
      InputError: a record is missing or broken, or the folder cannot be written.
    """
    sweep = load_sweep(folder)
    ranking = best_trials(sweep.trials, sweep.plan["direction"])
    found = importance(sweep)
    summary = build_summary(sweep, ranking, found)
    html = build_page(sweep, ranking, found, summary["sentences"])
    export_trials(sweep.folder, sweep.folder / "trials.csv")
    write_json(sweep.folder / "summary.json", summary)
    write_text(sweep.folder / "report.html", html)
    return summary


def build_summary(sweep: Sweep, ranking: Ranking, found: Importance) -> dict[str, Any]:
    """summary.json's content; "best" is None while no trial has a score."""
    plan, best, scores = sweep.plan, None, scores_in_order(sweep.trials)
    params = {}
    if ranking.best is not None:
        params, sure = best_params(sweep, ranking), ranking.interval
        best = {
            "trial": ranking.best,
            "params": params,
            "mean": ranking.means[ranking.best],
            "ci95": [sure.low, sure.high] if sure else None,
        }
    means, deviations = expected_bests(scores, plan["direction"])
    return {
        "metric": plan["metric"],
        "direction": plan["direction"],
        "seeds": plan["seeds"],
        "sentences": sentences(sweep, ranking),
        "best": best,
        "alike": list(ranking.alike),
        "edges": edges(plan["space"], params),
        "differences": {str(n): asdict(gap) for n, gap in ranking.differences.items()},
        "importance": found.shares,
        "expected_best": {"mean": means, "sd": deviations},
        "trials": dict(Counter(row["state"] for row in sweep.trials)),
        "seconds": sweep.seconds,
        "test": sweep.final and sweep.final["test"],
    }


def build_page(
    sweep: Sweep, ranking: Ranking, found: Importance, told: list[str]
) -> str:
    """The whole report.html; without a score there are no figures."""
    body = [sweep_sections.answer_html(told, sweep)]
    if ranking.best is not None:
        body += [
            sweep_sections.isolation_html(sweep, ranking),
            sweep_sections.parallel_html(sweep, ranking),
            sweep_sections.importance_html(found, sweep),
            sweep_sections.progress_html(sweep, ranking),
            sweep_sections.curves_html(sweep, ranking),
        ]
    body.append(sweep_tables.trials_html(sweep, ranking))
    body.append(sweep_tables.swept_html(sweep))
    keys = "key" if len(sweep.space) == 1 else "keys"
    subtitle = (
        f"{sweep.folder.resolve().name}: {len(sweep.trials)} trials over"
        f" {len(sweep.space)} {keys}, seeds a trial: {sweep.plan['seeds']}"
    )
    return assemble("Which settings are best?", subtitle, body)
