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
    TaskSettings,
    TransferSettings,
)


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
