"""What a result cost and how to get it again: command, versions, hashes, config."""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tljax.data.splits import SPLITS
from tljax.report import records
from tljax.report.drawing import arm_order
from tljax.report.markup import (
    arm_html,
    details,
    duration,
    escape,
    percent,
    quantity,
    section,
    table,
)
from tljax.settings import InputError

Manifests = Mapping[Path, Mapping[str, Any]]
KEYS = (
    "versions data code_sha256 devices dtype seed parameters tokens flops time_seconds"
    " padding_share"
).split()


def load_manifests(experiment: records.Experiment) -> dict[Path, dict[str, Any]]:
    """The manifests of pre-training, adaptation and every run but the baselines'."""
    folders = list(experiment.language_runs)
    folders += [r.folder for r in experiment.runs if r.trained]
    return {folder: load_whole_manifest(folder) for folder in folders}


def load_whole_manifest(folder: Path) -> dict[str, Any]:
    """A run's manifest with all KEYS. Raises: InputError naming those it lacks."""
    manifest = records.load_manifest(folder)
    missing = [key for key in KEYS if key not in manifest]
    if missing:
        raise InputError(
            f"{folder / 'manifest.json'} lacks {', '.join(missing)}; run it again"
        )
    return manifest


def cost_html(
    experiment: records.Experiment, manifests: Manifests, summary: Mapping[str, Any]
) -> str:
    """Runs, parameters, tokens, FLOPs, seconds and padding per part; time per phase."""
    rows = [["Pre-training", *_cost([manifests[experiment.lm]])]]
    if experiment.adapted:
        rows.append(["Adaptation", *_cost([manifests[experiment.adapted]])])
    trained = {r.arm for r in experiment.runs if r.trained}
    for arm in arm_order(sorted(trained)):
        found = [manifests[r.folder] for r in experiment.runs if r.arm == arm]
        rows.append([f"Fine-tuning {arm_html(arm)}", *_cost(found)])
    total = ["All", *_cost(list(manifests.values()))]
    total[2] = ""  # parameters of different models have no sum
    head = ["", "Runs", "Parameters", "Tokens", "Compute", "Time", "Padding"]
    phases = [
        [escape(name.replace("_", " ")), duration(seconds)]
        for name, seconds in summary["phases_seconds"].items()
    ]
    phases.append(["All phases", duration(sum(summary["phases_seconds"].values()))])
    note = (
        '<p class="note">Tokens include padding; compute counts floating-point'
        " operations. A run’s time is that of its training; the phases below are by the"
        " clock, preparation and scoring included.</p>"
    )
    return section(
        "Cost",
        table(head, [*rows, total]),
        note,
        f'<div class="narrow">{table(["Phase", "Time"], phases)}</div>',
    )


def _cost(manifests: Sequence[Mapping[str, Any]]) -> list[str]:
    def total(key: str) -> float:
        return sum(manifest[key] for manifest in manifests)

    padded = sum(m["padding_share"] * m["tokens"] for m in manifests)
    parameters = {manifest["parameters"] for manifest in manifests}
    return [
        f"{len(manifests):,}",
        quantity(max(parameters)),
        quantity(total("tokens")),
        quantity(total("flops"), "FLOP"),
        duration(total("time_seconds")),
        percent(padded / total("tokens")) if total("tokens") else "–",
    ]


def provenance_html(
    *, command: str, manifests: Manifests, configs: Mapping[str, Mapping[str, Any]]
) -> str:
    """Command, seeds, versions, devices, hashes of code and data, folded configs.

    Args:
      command: that gives this result again.
      manifests: of every run told of; whatever differs between them is listed.
      configs: title -> config.json's content.
    """
    found = list(manifests.values())
    versions = _distinct(m["versions"] for m in found)
    rows = [
        ["Command", f"<code>{escape(command)}</code>"],
        ["Seeds", escape(_seeds(m["seed"] for m in found))],
        ["Devices", "; ".join(escape(", ".join(d)) for d in _devices(found))],
        ["Products in", ", ".join(map(escape, _distinct(m["dtype"] for m in found)))],
        ["Versions", "; ".join(escape(_pairs(one)) for one in versions)],
        ["Code", _hashes(m["code_sha256"] for m in found)],
    ]
    return section(
        "How it was run",
        table([], rows, numeric=False),
        "<h3>Data</h3>",
        _data_html(m["data"] for m in found),
        *(config_html(title, config) for title, config in configs.items()),
    )


def _data_html(data: Iterable[Mapping[str, Mapping[str, str]]]) -> str:
    """Each source's licence and file, then its splits' rows, as all runs tell them."""
    said: dict[str, dict[str, list[str]]] = {}
    for sources in data:
        for uri, facts in sources.items():
            for name, value in facts.items():
                said.setdefault(uri, {}).setdefault(name, []).append(value)
    files = [
        [
            escape(uri),
            _listed(map(escape, facts.get("licence", ()))),
            _hashes(facts.get("sha256", ())),
        ]
        for uri, facts in said.items()
    ]
    rows = [
        [escape(uri), split, _hashes(facts[split])]
        for uri, facts in said.items()
        for split in SPLITS
        if split in facts
    ]
    file_head = ["Source", "Licence", "SHA-256 of its file"]
    row_head = ["Source", "Split", "SHA-256 of its rows"]
    return table(file_head, files, numeric=False) + table(row_head, rows, numeric=False)


def config_html(title: str, config: Mapping[str, Any]) -> str:
    """A config's JSON, folded until asked for."""
    text = json.dumps(config, indent=2, ensure_ascii=False)
    return details(escape(title), f"<pre>{escape(text)}</pre>")


def experiment_command(experiment: records.Experiment) -> str:
    """The command that gives the same records: the config in the folder is whole."""
    folder = shlex.quote(experiment.folder.as_posix())
    return (
        f"python -m experiments.low_shot --config={folder}/config.json"
        f" --workdir={folder}"
    )


def run_command(folder: Path) -> str:
    """The command that gives the same run again."""
    path = shlex.quote(folder.as_posix())
    return f"tljax train --config={path}/config.json --workdir={path}"


def _distinct(values: Any) -> list[Any]:
    """Unequal values in the order of their first appearance (they may be dicts)."""
    kept: list[Any] = []
    for value in values:
        if value not in kept:
            kept.append(value)
    return kept


def _devices(manifests: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    found = _distinct(m["devices"] for m in manifests)
    return [[device["kind"] for device in devices] for devices in found]


def _seeds(seeds: Any) -> str:
    return ", ".join(map(str, sorted(set(seeds))))


def _pairs(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _hashes(hashes: Iterable[str]) -> str:
    return _listed(f"<code>{escape(one)}</code>" if one else "" for one in hashes)


def _listed(values_html: Iterable[str]) -> str:
    """Every distinct value, under a warning where runs do not agree; – for nothing."""
    found = [one or "–" for one in _distinct(values_html)] or ["–"]
    warning = ["<strong>Differs between runs:</strong>"] if len(found) > 1 else []
    return "<br>".join([*warning, *found])
