"""What experiments have in common: a language model to start from, phases, run folders.

    pre-train (-> adapt) -> ... each phase timed, each finished one skipped

`settings` is any experiment's that has corpus, tokenizer, model, pretrain, adapt, task.
"""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Iterator
from typing import Any

from tljax.cli.pretrain import pretrain
from tljax.data.sources import open_source
from tljax.data.token_store import open_token_store
from tljax.data.tokenizer import Tokenizer
from tljax.settings import (
    InitSettings,
    InputError,
    PretrainSettings,
)
from tljax.train.files import read_json, write_json


def pretrain_settings(settings: Any) -> PretrainSettings:
    """The pre-training run."""
    stage = settings.pretrain
    return PretrainSettings(
        kind="pretrain",
        seed=stage.seed,
        steps=stage.steps,
        init=InitSettings(source=""),
        corpus=settings.corpus,
        tokenizer=settings.tokenizer,
        model=settings.model,
        optim=stage.optim,
        mesh=stage.mesh,
        record=stage.record,
    )


def adapt_settings(settings: Any, *, lm: str, tokens: int) -> PretrainSettings:
    """Continued pre-training of `lm` on the task's training text of so many tokens."""
    stage = settings.adapt
    per_step = stage.optim.batch * settings.corpus.length
    return dataclasses.replace(
        pretrain_settings(settings),
        steps=max(1, round(stage.epochs * tokens / per_step)),
        init=InitSettings(source=lm),
        corpus=dataclasses.replace(
            settings.corpus,
            source=settings.task.source,
            heldout_split="validation",  # the test split is for the end
        ),
        tokenizer=dataclasses.replace(settings.tokenizer, source=lm),
        optim=stage.optim,
        record=stage.record,
    )


def adapt(settings: Any, *, lm: pathlib.Path, folder: pathlib.Path) -> None:
    """Writes, to the folder, the language model gone on on the task's training text."""
    source = open_source(settings.task.source)
    store = open_token_store(source, "train", Tokenizer.load(lm / "tokenizer.json"))
    made = adapt_settings(settings, lm=str(lm), tokens=store.token_count)
    pretrain(made, folder, title="adapt")


def run_folder(folder: pathlib.Path, arm: str, n: int, seed: int) -> pathlib.Path:
    """Where a run of an arm lies in the work folder."""
    return folder / "runs" / f"{arm}-n{n}-s{seed}"


def is_current(folder: pathlib.Path) -> bool:
    """Whether summary and report are there, and no record is later."""
    report = folder / "report.html"  # written after the summary
    records = [
        *folder.glob("contamination.json"),
        *folder.glob("runs/*/predictions/*"),
    ]
    return (
        report.exists()
        and (folder / "summary.json").exists()
        and all(path.stat().st_mtime <= report.stat().st_mtime for path in records)
    )


class Phases:
    """Seconds of each phase, over all sittings until the report, in phases.json."""

    def __init__(self, folder: pathlib.Path):
        self._path, self._stopped = folder / "phases.json", is_current(folder)
        self._seconds = read_json(self._path) if self._path.exists() else {}

    @contextlib.contextmanager
    def time(self, name: str) -> Iterator[None]:
        """Adds the time until the block ends, however it ends."""
        started = time.monotonic()
        try:
            yield
        finally:
            if not self._stopped:
                seconds = self._seconds.get(name, 0.0) + time.monotonic() - started
                self._seconds[name] = round(seconds, 2)
                write_json(self._path, self._seconds)


@contextlib.contextmanager
def naming(key: str) -> Iterator[None]:
    """Puts in front of a refusal which part of the experiment's config it is about."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{key}: {error}") from error
