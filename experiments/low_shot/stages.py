"""The runs that the experiment's stages are: its settings -> those of each run."""

import dataclasses
import itertools
import math
import pathlib
from collections.abc import Mapping

from experiments.low_shot.settings import Choice, LowShotSettings
from tljax.cli.models import source_settings
from tljax.settings import (
    FinetuneSettings,
    InitSettings,
    MeshSettings,
    PretrainSettings,
    TaskSettings,
    TransferSettings,
)


def run_folder(folder: pathlib.Path, arm: str, n: int, seed: int) -> pathlib.Path:
    """Where a run of an arm lies in the work folder."""
    return folder / "runs" / f"{arm}-n{n}-s{seed}"


def predictions_of(run: pathlib.Path) -> pathlib.Path:
    """What a run says of the test split; there, the run has ended."""
    return run / "predictions" / "test.jsonl"


def nearest(choices: Mapping[str, Choice], n: int) -> Choice:
    """The choice made at the size nearest to n, on a log scale."""
    return choices[min(choices, key=lambda size: abs(math.log(int(size) / n)))]


def tuning_grids(settings: LowShotSettings) -> dict[int, list[Choice]]:
    """The choices tried with so many labels; sizes are cut to the plan's largest."""
    tuning, most = settings.tuning, max(settings.plan.sizes)
    grids = {}
    for n in sorted(map(int, tuning.epochs)):
        points = itertools.product(
            tuning.rates, tuning.epochs[str(n)], tuning.layer_decays
        )
        grids.setdefault(min(n, most), [Choice(*point) for point in points])
    return grids


def pretrain_settings(settings: LowShotSettings) -> PretrainSettings:
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


def adapt_settings(
    settings: LowShotSettings, *, lm: str, tokens: int
) -> PretrainSettings:
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


def finetune_settings(
    settings: LowShotSettings,
    *,
    arm: str,
    n: int,
    seed: int,
    choice: Choice,
    lm: str,
    tuning: bool,
) -> FinetuneSettings:
    """One fine-tuning run.

    scratch and transfer differ in init.source (and the choice) alone; the third is of
    another model, tokenizer and method.
    """
    model, transfer = settings.model, TransferSettings()
    stage, source = settings.finetune, lm if arm == "transfer" else ""
    if arm == settings.lora.arm:
        stage, source, lm = settings.lora, settings.probe.source, settings.probe.source
        model, transfer = source_settings(source), stage.transfer
    record, items = stage.record, settings.task.validation_items
    if tuning:
        items = settings.tuning.validation_items
        if record.choose == "last":  # the end decides: looking on the way costs time
            record = dataclasses.replace(record, validations=0)
    return FinetuneSettings(
        kind="finetune",
        seed=seed,
        epochs=choice.epochs,
        init=InitSettings(source=source),
        task=TaskSettings(
            source=settings.task.source,
            n=n,
            length=settings.task.length,
            validation_items=items,
            score_test=not tuning,
        ),
        tokenizer=dataclasses.replace(settings.tokenizer, source=lm),
        head=stage.head,
        model=model,
        optim=dataclasses.replace(
            stage.optim, lr_peak=choice.lr_peak, layer_decay=choice.layer_decay
        ),
        mesh=MeshSettings(run=1, data=1, fsdp=1, tensor=1),
        record=record,
        transfer=transfer,
    )
