"""summary.json and report.html of an ablation, from its records alone.

records -> evidence -> claims judged, a row an arm -> summary -> sections -> one page
"""

import dataclasses
import json
import pathlib
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from experiments.ablation import sections
from experiments.ablation.claims import Evidence, Statistic, interval, judge
from experiments.ablation.settings import GRID, AblationSettings
from tljax.report import evidence as language
from tljax.report import provenance, records
from tljax.report.catalogue import question_of
from tljax.report.page import assemble
from tljax.settings import InputError, from_config
from tljax.train.files import write_json, write_text

# what an experiment tells beside its claims: facts for summary.json, sections of HTML
Sections = Callable[[AblationSettings, Evidence], tuple[dict[str, Any], list[str]]]


def language_model(settings: AblationSettings, folder: pathlib.Path) -> pathlib.Path:
    """The run folder of the language model that the arms start from."""
    source = settings.pretrain.source
    return pathlib.Path(source) if source else folder / "lm"


def write_report(
    folder: pathlib.Path,
    *,
    name: str,
    known: Mapping[str, Statistic],
    more: Sections | None = None,
) -> dict[str, Any]:
    """Rebuilds WORKDIR/summary.json and report.html; each whole or not at all.

    Args:
      folder: the work folder.
      name: of the experiment.
      known: the statistics that its claims may be about.
      more: the experiment's own facts and sections.

    Returns:
      The summary.

    Raises:
      InputError: a record is missing or broken, or a run of the plan is not there.
    """
    experiment = records.load_experiment(folder)
    settings = from_config(AblationSettings, experiment.config)
    experiment = dataclasses.replace(
        experiment, lm=language_model(settings, experiment.folder)
    )
    evidence = Evidence(*_planned(settings, experiment))
    facts, own = more(settings, evidence) if more else ({}, [])
    summary = build_summary(settings, experiment, evidence, name=name, known=known)
    summary |= facts
    html = _page(settings, experiment, evidence, summary, known, own)
    write_json(folder / "summary.json", summary)
    write_text(folder / "report.html", html)
    return summary


def _planned(
    settings: AblationSettings, experiment: records.Experiment
) -> tuple[dict[str, tuple[records.Run, ...]], tuple[records.Run, ...]]:
    """Every arm's runs, by seed: complete and paired; the grid's."""
    grid = settings.grid
    counts = dict.fromkeys(settings.arms, settings.plan.seeds)
    counts[GRID] = grid.inits * grid.orders if grid.arm else 0
    arms = {}
    for arm, count in counts.items():
        arms[arm] = experiment.select(arm=arm, n=settings.task.n)
        if [run.seed for run in arms[arm]] != list(range(count)):
            raise InputError(
                f"{experiment.folder / 'runs'} holds {len(arms[arm])} runs of the arm"
                f" {arm}, the plan {count}: start the experiment again"
            )
    return arms, arms.pop(GRID)


def build_summary(
    settings: AblationSettings,
    experiment: records.Experiment,
    evidence: Evidence,
    *,
    name: str,
    known: Mapping[str, Statistic],
) -> dict[str, Any]:
    """summary.json's object: shares between 0 and 1, losses in nats.

    Arms stand from the least to the most accurate. The same records give the same
    summary: even its date is that of the last record.
    """
    columns = sections.columns(settings, known)
    arms = {
        arm: {
            "what": settings.arms[arm].what,
            "lr_peak": records.load_json(runs[0].folder / "config.json")["optim"][
                "lr_peak"
            ],
            **{
                key: _row(known[key_of].measure(evidence, arm, split))
                for key, (key_of, split, _) in columns.items()
            },
        }
        for arm, runs in evidence.arms.items()
    }
    arms = dict(sorted(arms.items(), key=lambda one: one[1]["accuracy_test"]["mean"]))
    items = {
        split: len(next(iter(evidence.answers(split).values())).ids)
        for split in ("test", *settings.task.named_others)
    }
    everyone = evidence.runs
    return {
        "experiment": name,
        "arms": arms,
        "claims": judge(
            settings.plan.claims, evidence, known, alpha=settings.plan.alpha
        ),
        "lost_runs": [run.folder.name for run in everyone if evidence.is_lost(run)],
        "n": settings.task.n,
        "seeds": settings.plan.seeds,
        "alpha": settings.plan.alpha,
        "items": items,
        "bits_per_byte": records.load_final(experiment.lm)["bits_per_byte"],
        "phases_seconds": records.load_json(experiment.folder / "phases.json"),
        "time_ended": records.ended(everyone),
    }


def _row(values_SI) -> dict[str, Any]:
    return {
        "mean": float(values_SI.mean()),
        "ci95": list(interval(values_SI)),
        "values": values_SI.mean(1).tolist(),
    }


def _page(settings, experiment, evidence, summary, known, own) -> str:
    """The whole report.html."""
    trained = [experiment.lm, *(run.folder for run in evidence.runs)]
    if experiment.adapted:
        trained.append(experiment.adapted)
    manifests = {one: provenance.load_whole_manifest(one) for one in trained}
    name, folder = summary["experiment"], shlex.quote(str(experiment.folder))
    command = (
        f"python -m experiments.{name} --config={folder}/config.json --workdir={folder}"
    )
    body = [
        sections.answer_html(summary),
        sections.claims_html(summary, known),
        sections.results_html(settings, summary, known),
        *own,
        sections.choices_html(summary, experiment.folder),
        sections.learning_html({arm: evidence.arms[arm] for arm in summary["arms"]}),
        language.pretraining_html(experiment.lm),
        language.adaptation_html(experiment.adapted),
        provenance.cost_html(experiment, manifests, summary),
        provenance.provenance_html(
            command=command,
            manifests=manifests,
            configs={
                "Config of the experiment": json.loads(
                    (experiment.folder / "config.json").read_text()
                )
            },
        ),
    ]
    items = ", ".join(f"{count:,} {split}" for split, count in summary["items"].items())
    subtitle = (
        f"{name}: {len(summary['arms'])} arms, {summary['n']:,} labels,"
        f" {summary['seeds']} paired seeds, items: {items}"
    )
    return assemble(question_of(name), subtitle, body)
