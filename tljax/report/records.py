"""Reads what runs have written down; the one place where reports touch the disk.

WORKDIR/config.json, contamination.json, phases.json    the experiment
WORKDIR/tuning.json                                     its grid, if it tuned
WORKDIR/lm/                                             the pre-training run
WORKDIR/adapted/                                        it, gone on on the task's text
WORKDIR/runs/ARM-nN-sSEED/predictions/test.jsonl, ...   one run per arm, n and seed
Whatever is missing or broken is an InputError naming the file; nothing is skipped.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from tljax.settings import InputError

RUN_NAME = re.compile(r"(?P<arm>\w+)-n(?P<n>0|[1-9]\d*)-s(?P<seed>0|[1-9]\d*)")
PROBABILITY_TOLERANCE = 1e-3  # float32 sums, written with few digits


@dataclass(frozen=True)
class Run:
    """One run of an arm: `n` labels, drawn by `seed`.

    `trained`: by our loop, with manifest and metrics; a baseline or a probe leaves
    predictions and config (a probe a manifest too) only.
    """

    folder: Path
    arm: str
    n: int
    seed: int
    trained: bool


@dataclass(frozen=True)
class Experiment:
    """A work folder; `runs` by arm, n, seed.

    `lm` is the folder of the pre-training run; `adapted` that of its continuation on
    the task's own text, None if there was none.
    """

    folder: Path
    config: dict[str, Any]
    runs: tuple[Run, ...]
    lm: Path
    adapted: Path | None = None

    @property
    def language_runs(self) -> tuple[Path, ...]:
        """The folders of all runs that learnt from unlabelled text."""
        return (self.lm, self.adapted) if self.adapted else (self.lm,)

    def select(self, *, arm: str, n: int) -> tuple[Run, ...]:
        """The runs of one arm with n labels, by seed; possibly none."""
        return tuple(run for run in self.runs if run.arm == arm and run.n == n)


@dataclass(frozen=True)
class Predictions:
    """A run's answers to the items of one split.

    `labels_I`, `predictions_I` int32 index `classes` (sorted); `probabilities_IC`
    float64, rows sum to 1.
    """

    ids: tuple[str, ...]
    labels_I: np.ndarray
    predictions_I: np.ndarray
    probabilities_IC: np.ndarray
    classes: tuple[str, ...]

    @property
    def correct_I(self) -> np.ndarray:
        """float64, 1 where the prediction is the label, else 0."""
        return (self.labels_I == self.predictions_I).astype(np.float64)


def load_experiment(folder: Path | str) -> Experiment:
    """Reads a work folder's config and lists its runs (their records are read later).

    Raises:
      InputError: no such folder, no config.json, no runs, or a folder below runs/ that
        is not named ARM-nN-sSEED (hidden ones, being written, are passed over).
    """
    folder, runs = Path(folder), []
    config = load_json(folder / "config.json")
    if not (folder / "runs").is_dir():
        raise InputError(f"{folder / 'runs'} is missing: start the experiment again")
    for entry in (folder / "runs").iterdir():
        if entry.name.startswith("."):
            continue
        name = RUN_NAME.fullmatch(entry.name)
        if name is None:
            raise InputError(f"{entry} is not named ARM-nN-sSEED: move it elsewhere")
        trained = load_json(entry / "config.json").get("kind") == "finetune"
        n, seed = int(name["n"]), int(name["seed"])
        runs.append(Run(entry, name["arm"], n, seed, trained))
    if not runs:
        raise InputError(f"{folder / 'runs'} is empty: start the experiment again")
    runs.sort(key=lambda run: (run.arm, run.n, run.seed))
    adapted = folder / "adapted" if (folder / "adapted").is_dir() else None
    return Experiment(folder, config, tuple(runs), folder / "lm", adapted)


def ended(runs: Sequence[Run]) -> str:
    """The day, in UTC, on which the last of the runs predicted its test items."""
    times = [(run.folder / "predictions/test.jsonl").stat().st_mtime for run in runs]
    return datetime.fromtimestamp(max(times), UTC).date().isoformat()


def load_json(path: Path) -> dict[str, Any]:
    """Reads one JSON object. Raises: InputError if missing or broken."""
    record = _parse(_read(path), str(path))
    if not isinstance(record, dict):
        raise InputError(f"{path} is not a JSON object; restore it or run again")
    return record


def load_tuning(folder: Path) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """{arm: {n: grid points, best first}}; {} where the choices came from the config.

    A point holds what was set and "validation_accuracy", its mean over "values".
    """
    path = folder / "tuning.json"
    return load_json(path) if path.exists() else {}


def load_manifest(folder: Path) -> dict[str, Any]:
    """A run's manifest.json: versions, hashes, devices, FLOPs, seconds, padding."""
    return load_json(folder / "manifest.json")


