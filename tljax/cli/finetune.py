"""Fine-tuning, from a labelled set to run folders: a population of runs.

    source -> labelled sets -> subset and plan a member -> train -> params, predictions

Members share everything but MEMBER_KEYS (seed, n, epochs, rates ...); `train` is a
population of one.
"""

import functools
import itertools
import json
import pathlib
import shutil
from collections.abc import Sequence

import jax
import numpy as np

from tljax.cli import parts
from tljax.cli.crew import Crew, Member
from tljax.data.labelled import LabelledSet
from tljax.data.packing import padding_share
from tljax.evaluate import classification
from tljax.model import transformer
from tljax.model.product import product_dtype
from tljax.objective import regularize
from tljax.settings import (
    FinetuneSettings,
    InputError,
    ModelSettings,
    OptimSettings,
    TransferSettings,
    to_dict,
)
from tljax.train import loop, optimizer, population, step, unfreeze
from tljax.train.checkpoint import Checkpoints, params_sha256, save_params
from tljax.train.files import sha256_of, write_json, write_text
from tljax.train.progress import Progress
from tljax.train.record import (
    RunRecord,
    early_end,
    keep_data,
    manifest_facts,
    open_run,
)
from tljax.transfer.method import prompt_places, split
from tljax.transfer.start import between

_STILL = 1e-3  # share of the learning rate with which a layer hardly moves


def finetune(
    members: list[Member], *, populations: pathlib.Path, title: str = "fine-tune"
) -> None:
    """Runs or resumes the members; those that have ended stay as they are.

    Args:
      members: runs that differ in MEMBER_KEYS only.
      populations: folder of the checkpoints while training; empty when all have ended.
      title: of the progress bar.

    Raises:
      InputError: something given cannot be used; nothing is overwritten.
    """
    for one in members:
        check(one.settings)
    _check_shared(members)
    ended = {
        one.folder: open_run(one.folder, to_dict(one.settings), "finetune")
        for one in members
    }
    _tell_of_layer_decay(members)
    parts.prepare_devices()
    mode = population.choose_mode()
    # a group stays whole while one of it is open: nothing depends on when
    groups = list(itertools.batched(members, 1 if mode == "turn" else len(members)))
    is_open = [not all(ended[one.folder] for one in group) for group in groups]
    for group, going_on in zip(groups, is_open, strict=True):
        if not going_on:  # killed before it could tidy up
            _forget(populations, group)
    if not any(is_open):
        return
    crew = Crew(members)
    for one in members:
        keep_data(one.folder, crew.data)
    plans = [crew.plans[one.folder] for one in members]
    done = done_tokens = 0
    with Progress(title, sum(plan.steps for plan in plans)) as progress:
        for group, going_on in zip(groups, is_open, strict=True):
            if going_on:
                bar = _Shifted(progress, done, done_tokens)
                _train_group(crew, group, mode, populations, bar)
            done += sum(crew.plans[one.folder].steps for one in group)
            done_tokens += sum(crew.tokens(one) for one in group)


def check(settings: FinetuneSettings) -> None:
    """Raises InputError for values that cannot go together."""
    transformer.check(settings.model)
    if settings.transfer != TransferSettings() and not settings.init.source:
        raise InputError(
            "config.transfer freezes weights, but config.init.source is empty: what"
            " would stay is untrained; give a source or leave config.transfer out"
        )
    if settings.transfer != TransferSettings():
        _check_transfer(settings.model, settings.transfer)
        _check_prompt(settings)
    settings.regularize.check_run(
        "config.regularize", source=settings.init.source, model=settings.model,
        transfer=settings.transfer,
    )  # fmt: skip
    _check_start(settings)
    _check_optim(settings)
    if settings.epochs == 0:
        raise InputError("config.epochs is 0; it must be more than 0")
    context = settings.model.context
    if settings.model.positions == "learned" and settings.task.length > context:
        raise InputError(
            f"config.task.length={settings.task.length}, but the model has {context}"
            f" positions; set it to at most {context}"
        )
    mesh = settings.mesh
    if mesh.run * mesh.data * mesh.fsdp * mesh.tensor > 1:
        raise InputError(
            "config.mesh asks for more than one device; fine-tuning runs on one: set"
            " config.mesh.run=1, data=1, fsdp=1 and tensor=1"
        )


