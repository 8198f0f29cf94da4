"""tljax soup: several fine-tuned runs of one base become one, by averaging weights.

run folders -> same base, task, shapes? -> transfer.soup.average -> a run folder
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tljax.cli.command import (
    Flag,
    check_new_folder,
    help_text,
    number_lines,
    read_flags,
)
from tljax.data.folders import whole_folder
from tljax.settings import FinetuneSettings, InputError

USAGE = "tljax soup --out=DIR RUN RUN ..."
DESCRIPTION = """
Averages the weights of fine-tuned runs that began from one base (model soups, Wortsman
et al. 2022) and writes a run folder that predict, evaluate and export take. What a run
added (lora, dora, ia3) is merged first; one that cannot be merged is refused.

  tljax soup --out=runs/soup runs/seed0 runs/seed1 runs/seed2
  tljax soup --out=runs/greedy --greedy runs/tuning/*

With --greedy the runs are tried by falling validation accuracy, and one is kept only if
the average with it is no worse on the validation items. config.json is the first run's;
manifest.json names what went in.
"""
FLAGS = (
    Flag("out", "DIR", "a folder that is not there yet", required=True),
    Flag("greedy", "", "keeps only runs that do not make the validation worse"),
)


class Ingredient(NamedTuple):
    """A run that may go in."""

    folder: str
    settings: FinetuneSettings
    manifest: dict[str, Any]
    final: dict[str, Any]
    classes: tuple[str, ...]

    @property
    def accuracy(self) -> float:
        """On its validation items."""
        return self.final["validation"]["accuracy"]["value"]


def run(argv: Sequence[str]) -> None:
    """Checks, averages, scores, writes; the folder appears whole or not at all."""
    given = read_flags(argv, FLAGS, program="tljax soup")
    if "help" in given.flags:
        print(help_text(USAGE, DESCRIPTION, FLAGS))
        return
    folders = [str(Path(word)) for word in given.words]
    if len(set(folders)) < max(2, len(folders)):
        raise InputError(
            f"tljax soup takes two or more different runs, {len(folders)} given:"
            f" {USAGE}"
        )
    out, greedy = Path(given.flags["out"]), "greedy" in given.flags
    check_new_folder(out)
    runs = [_open(folder) for folder in folders]
    _check_alike(runs)
    from tljax.cli import parts
    from tljax.cli.models import load_params_of
    from tljax.transfer.soup import average

    parts.prepare_devices()
    judge = _Judge(runs[0])
    accuracy_of = {one.folder: one.accuracy for one in runs}
    if greedy:
        folders.sort(key=accuracy_of.__getitem__, reverse=True)
        soup = average(folders, load_params_of, judge.accuracy)
    else:
        soup = average(folders, load_params_of)
    results = judge.results(soup.params)
    facts = {
        "greedy": greedy,
        "runs": [
            {
                "run": folder,
                "validation_accuracy": accuracy_of[folder],
                "taken": folder in soup.taken,
            }
            for folder in folders
        ],
    }
    with whole_folder(out) as fresh:
        _write(fresh, runs, judge, soup.params, results, facts)
    for line in number_lines({name: found for name, (found, _) in results.items()}):
        print(line)
    print(f"{out}: the average of {', '.join(soup.taken)}")


def _open(folder: str) -> Ingredient:
    """A run's records. Raises: InputError where it is none that has ended well."""
    from tljax.cli import parts
    from tljax.cli.models import classes_of
    from tljax.settings import from_config
    from tljax.train.checkpoint import params_shapes
    from tljax.train.record import early_end, final_record, read_record

    config = read_record(parts.run_file(folder, "config.json"))
    if config.get("kind") != "finetune":
        raise InputError(
            f"{folder} is not a fine-tuning run (config.kind is"
            f" {config.get('kind')!r}); a soup is of runs that learnt from labels"
        )
    settings = from_config(FinetuneSettings, config, f"{folder}: config")
    if not settings.init.source or settings.init.reinit_layers:
        raise InputError(
            f"{folder} has layers that began at random: weights that have no start in"
            " common cannot be averaged; give runs of one config.init.source"
        )
    final = final_record(folder)
    if final["params_sha256"] is None:
        raise InputError(f"{folder} {early_end(final)}; leave it out")
    manifest = read_record(parts.run_file(folder, "manifest.json"))
    shapes = params_shapes(parts.run_file(folder, "params"))
    classes = classes_of(folder, {"bias": np.empty(shapes["head"]["bias"])})
    return Ingredient(folder, settings, manifest, final, classes)


def _check_alike(runs: Sequence[Ingredient]) -> None:
    """Raises InputError at the first thing in which a run differs from the first."""
    first, *others = runs
    wanted = _what_must_agree(first)
    for one in others:
        for key, value in _what_must_agree(one).items():
            if value != wanted[key]:
                raise InputError(
                    f"{one.folder} has {key}={value!r:.60}, {first.folder} has"
                    f" {wanted[key]!r:.60}; a soup is of runs of one base and one task"
                )


def _what_must_agree(one: Ingredient) -> dict[str, Any]:
    from tljax.cli.models import RUN_KEYS
    from tljax.data.tokenizer import Tokenizer
    from tljax.settings import ModelSettings

    settings = one.settings
    path = Path(one.folder) / "tokenizer.json"
    return {
        **{
            f"config.model.{name}": getattr(settings.model, name)
            for name in ModelSettings.__dataclass_fields__
            if name not in RUN_KEYS
        },
        "config.head.pooling": settings.head.pooling,
        "config.task.source": settings.task.source,
        "config.task.length": settings.task.length,
        "config.task.validation_items": settings.task.validation_items,
        "classes": one.classes,
        "weights it began from": (one.manifest.get("init") or {}).get("params_sha256"),
        "data": one.manifest.get("data"),
        "tokenizer": Tokenizer.load(path).sha256,
    }


class _Judge:
    """Scores parameters on the held-out items of the runs' task."""

    def __init__(self, first: Ingredient):
        from tljax.cli import parts
        from tljax.data.labelled import load_labelled
        from tljax.data.sources import open_source
        from tljax.data.tokenizer import Tokenizer
        from tljax.evaluate.classification import Scorer
        from tljax.train.record import differing_keys

        settings, task = first.settings, first.settings.task
        source = open_source(task.source)
        self.tokenizer = Tokenizer.load(Path(first.folder) / "tokenizer.json")
        items = {"validation": task.validation_items}
        items |= {"test": 0} if task.score_test else {}
        self.data = parts.data_facts(source, ("train", *items))
        then = {task.source: first.manifest.get("data", {}).get(task.source)}
        if differ := list(differing_keys(then, self.data, "data")):
            raise InputError(
                f"{first.folder} learnt from other data ({differ[0]}); bring it back"
            )
        self.sets = {
            split: load_labelled(
                source, split, self.tokenizer, length=task.length,
                classes=first.classes, items=count,
            )
            for split, count in items.items()
        }  # fmt: skip
        sets, pooling = list(self.sets.values()), settings.head.pooling
        self._scorer = Scorer(settings.model, pooling, task.length, sets)
        self._plans = {name: self._scorer.plan(one) for name, one in self.sets.items()}

    def accuracy(self, params: dict) -> float:
        """On the validation items."""
        return self._scored(params, "validation")[0]["accuracy"]["value"]

    def results(self, params: dict) -> dict[str, tuple[dict, Any]]:
        """{split: (its record, probabilities [I, C])}."""
        return {name: self._scored(params, name) for name in self.sets}

    def _scored(self, params, name):
        from tljax.metrics.classification import full_record

        labelled = self.sets[name]
        probabilities_IC = self._scorer.probabilities(
            params, self._plans[name], len(labelled)
        )
        return full_record(labelled.labels, probabilities_IC), probabilities_IC


def _write(folder: Path, runs, judge, params, results, facts) -> None:
    """The first run's config with these weights, all of which count as moved.

    It cost what all of the runs did.
    """
    import dataclasses

    from tljax.cli import parts
    from tljax.cli.finetune import write_predictions
    from tljax.cli.models import WHOLE
    from tljax.settings import to_dict
    from tljax.train.checkpoint import params_sha256, save_params
    from tljax.train.files import write_json
    from tljax.train.record import RunRecord, keep_data, manifest_facts

    first = runs[0]
    config = to_dict(dataclasses.replace(first.settings, transfer=WHOLE))
    write_json(folder / "config.json", config)
    write_json(folder / "classes.json", list(first.classes))
    keep_data(folder, judge.data)
    judge.tokenizer.save(folder / "tokenizer.json")
    save_params(folder / "params", params)
    for name, (_, probabilities_IC) in results.items():
        path = folder / "predictions" / f"{name}.jsonl"
        write_predictions(path, judge.sets[name], probabilities_IC)
    count = parts.count(params)
    costs = {
        name: sum(one.manifest[name] for one in runs)
        for name in ("tokens", "flops", "time_seconds")
    }
    with RunRecord(folder) as record:
        record.write_manifest(
            {
                **first.manifest,
                **manifest_facts(config),
                **costs,
                "parameters": count,
                "parameters_moving": count,
                "soup": facts,
            }
        )
        scores = {name: found for name, (found, _) in results.items()}
        record.finish(0, params_sha256(params), **scores)