def load_metrics(folder: Path) -> list[dict[str, Any]]:
    """A run's metrics.jsonl in order. Raises: InputError, naming a broken line."""
    path = folder / "metrics.jsonl"
    records = _load_lines(path)
    for number, record in enumerate(records, start=1):
        if not isinstance(record.get("step"), int):
            raise InputError(f"{path}:{number} has no 'step'; run it again")
    return records


def load_final(folder: Path) -> dict[str, Any]:
    """The last record of a finished run. Raises: InputError if it did not finish."""
    records = load_metrics(folder)
    if records[-1].get("final") is not True:
        path = folder / "metrics.jsonl"
        raise InputError(f"{path} has no final record: start the same command again")
    return records[-1]


def curve(
    metrics: Sequence[dict[str, Any]], *, split: str, key: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (steps int64, values float64) of the split's records with the key."""
    rows = [r for r in metrics if r.get("split") == split and key in r]
    return (
        np.array([r["step"] for r in rows], np.int64),
        np.array([r[key] for r in rows], np.float64),
    )


def load_predictions(run: Run | Path, split: str) -> Predictions:
    """Reads predictions/SPLIT.jsonl of a run (or run folder), in the order of the file.

    Raises:
      InputError: file missing or empty; a line that is broken, repeats an id, or whose
        probabilities do not name its classes or sum to 1.
    """
    folder = run.folder if isinstance(run, Run) else Path(run)
    path = folder / "predictions" / f"{split}.jsonl"
    records = _load_lines(path)
    probabilities = records[0].get("probabilities")
    if not isinstance(probabilities, dict):
        raise InputError(f"{path}:1 has no 'probabilities' {{class: p}}; run it again")
    classes = tuple(sorted(probabilities))
    index = {name: i for i, name in enumerate(classes)}
    rows: dict[str, tuple[int, int, list[float]]] = {}
    for number, record in enumerate(records, start=1):
        try:
            item = record["id"]
            row = (
                index[record["label"]],
                index[record["prediction"]],
                [float(record["probabilities"][name]) for name in classes],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{path}:{number} is not {{id, label, prediction, probabilities}} over"
                f" the classes {', '.join(classes)} ({error!r}); run it again"
            ) from None
        if not isinstance(item, str) or item in rows:
            raise InputError(f"{path}:{number}: id {item!r} is no string, or repeated")
        if not abs(sum(row[2]) - 1.0) < PROBABILITY_TOLERANCE or min(row[2]) < 0:
            raise InputError(f"{path}:{number}: probabilities do not sum to 1")
        rows[item] = row
    labels, predictions, probabilities = zip(*rows.values(), strict=True)
    return Predictions(
        ids=tuple(rows),
        labels_I=np.array(labels, np.int32),
        predictions_I=np.array(predictions, np.int32),
        probabilities_IC=np.array(probabilities, np.float64),
        classes=classes,
    )


def load_aligned(runs: Sequence[Run], split: str) -> dict[Run, Predictions]:
    """Reads the predictions of many runs, items in the order of the first run's.

    Raises:
      InputError: two runs differ in items, in an item's label, or in classes.
    """
    aligned: dict[Run, Predictions] = {}
    for run in runs:
        found = load_predictions(run, split)
        first = next(iter(aligned.values()), found)
        where = f"{run.folder}/predictions/{split}.jsonl"
        other = f"{next(iter(aligned), run).folder}/predictions/{split}.jsonl"
        if set(found.ids) != set(first.ids):
            lacking = len(set(first.ids) - set(found.ids))
            added = len(set(found.ids) - set(first.ids))
            raise InputError(
                f"{where} is not about the items of {other} ({lacking} ids lacking,"
                f" {added} added): only runs on the same items can be compared"
            )
        place = {item: i for i, item in enumerate(found.ids)}
        order_I = np.array([place[item] for item in first.ids])
        moved = replace(
            found,
            ids=first.ids,
            labels_I=found.labels_I[order_I],
            predictions_I=found.predictions_I[order_I],
            probabilities_IC=found.probabilities_IC[order_I],
        )
        if moved.classes != first.classes or (moved.labels_I != first.labels_I).any():
            raise InputError(f"{where} has other classes or labels than {other}")
        aligned[run] = moved
    return aligned


def _load_lines(path: Path) -> list[dict[str, Any]]:
    """A JSONL file's objects, at least one; a blank line is an error, as a cut one."""
    records = []
    text = _read(path)
    if not text:
        raise InputError(f"{path} is empty: the run is unfinished; start it again")
    # Not splitlines(): a JSON string may hold other line separators (U+2028).
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        record = _parse(line, f"{path}:{number}")
        if not isinstance(record, dict):
            raise InputError(f"{path}:{number} is not a JSON object; run it again")
        records.append(record)
    return records


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise InputError(
            f"{path} is missing: give a work folder whose runs have finished, or start"
            " the same command again"
        ) from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8; restore it or run again") from None


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{where} is not valid JSON ({error.msg}): cut off or edited; restore it or"
            " run again"
        ) from None