def _check_start(settings: FinetuneSettings) -> None:
    """Refuses fresh layers that are not there or would stay; a probe of nothing."""
    anew, depth = settings.init.reinit_layers, settings.model.depth
    if settings.head.start == "probe" and not settings.init.source:
        raise InputError(
            "config.head.start='probe' fits features of a pre-trained model, but"
            " config.init.source is empty; give a source, or take 'random'"
        )
    if settings.head.start == "probe" and settings.transfer.method == "prompt":
        raise InputError(
            "config.head.start='probe' fits features of texts without the vectors that"
            " config.transfer.method='prompt' puts before them; take 'random'"
        )
    if not anew:
        return
    if not settings.init.source:
        raise InputError(
            f"config.init.reinit_layers={anew}, but config.init.source is empty: every"
            " layer is drawn anew; leave it out"
        )
    if settings.transfer.method != "full":
        raise InputError(
            f"config.init.reinit_layers={anew} draws layers anew that would then stay"
            f" untrained with config.transfer.method={settings.transfer.method!r};"
            " take 'full'"
        )
    if settings.regularize.ewc:
        raise InputError(
            f"config.regularize.ewc={settings.regularize.ewc} weighs what the model has"
            f" learnt, but config.init.reinit_layers={anew} draws layers anew; take one"
        )
    if anew + settings.transfer.frozen_layers > depth:
        raise InputError(
            f"config.init.reinit_layers={anew} with config.transfer.frozen_layers="
            f"{settings.transfer.frozen_layers}, but the model has {depth} layers"
        )


def _check_optim(settings: FinetuneSettings) -> None:
    """Refuses what would move, or be slowed, where there is nothing of the kind."""
    optim, method = settings.optim, settings.transfer.method
    if optim.lora_plus != 1 and method not in ("lora", "dora"):
        raise InputError(
            f"config.optim.lora_plus={optim.lora_plus} is read with"
            f" config.transfer.method='lora' or 'dora' only; the method is {method!r}"
        )
    if optim.unfreeze == "none":
        return
    if not settings.init.source:
        raise InputError(
            f"config.optim.unfreeze={optim.unfreeze!r} keeps layers as they are for a"
            " while, but config.init.source is empty: they are untrained; give a source"
        )
    if method == "head":
        raise InputError(
            f"config.optim.unfreeze={optim.unfreeze!r}, but with"
            " config.transfer.method='head' no layer ever moves; leave it out"
        )


def _tell_of_layer_decay(members: Sequence[Member]) -> None:
    """One line where the lowest layers as good as stand still."""
    depth = members[0].settings.model.depth
    least = min(one.settings.optim.layer_decay for one in members) ** depth
    if members[0].settings.init.source and least < _STILL:
        print(
            f"config.optim.layer_decay leaves the lowest of {depth} layers {least:.0e}"
            " of the learning rate; for deep models take 0.9 to 1.0"
        )


@functools.cache
def _check_transfer(model: ModelSettings, transfer: TransferSettings) -> None:
    """Refuses more frozen layers than there are, and targets that match nothing."""

    def moving(key):
        params = transformer.init_params(model, 1, key)
        return split({**params, "head": {}}, transfer, key)[0]

    jax.eval_shape(moving, jax.random.key(0))


def _check_prompt(settings: FinetuneSettings) -> None:
    """Refuses a prompt that leaves a text no room, or that would stand for it."""
    places, length = prompt_places(settings.transfer), settings.task.length
    if places >= length:
        raise InputError(
            f"config.transfer.prompt_length={places} leaves no token of"
            f" config.task.length={length} to the text; take a longer one"
        )
    if places and settings.head.pooling == "cls":
        raise InputError(
            "config.head.pooling='cls' takes the first token's state, which with"
            " config.transfer.method='prompt' is the prompt's; take mean, last or max"
        )


