"""report.html: one self-contained file, no script, nothing fetched; and summary.json.

work folder's records -> summary -> sections in the order a doubtful reader asks:
answer, curve, results, claims, choices, learning curves, pre-training, calibration,
items, contamination, cost, how it was run.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tljax.report import evidence, provenance, records, sections
from tljax.report.baseline import compare_baseline
from tljax.report.disagreements import middle_n
from tljax.report.markup import escape
from tljax.report.stylesheet import CSS
from tljax.report.summary import build_summary
from tljax.train.files import write_text


def write_experiment_report(folder: Path | str) -> dict[str, Any]:
    """Rebuilds WORKDIR/summary.json and WORKDIR/report.html from the records.

    Each is replaced whole or not at all.

    Returns:
      The summary: that of build_summary() and "baseline", transfer against TF-IDF.

    Raises:
      InputError: a record is missing or broken, the runs are not those of the plan, or
        the folder cannot be written.
    """
    experiment = records.load_experiment(folder)
    answers = records.load_aligned(experiment.runs, "test")
    summary = build_summary(experiment) | {"baseline": compare_baseline(answers)}
    text = json.dumps(summary, indent=2, allow_nan=False) + "\n"
    html = build_page(experiment, answers, summary)
    write_text(experiment.folder / "summary.json", text)
    write_text(experiment.folder / "report.html", html)
    return summary


def build_page(
    experiment: records.Experiment,
    answers: evidence.Answers,
    summary: Mapping[str, Any],
) -> str:
    """The whole report.html of an experiment, from loaded records and their summary."""
    first = next(iter(answers.values()))
    chance = float(np.bincount(first.labels_I).max() / len(first.labels_I))
    manifests = provenance.load_manifests(experiment)
    configs = {
        "Config of the experiment": experiment.config,
        "Config of the pre-training run": records.load_json(
            experiment.lm / "config.json"
        ),
    }
    if experiment.adapted:
        adapted = records.load_json(experiment.adapted / "config.json")
        configs["Config of the adaptation"] = adapted
    sizes = [int(n) for rows in summary["arms"].values() for n in rows]
    body = [
        sections.answer_html(summary),
        sections.efficiency_html(summary, chance=chance),
        sections.results_html(summary),
        sections.claims_html(summary),
        evidence.choices_html(experiment),
        evidence.learning_html(experiment.runs),
        evidence.pretraining_html(experiment.lm),
        evidence.adaptation_html(experiment.adapted),
        evidence.calibration_html(answers),
        evidence.disagreements_html(answers, n=middle_n(sizes)),
        sections.contamination_html(summary["contamination"]),
        provenance.cost_html(experiment, manifests, summary),
        provenance.provenance_html(
            command=provenance.experiment_command(experiment),
            manifests=manifests,
            configs=configs,
        ),
    ]
    subtitle = (
        f"Pre-training against none, {summary['seeds']} paired seeds,"
        f" {summary['test_items']:,} test items"
    )
    return assemble("Does pre-training help on few labels?", subtitle, body)


def assemble(title: str, subtitle: str, body_html: list[str]) -> str:
    """A whole HTML document around sections; title and subtitle are plain text."""
    inside = "\n".join(part for part in body_html if part)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{CSS}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<p class="subtitle">{escape(subtitle)}</p>
{inside}
</body>
</html>
"""
