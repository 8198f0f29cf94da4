"""report.html of one run folder: how well it ends, its curves, what it cost, config."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tljax.metrics.classification import full_record
from tljax.report import evidence, provenance, records
from tljax.report.markup import (
    duration,
    escape,
    percent,
    quantity,
    section,
    table,
)
from tljax.report.page import assemble
from tljax.settings import InputError
from tljax.train.files import write_text
from tljax.train.record import early_end

METRICS = {
    "accuracy": "Accuracy (%)",
    "macro_f1": "Macro-F1 (%)",
    "ece": "Calibration error, ECE (points)",
    "nll_nats": "Negative log-likelihood (nats)",
}


def write_run_report(folder: Path | str) -> dict[str, Any]:
    """Rebuilds report.html of one pre-training or fine-tuning run from its records.

    Returns:
      Its final numbers: {split: {metric: {"value", "n", "se"}}} of a fine-tuning run
      (metrics: METRICS), {"bits_per_byte": …} of a pre-training run.

    Raises:
      InputError: the folder is no run, a record is missing or broken, or the folder
        cannot be written.
    """
    folder = Path(folder)
    config = records.load_json(folder / "config.json")
    kind = config.get("kind")
    if kind not in ("pretrain", "finetune"):
        raise InputError(
            f"{folder / 'config.json'} has kind {kind!r}; a run's is 'pretrain' or"
            " 'finetune': give a run folder or an experiment's work folder"
        )
    final = records.load_final(folder)
    manifest = provenance.load_whole_manifest(folder)
    if kind == "pretrain":
        numbers = {"bits_per_byte": final.get("bits_per_byte")}
        title, parts = "Pre-training run", [evidence.pretraining_html(folder)]
    else:
        numbers, answers = _scores(folder)
        run = _as_run(folder, config)
        parts = [_scores_html(numbers), evidence.learning_html([run])]
        if "test" in answers:
            parts.append(evidence.calibration_html({run: answers["test"]}))
        title = "Fine-tuning run"
    parts += [_cost_html(final, manifest), _how_html(folder, config, manifest)]
    write_text(folder / "report.html", assemble(title, folder.name, parts))
    return numbers


def _as_run(folder: Path, config: Mapping[str, Any]) -> records.Run:
    """A lone run, coloured as the arm that it would be in an experiment."""
    arm = "transfer" if config["init"]["source"] else "scratch"
    return records.Run(folder, arm, config["task"]["n"], config["seed"], True)


def _scores(folder: Path) -> tuple[dict[str, Any], dict[str, records.Predictions]]:
    """Final metrics with n and standard error, for every split that was predicted."""
    answers, numbers = {}, {}
    for split in ("validation", "test"):
        if not (folder / "predictions" / f"{split}.jsonl").exists():
            continue
        found = answers[split] = records.load_predictions(folder, split)
        numbers[split] = full_record(found.labels_I, found.probabilities_IC)
    return numbers, answers


def _scores_html(numbers: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    if not numbers:
        return ""
    rows = []
    for key, name in METRICS.items():
        scale, digits = (1, 3) if key == "nll_nats" else (100, 1)
        cells = [
            f"{scale * one[key]['value']:.{digits}f} <span class='quiet'>±"
            f" {scale * one[key]['se']:.{digits}f}</span>"
            for one in numbers.values()
        ]
        rows.append([escape(name), *cells])
    head = [
        "",
        *(f"{split} ({one['accuracy']['n']:,})" for split, one in numbers.items()),
    ]
    note = '<p class="note">± one standard error; in brackets the number of items.</p>'
    return section(
        "Final metrics", f'<div class="narrow">{table(head, rows)}</div>', note
    )


def _cost_html(final: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    rows = [
        ["Steps", early_end(final) or f"{final['step']:,}"],
        ["Parameters", quantity(manifest["parameters"])],
        ["Tokens", quantity(manifest["tokens"])],
        ["Compute", quantity(manifest["flops"], "FLOP")],
        ["Time", duration(manifest["time_seconds"])],
        ["Padding", percent(manifest["padding_share"])],
    ]
    return section("Cost", f'<div class="narrow">{table([], rows)}</div>')


def _how_html(
    folder: Path, config: Mapping[str, Any], manifest: Mapping[str, Any]
) -> str:
    return provenance.provenance_html(
        command=provenance.run_command(folder),
        manifests={folder: manifest},
        configs={"Config": config},
    )
