"""The arm of other people's: a closed-form probe on a frozen pretrained model.

texts -> frozen features, once and kept in WORKDIR/features/ -> a ridge fit a run

Layer and pooling come from the config or, where it names several, from validation items
and subsets of tuning's own. The same subsets and test items as every other arm.
"""

import itertools
import pathlib
from collections.abc import Sequence

import numpy as np

from experiments.labels import load_texts
from experiments.low_shot.settings import LowShotSettings
from experiments.low_shot.stages import predictions_of
from experiments.stages import run_folder
from tljax.cli import parts
from tljax.cli.embed import tokens_of
from tljax.cli.finetune import write_predictions
from tljax.cli.models import open_model
from tljax.data.labelled import LabelledSet, nested_subset
from tljax.data.sources import open_source
from tljax.evaluate.features import pooled_features
from tljax.evaluate.probe import fit_probe
from tljax.model.product import product_dtype
from tljax.train.checkpoint import params_sha256
from tljax.train.files import read_json, sha256_of, write_bytes, write_json
from tljax.train.progress import Progress
from tljax.train.record import manifest_facts

TUNING_SEED = 2000  # of the subsets that choose, apart from those that count


def run_probe(settings: LowShotSettings, folder: pathlib.Path) -> None:
    """Writes predictions/test.jsonl of every run of the arm that has none yet.

    Args:
      settings: of the experiment; its probe.source names a model.
      folder: the work folder.
    """
    probe, plan = settings.probe, settings.plan
    wanted = [
        (n, seed, run_folder(folder, probe.arm, n, seed))
        for n, seed in itertools.product(plan.sizes, range(plan.seeds))
    ]
    wanted = [one for one in wanted if not predictions_of(one[2]).exists()]
    if not wanted:
        return
    features = _Features(settings, folder)
    train, test = features.sets["train"], features.sets["test"]
    chosen = {n: _choose(settings, folder, features, n) for n in plan.sizes}
    for n, seed, path in wanted:
        layer, pooling = chosen[n]
        subset = nested_subset(train.labels, n, seed, train.classes)
        fitted = fit_probe(
            features.of("train", subset, layer, pooling),
            train.labels[subset],
            len(train.classes),
        )
        x_test = features.of("test", range(len(test)), layer, pooling)
        config = {
            "kind": "probe",
            "source": probe.source,
            "n": n,
            "seed": seed,
            "layer": layer,
            "pooling": pooling,
            "ridge": fitted.ridge,
        }
        write_json(path / "config.json", config)
        write_json(path / "manifest.json", {**manifest_facts(config), **features.facts})
        write_predictions(predictions_of(path), test, fitted.probabilities(x_test))


def planned_items(settings: LowShotSettings, train: LabelledSet) -> np.ndarray:
    """The training items that some run, or the choice of a layer, learns from."""
    plan, probe = settings.plan, settings.probe
    seeds = [*range(plan.seeds)]
    if len(probe.layers) * len(probe.poolings) > 1:
        seeds += [TUNING_SEED + seed for seed in range(probe.seeds)]
    most = max(plan.sizes)  # subsets are nested
    subsets = [nested_subset(train.labels, most, seed, train.classes) for seed in seeds]
    return np.unique(np.concatenate(subsets))


class _Features:
    """Features of the items that are planned, computed once and kept on disk."""

    def __init__(self, settings: LowShotSettings, folder: pathlib.Path):
        self._probe, self._folder = settings.probe, folder
        source, classes = open_source(settings.task.source), None
        self.sets: dict[str, LabelledSet] = {}
        for split in source.splits:
            self.sets[split] = load_texts(source, split, classes)
            classes = self.sets["train"].classes
        self.places = list(itertools.product(self._probe.layers, self._probe.poolings))
        self._planned = planned_items(settings, self.sets["train"])
        self._model = open_model(self._probe.source)
        self.facts = {
            "data": parts.data_facts(source, tuple(source.splits)),
            "dtype": str(product_dtype(self._model.settings.dtype)),
            "init": {
                "source": self._probe.source,
                "params_sha256": params_sha256(self._model.params),
            },
        }
        self._known: dict[str, np.ndarray] = {}

    def of(
        self, split: str, items: Sequence[int], layer: int, pooling: str
    ) -> np.ndarray:
        """float32 [items, D], or a multiple of D where poolings stand side by side."""
        if split not in self._known:
            self._known[split] = self._load(split)
        if split == "train":
            items = np.searchsorted(self._planned, items)
        found = self._known[split][np.asarray(items), self._probe.layers.index(layer)]
        kinds = [self._probe.kinds.index(kind) for kind in pooling.split("+")]
        return found[:, kinds].reshape(len(found), -1)

    def _load(self, split: str) -> np.ndarray:
        items = self.sets[split]
        if split == "train":
            items = items.take(self._planned)
        kinds = self._probe.kinds
        identity = sha256_of([self.facts, self._probe.layers, kinds, items.ids])
        path = self._folder / "features" / f"{split}-{identity[:16]}.npy"
        if not path.exists():
            found = self._compute(split, items.texts)
            write_bytes(path, lambda file: np.save(file, found))
        return np.load(path, mmap_mode="r")

    def _compute(self, split: str, texts: Sequence[str]) -> np.ndarray:
        tokens = tokens_of(self._model, texts)
        with Progress(f"{self._probe.arm} {split}", len(texts)) as bar:
            return pooled_features(
                self._model.settings,
                self._model.params,
                tokens,
                poolings=self._probe.kinds,
                layers=self._probe.layers,
                progress=lambda items, tokens: bar.update(items, tokens=tokens),
            )


def _choose(settings, folder, features, n: int) -> tuple[int, str]:
    """The layer and pooling of best mean validation accuracy with n labels."""
    if len(features.places) == 1:
        return features.places[0]
    path = folder / "probe_tuning.json"
    known = read_json(path) if path.exists() else {}
    if str(n) not in known:
        known[str(n)] = _rank(settings, features, n)
        write_json(path, known)
    best = known[str(n)][0]
    return best["layer"], best["pooling"]


def _rank(settings, features, n) -> list[dict]:
    """Every layer and pooling, best first, with one validation accuracy a seed."""
    train, validation = features.sets["train"], features.sets["validation"]
    rows = [
        {"layer": layer, "pooling": pooling, "values": []}
        for layer, pooling in features.places
    ]
    for seed in range(settings.probe.seeds):
        subset = nested_subset(train.labels, n, TUNING_SEED + seed, train.classes)
        for row in rows:
            place = (row["layer"], row["pooling"])
            x_train = features.of("train", subset, *place)
            fitted = fit_probe(x_train, train.labels[subset], len(train.classes))
            x_validation = features.of("validation", range(len(validation)), *place)
            guesses = fitted.probabilities(x_validation).argmax(axis=1)
            row["values"].append(float((guesses == validation.labels).mean()))
    for row in rows:
        row["validation_accuracy"] = sum(row["values"]) / len(row["values"])
    return sorted(rows, key=lambda row: -row["validation_accuracy"])