# numbers that are traced where they are above 0; 0 is another program
SWITCHES = ("model.dropout", "regularize.label_smoothing", "regularize.l2_start",
            "regularize.mixout", "regularize.rdrop", "regularize.neftune",
            "regularize.lm_weight", "regularize.ema", "regularize.replay",
            "regularize.ewc")  # fmt: skip
MEMBER_KEYS = ("seed", "seeds.subset", "seeds.init", "seeds.order", "epochs",
               "task.n", "optim.lr_peak", "optim.lr_muon", "optim.warmup",
               "optim.weight_decay", "optim.layer_decay", "optim.lora_plus",
               "regularize.wise", *SWITCHES)  # fmt: skip


def _check_shared(members: list[Member]) -> None:
    """Members may differ in MEMBER_KEYS only: another shape is another population.

    What one of SWITCHES switches on, all members have, or none.
    """
    first = _shared(members[0].settings)
    for one in members[1:]:
        if _shared(one.settings) != first:
            raise ValueError(f"{one.folder} differs in more than {MEMBER_KEYS}")


def _shared(settings: FinetuneSettings) -> dict:
    config = to_dict(settings)
    for key in MEMBER_KEYS:
        *groups, name = key.split(".")
        node = config
        for group in groups:
            node = node.setdefault(group, {})
        value = node.pop(name, None)
        if key in SWITCHES:
            node[name] = bool(value)
    return config


def identity(group: Sequence[Member]) -> str:
    """Names a group's checkpoints: runs of one name but another config share none."""
    return sha256_of([[one.folder.name, to_dict(one.settings)] for one in group])[:16]


def _forget(populations: pathlib.Path, group: Sequence[Member]) -> None:
    """Removes a group's checkpoints; others' stay."""
    shutil.rmtree(populations / identity(group), ignore_errors=True)
    if populations.exists() and not any(populations.iterdir()):
        populations.rmdir()


class _Shifted:
    """A progress bar that other members have already moved."""

    def __init__(self, progress: Progress, done: int, tokens: int):
        self.progress, self.done, self.tokens = progress, done, tokens

    def update(self, step: int, *, loss: float | None, tokens: float) -> None:
        self.progress.update(self.done + step, loss=loss, tokens=self.tokens + tokens)


def _train_group(crew, group, mode, populations, progress) -> None:
    """Trains members together, then writes each one's run folder."""
    plans = [crew.plans[one.folder] for one in group]
    stacked = population.stack([crew.padded_plan(plan) for plan in plans])
    hparams = population.stack(
        [
            optimizer.hyperparameters(
                one.settings.optim, plan.steps, one.settings.streams.order
            )
            | regularize.hyperparameters(one.settings.regularize, one.settings.model)
            for one, plan in zip(group, plans, strict=True)
        ]
    )
    state = population.stack(
        [
            step.init_state(
                crew.first_params(one.settings),
                one.settings.optim,
                one.settings.regularize,
            )
            for one in group
        ]
    )
    _check_phases(group[0].settings.optim, state.params, plans)
    advance, data = crew.advance(mode), crew.data_on_device()
    validation = crew.sets["validation"]

    def validate(state, members):
        return [
            classification.validation_record(
                validation.labels,
                crew.scorer.probabilities(
                    population.member(state.chosen, i),
                    crew.scoring["validation"],
                    len(validation),
                    crew.frozen,
                ),
            )
            for i in members
        ]

    tokens = [crew.tokens(one) for one in group]
    work = loop.Work(
        state=state,
        steps=[plan.steps for plan in plans],
        advance=lambda state, until: advance(data, state, stacked, hparams, until),
        validate=validate,
        data_state=lambda: None,
        set_data_state=lambda place: None,
        tokens_per_step=sum(tokens) / sum(plan.steps for plan in plans),
        chosen=lambda state: state.chosen,
        others=len(crew.plans) > 1,
    )
    folder = populations / identity(group)
    records = [RunRecord(one.folder) for one in group]
    checkpoints = Checkpoints(folder, group[0].settings.record.checkpoints_kept)
    ended = loop.train(
        work,
        records=records,
        checkpoints=checkpoints,
        settings=group[0].settings.record,
        progress=progress,
    )
    for i, one in enumerate(group):
        _finish(crew, one, records[i], population.member(ended["params"], i), mode,
                seconds=ended["seconds"] / len(group), steps=ended["steps"][i],
                stopped=ended["stopped"][i])  # fmt: skip
    checkpoints.close()
    _forget(populations, group)


