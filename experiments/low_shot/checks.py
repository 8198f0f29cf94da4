"""What is refused before anything is trained: labels, plan, values of the stages.

Hours of pre-training must not end in an error that could be known at the start.
"""

import dataclasses
import pathlib
from collections.abc import Iterator

from experiments.labels import read_labels
from experiments.low_shot.settings import (
    Choice,
    LowShotSettings,
    ProbeStage,
    plan_for,
)
from experiments.low_shot.stages import finetune_settings, tuning_grids
from experiments.stages import adapt_settings, naming, pretrain_settings
from tljax.cli.finetune import check as check_finetune
from tljax.cli.models import source_settings
from tljax.cli.pretrain import check as check_pretrain
from tljax.data.sources import Source
from tljax.settings import InputError
from tljax.train.files import read_json


def cut_to_data(settings: LowShotSettings, source: Source) -> LowShotSettings:
    """The settings with a plan for the labels that exist; what was cut is said.

    Raises:
      InputError: an item without a label, fewer than two classes, a label that the
        training split has not, too few test items, or a plan that cannot be carried
        out.
    """
    train = read_labels(source, "train")
    test = read_labels(source, "test", train.classes)
    read_labels(source, "validation", train.classes)
    if len(test) < 2:
        raise InputError(
            f"{source.uri} has 1 test item; intervals need at least 2: give more"
            " labelled rows"
        )
    existing = len(train)
    plan = plan_for(settings.plan, existing, settings.arms)
    if plan.sizes != tuple(sorted(settings.plan.sizes)):
        print(
            f"{source.uri} has {existing} training labels: sizes"
            f" {list(settings.plan.sizes)} are cut to {list(plan.sizes)}"
        )
    if existing < 100:
        print(
            f"{existing} training labels are few: intervals will be wide, and only"
            " large differences can be seen"
        )
    few = [str(n) for n in plan.sizes if n < len(train.classes)]
    if few:
        print(
            f"{source.uri} has {len(train.classes)} classes: with {', '.join(few)}"
            " labels some have no example to learn from"
        )
    return dataclasses.replace(settings, plan=plan)


def leave_out_probe(settings: LowShotSettings, folder: pathlib.Path) -> LowShotSettings:
    """The settings, without the pretrained model's arm where it cannot be had.

    With the arm go the claims about it. An experiment that began with it, or without,
    goes on so.

    Raises:
      InputError: the experiment in the folder began with the model, which is gone.
    """
    probe, config = settings.probe, folder / "config.json"
    if not probe.source:
        return settings
    began = None
    if config.exists():
        began = read_json(config).get("probe", {}).get("source", "")
    reason = "this experiment began without it; a new --workdir has it"
    if began != "":
        try:
            layers = source_settings(probe.source).depth
        except InputError as error:
            if began is not None:
                raise
            reason = str(error)
        else:
            _check_layers(probe, layers)
            return settings
    gone = (probe.arm, settings.lora.arm)
    claims = tuple(
        claim
        for claim in settings.plan.claims
        if claim.arm not in gone and claim.against not in gone
    )
    if settings.plan.claims and not claims:
        raise InputError(
            f"config.plan.claims are all about {probe.source}, which is left out:"
            f" {reason}"
        )
    print(
        f"the arms of {probe.source} ({', '.join(arm for arm in gone if arm)}) are left"
        f" out, and with them {len(settings.plan.claims) - len(claims)} claims:"
        f" {reason}"
    )
    return dataclasses.replace(
        settings,
        plan=dataclasses.replace(settings.plan, claims=claims),
        probe=dataclasses.replace(probe, source=""),
        lora=dataclasses.replace(settings.lora, arm=""),
        tuned={a: one for a, one in settings.tuned.items() if a != settings.lora.arm},
    )


def _check_layers(probe: ProbeStage, layers: int) -> None:
    if max(probe.layers) > layers:
        raise InputError(
            f"config.probe.layers has {max(probe.layers)}; {probe.source} has {layers}"
            " layers"
        )


def check_stages(settings: LowShotSettings) -> None:
    """Raises the InputError that a later stage would, and names its part of the config.

    Args:
      settings: with the plan of `cut_to_data`.
    """
    with naming("config.pretrain"):
        check_pretrain(pretrain_settings(settings))
    if settings.adapt.epochs:
        with naming("config.adapt"):
            check_pretrain(adapt_settings(settings, lm="", tokens=0))
    for key, arm, n, choice in _choices(settings):
        with naming(key):
            check_finetune(
                finetune_settings(
                    settings, arm=arm, n=n, seed=0, choice=choice, lm="", tuning=False
                )
            )


def _choices(settings: LowShotSettings) -> Iterator[tuple[str, str, int, Choice]]:
    """Every choice that may be trained with: its key in the config, arm, n, choice."""
    for arm, choices in settings.tuned.items():
        for n, choice in choices.items():
            yield f"config.tuned.{arm}.{n}", arm, int(n), choice
    if settings.tuning.rates:
        for n, grid in tuning_grids(settings).items():
            for arm in settings.tuned_arms:
                for choice in grid:
                    yield "config.tuning", arm, n, choice
