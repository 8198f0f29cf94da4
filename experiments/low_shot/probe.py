"""The arm of other people's: a closed-form probe on a frozen pretrained model.

texts -> frozen features, once and kept in WORKDIR/features/ -> a ridge fit a run

Layer and pooling come from the config or, where it names several, from validation items
and subsets of tuning's own. The same subsets and test items as every other arm.
"""

import itertools
import pathlib
from collections.abc import Sequence

import numpy as np

from experiments.low_shot.settings import LowShotSettings
from tljax.cli.embed import tokens_of
from tljax.cli.finetune import write_predictions
from tljax.cli.models import Model, open_model
from tljax.data.labelled import LabelledSet, load_labelled, nested_subset
from tljax.data.sources import open_source
from tljax.evaluate.features import pooled_features
from tljax.evaluate.probe import fit_probe
from tljax.train.files import read_json, sha256_of, write_bytes, write_json
from tljax.train.progress import Progress

TUNING_SEED = 2000  # of the subsets that choose, apart from those that count


def run_probe(settings: LowShotSettings, folder: pathlib.Path) -> None:
    """Writes predictions/test.jsonl of every run of the arm that has none yet.

    Args:
      settings: of the experiment; its probe.source names a model.
      folder: the work folder.
    """
    probe, plan = settings.probe, settings.plan
    wanted = [
        (n, seed, folder / "runs" / f"{probe.arm}-n{n}-s{seed}")
        for n, seed in itertools.product(plan.sizes, range(plan.seeds))
    ]
    if all((path / "predictions" / "test.jsonl").exists() for _, _, path in wanted):
        return
    sets = _load_sets(settings)
    features = _Features(settings, folder, sets)
    chosen = {n: _choose(settings, folder, features, sets, n) for n in plan.sizes}
    test = features.of("test", range(len(sets["test"])))
    for n, seed, path in wanted:
        layer, pooling = chosen[n]
        train = sets["train"]
        subset = nested_subset(train.labels, n, seed, train.classes)
        place = features.place(layer, pooling)
        fitted = fit_probe(
            features.of("train", subset)[:, place],
            train.labels[subset],
            len(train.classes),
        )
        write_json(
            path / "config.json",
            {
                "kind": "probe",
                "source": probe.source,
                "n": n,
                "seed": seed,
                "layer": layer,
                "pooling": pooling,
                "ridge": fitted.ridge,
            },
        )
        predictions = path / "predictions" / "test.jsonl"
        write_predictions(
            predictions, sets["test"], fitted.probabilities(test[:, place])
        )


def _load_sets(settings: LowShotSettings) -> dict[str, LabelledSet]:
    """The task's splits, texts and labels; tokens are the model's own matter."""
    source, classes, sets = open_source(settings.task.source), None, {}
    for split in source.splits:
        sets[split] = load_labelled(
            source, split, NoTokenizer(), length=1, classes=classes
        )
        classes = sets["train"].classes
    return sets


class NoTokenizer:
    """In place of a tokenizer where only texts and labels are looked at."""

    end_id = 0

    def encode(self, texts: Sequence[str], **_: object) -> list[tuple]:
        return [()] * len(texts)


class _Features:
    """Features of the items that are asked for, computed once and kept on disk."""

    def __init__(self, settings, folder, sets):
        self._settings, self._folder, self._sets = settings, folder, sets
        probe = settings.probe
        self._places = list(itertools.product(probe.layers, probe.poolings))
        self._model: Model | None = None
        self._known: dict[str, np.ndarray] = {}

    def place(self, layer: int, pooling: str) -> int:
        """Where a layer and pooling stand in axis 1 of the features."""
        return self._places.index((layer, pooling))

    def of(self, split: str, items: Sequence[int]) -> np.ndarray:
        """float32 [items, places, D]."""
        if split not in self._known:
            self._known[split] = self._load(split)
        return self._known[split][np.asarray(items)]

    def _load(self, split: str) -> np.ndarray:
        probe, labelled = self._settings.probe, self._sets[split]
        identity = sha256_of([probe.source, probe.layers, probe.poolings, labelled.ids])
        path = self._folder / "features" / f"{split}-{identity[:16]}.npy"
        if not path.exists():
            found = self._compute(split, labelled.texts)
            write_bytes(path, lambda file: np.save(file, found))
        return np.load(path, mmap_mode="r")

    def _compute(self, split: str, texts: Sequence[str]) -> np.ndarray:
        probe = self._settings.probe
        if self._model is None:
            self._model = open_model(probe.source)
        tokens = tokens_of(self._model, texts)
        with Progress(f"{probe.arm} {split}", len(texts)) as bar:
            found = pooled_features(
                self._model.settings,
                self._model.params,
                tokens,
                poolings=probe.poolings,
                layers=probe.layers,
                progress=lambda items, tokens: bar.update(items, tokens=tokens),
            )
        return found.reshape(len(texts), len(self._places), -1)


def _choose(settings, folder, features, sets, n: int) -> tuple[int, str]:
    """The layer and pooling of best mean validation accuracy with n labels."""
    probe = settings.probe
    places = list(itertools.product(probe.layers, probe.poolings))
    if len(places) == 1:
        return places[0]
    path = folder / "probe_tuning.json"
    known = read_json(path) if path.exists() else {}
    if str(n) not in known:
        known[str(n)] = _rank(settings, features, sets, n, places)
        write_json(path, known)
    best = known[str(n)][0]
    return best["layer"], best["pooling"]


def _rank(settings, features, sets, n, places) -> list[dict]:
    """Every layer and pooling, best first, with one validation accuracy a seed."""
    train, validation = sets["train"], sets["validation"]
    x_validation = features.of("validation", range(len(validation)))
    rows = [
        {"layer": layer, "pooling": pooling, "values": []} for layer, pooling in places
    ]
    for seed in range(settings.probe.seeds):
        subset = nested_subset(train.labels, n, TUNING_SEED + seed, train.classes)
        x_train = features.of("train", subset)
        for place, row in enumerate(rows):
            fitted = fit_probe(
                x_train[:, place], train.labels[subset], len(train.classes)
            )
            guesses = fitted.probabilities(x_validation[:, place]).argmax(axis=1)
            row["values"].append(float((guesses == validation.labels).mean()))
    for row in rows:
        row["validation_accuracy"] = sum(row["values"]) / len(row["values"])
    return sorted(rows, key=lambda row: -row["validation_accuracy"])