def _check_phases(optim: OptimSettings, params: dict, plans: Sequence) -> None:
    """Refuses to unfreeze in more phases than there are steps."""
    phases = unfreeze.count_phases(optim.unfreeze, params)
    least = min(plan.steps for plan in plans)
    if least < phases:
        raise InputError(
            f"config.optim.unfreeze={optim.unfreeze!r} has {phases} phases, but a run"
            f" has {least} steps: some layer would never move; raise config.epochs"
        )


def _finish(crew, one, record, params, mode, *, seconds, steps, stopped) -> None:
    """Writes what a run ends with; the last record says that all of it is there.

    One whose loss is not finite leaves no parameters. It counts as a model that knows
    nothing: without its predictions a mean over the seeds that went well would flatter.
    """
    settings = one.settings
    lost = bool(stopped) and stopped["reason"] == "not finite"
    segments_TBL = crew.plans[one.folder].segments_TBL[:steps]
    tokens = segments_TBL.size
    if settings.regularize.wise < 1:
        params = between(params, crew.first_weights, settings.regularize.wise)
    results = {}
    for name, labelled in crew.sets.items():
        if lost:
            shape = len(labelled), len(crew.classes)
            probabilities_IC = np.full(shape, 1 / len(crew.classes))
        else:
            probabilities_IC = crew.scorer.probabilities(
                params, crew.scoring[name], len(labelled), crew.frozen
            )
        results[name] = classification.full_record(labelled.labels, probabilities_IC)
        write_predictions(
            one.folder / "predictions" / f"{name}.jsonl", labelled, probabilities_IC
        )
    write_json(one.folder / "classes.json", list(crew.classes))
    crew.tokenizer.save(one.folder / "tokenizer.json")
    params = jax.device_get(params)
    if not lost:
        save_params(one.folder / "params", params)
    record.write_manifest(
        {
            **manifest_facts(to_dict(settings)),
            "data": crew.data,
            "dtype": str(product_dtype(settings.model.dtype)),
            "parameters": parts.count(crew.whole(params)),
            "parameters_moving": parts.count(params),
            "init": crew.init_facts,
            "population_mode": mode,
            "seed": settings.seed,
            "tokens": tokens,
            "flops": crew.flops(one, params, tokens=tokens),
            "padding_share": padding_share(segments_TBL),
            "time_seconds": seconds,
        }
    )
    sha256 = None if lost else params_sha256(params)
    others = {name: results.pop(name) for name in settings.task.named_others}
    found = {**results, **({"others": others} if others else {})}
    record.finish(steps, sha256, **found, **parts.stop_fact(stopped))
    if lost:
        print(f"{one.folder.name} {early_end({'stopped': stopped})}; others go on")


def write_predictions(
    path: pathlib.Path, labelled: LabelledSet, probabilities_IC: np.ndarray
) -> None:
    """Writes one JSON line an item, in the set's order."""
    lines = []
    for i, row in enumerate(probabilities_IC):
        lines.append(
            json.dumps(
                {
                    "id": labelled.ids[i],
                    "label": labelled.classes[labelled.labels[i]],
                    "prediction": labelled.classes[int(row.argmax())],
                    "probabilities": {
                        name: round(float(p), 6)
                        for name, p in zip(labelled.classes, row, strict=True)
                    },
                    "text": labelled.texts[i],
                },
                ensure_ascii=False,
            )
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "\n".join(lines) + "\n")
