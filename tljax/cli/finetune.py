"""Fine-tuning, from a labelled set to run folders: a population of runs.

    source -> labelled sets -> subset and plan a member -> train -> params, predictions

Members share everything but MEMBER_KEYS (seed, n, epochs, rates ...); `train` is a
population of one.
"""

import contextlib
import copy
import json
import pathlib
from collections.abc import Sequence

import jax
import numpy as np

from tljax.cli import parts
from tljax.cli.contradictions import check
from tljax.cli.crew import Crew
from tljax.cli.members import (
    Division,
    Member,
    Population,
    check_shared,
    forget_checkpoints,
    forget_population,
    identity,
    keep_ends,
    mesh_of,
    read_division,
    write_division,
    write_ends,
)
from tljax.data.labelled import LabelledSet
from tljax.data.packing import padding_share
from tljax.evaluate import classification
from tljax.metrics.classification import full_record
from tljax.model.product import product_dtype
from tljax.settings import (
    InputError,
    OptimSettings,
    to_dict,
)
from tljax.sweep.prune import Prune
from tljax.train import (
    loop,
    memory,
    population,
    sharding,
    unfreeze,
)
from tljax.train.checkpoint import Checkpoints, params_sha256, save_params
from tljax.train.files import write_json, write_text
from tljax.train.progress import Progress, Shifted
from tljax.train.record import (
    RunRecord,
    early_end,
    keep_data,
    manifest_facts,
    open_run,
)
from tljax.train.rounds import tell_of_ended

_STILL = 1e-3  # share of the learning rate with which a layer hardly moves


def finetune(
    members: list[Member],
    *,
    populations: pathlib.Path,
    title: str = "fine-tune",
    prune: Prune | None = None,
    others: bool = False,
) -> None:
    """Runs or resumes the members; those that have ended stay as they are.

    Args:
      members: runs that differ in MEMBER_KEYS only.
      populations: folder of the checkpoints while training; empty when all have ended.
      title: of the progress bar.
      prune: says after validations which members end, others being better. They then
        train side by side, as many as memory allows, whatever the mode.
      others: whether runs that are not here go on: then a member whose loss is not
        finite ends, with a record that says so, also where it is the only one.

    Raises:
      InputError: something given cannot be used; nothing is overwritten.
    """
    parts.prepare_devices(mesh := mesh_of(members))  # first: checks trace programs
    for one in members:
        check(one.settings)
    check_shared(members)
    sharding.make_mesh(mesh)
    ended = {
        one.folder: open_run(one.folder, to_dict(one.settings), "finetune")
        for one in members
    }
    division = read_division(populations, members)
    for group in division.groups(members) if division else ():
        if write_ends(populations, group):  # killed before all of them were written
            ended |= dict.fromkeys((one.folder for one in group), True)
    _tell_of_layer_decay(members)
    rounds = members[0].settings.record.rounds
    if all(ended.values()):  # killed, perhaps, before it could tidy up
        tell_of_ended(prune, [one.folder for one in members], rounds)
        forget_population(populations, members, division)
        return
    seen = copy.deepcopy(prune.asha.state) if prune else None
    crew = Crew(members)
    for one in members:
        keep_data(one.folder, crew.data.facts)
    division = division or _divide(crew, members, populations, prune)
    whole = Population(members, division, prune, seen, others or len(members) > 1)
    plans = [crew.data.plans[one.folder] for one in members]
    done = done_tokens = 0
    with Progress(title, sum(plan.steps for plan in plans)) as progress:
        for group in division.groups(members):
            # a group stays whole while one of it is open: nothing depends on when
            if all(ended[one.folder] for one in group):
                tell_of_ended(prune, [one.folder for one in group], rounds)
                forget_checkpoints(populations, group)
            else:
                bar = Shifted(progress, done, done_tokens)
                _train_group(crew, group, whole, populations, bar)
            done += sum(crew.data.plans[one.folder].steps for one in group)
            done_tokens += sum(crew.tokens(one) for one in group)
    forget_population(populations, members, division)


def _divide(crew: Crew, members: Sequence[Member], populations, prune) -> Division:
    """As memory allows, and that is written down.

    Who trains in turn does so one after another, unless they are to be compared.
    """
    mode, devices = population.choose_mode(len(members)), crew.mesh.shape["run"]
    fit, said = memory.members_together(
        len(members), needed=crew.member_bytes(mode), devices=devices,
        free=memory.free_bytes(devices), block=prune.seeds if prune else 1,
    )  # fmt: skip
    side_by_side = mode == "vmap" or prune is not None
    if side_by_side and said:
        print(said)
    division = Division(mode, fit if side_by_side else devices)
    write_division(populations, members, division)
    return division


def _tell_of_layer_decay(members: Sequence[Member]) -> None:
    """One line where the lowest layers as good as stand still."""
    depth = members[0].settings.model.depth
    least = min(one.settings.optim.layer_decay for one in members) ** depth
    if members[0].settings.init.source and least < _STILL:
        print(
            f"config.optim.layer_decay leaves the lowest of {depth} layers {least:.0e}"
            " of the learning rate; for deep models take 0.9 to 1.0"
        )


def _train_group(crew, group, whole, populations, progress) -> None:
    """Trains members of a population together, then writes each one's run folder."""
    mode = whole.division.mode
    plans = [crew.data.plans[one.folder] for one in group]
    _check_phases(group[0].settings.optim, crew.state_shapes.params, plans)
    mesh = crew.mesh
    stacked = population.assemble((crew.data.padded_plan(plan) for plan in plans), mesh)
    hparams = population.assemble(
        (
            crew.hyperparameters(one.settings, steps=plan.steps)
            for one, plan in zip(group, plans, strict=True)
        ),
        mesh,
    )
    advance, data = crew.advance(mode), crew.data_on_device()
    with parts.aside(*crew.compilations(mode, data, stacked, hparams)):
        state = population.assemble((crew.first_state(one) for one in group), mesh)
    validation = crew.data.sets["validation"]
    latest = {}  # of a member, what it said of the validation split when last asked

    def validate(state, due):
        found = crew.probabilities(group, state.chosen, "validation", mode, due)
        latest.update(zip(due, found, strict=True))
        return [
            classification.validation_record(validation.labels, one)
            if np.isfinite(one).all()
            else None
            for one in found
        ]

    def advance_all(state, until):
        until = population.padded(list(until), mesh, fill=0)
        return advance(data, state, stacked, hparams, np.int32(until))

    tokens = [crew.tokens(one) for one in group]
    work = loop.Work(
        state=state,
        steps=[plan.steps for plan in plans],
        advance=advance_all,
        validate=validate,
        data_state=lambda: None,
        set_data_state=lambda place: None,
        tokens_per_step=sum(tokens) / sum(plan.steps for plan in plans),
        chosen=lambda state: state.chosen,
        others=whole.others,
        pruned=whole.prune,
    )
    folder = populations / identity(group)
    kept = group[0].settings.record.checkpoints_kept
    with contextlib.ExitStack() as opened:
        records = [opened.enter_context(RunRecord(one.folder)) for one in group]
        checkpoints = opened.enter_context(
            contextlib.closing(Checkpoints(folder, kept))
        )
        ended = loop.train(
            work,
            records=records,
            checkpoints=checkpoints,
            settings=group[0].settings.record,
            progress=progress,
        )
        params = crew.kept(group, ended["params"])
        sound = [i for i, stop in enumerate(ended["stopped"]) if not _lost(stop)]
        if params is not work.chosen(work.state):
            latest.clear()  # what is kept is not what was asked last
        scored = {name: {} for name in crew.data.sets} | {"validation": latest}
        for name, found in scored.items():
            left = [i for i in sound if i not in found]
            if left:
                said = crew.probabilities(group, params, name, mode, left)
                found.update(zip(left, said, strict=True))
        ends = []
        for i, one in enumerate(group):
            if not all(
                np.isfinite(found[i]).all() for found in scored.values() if i in found
            ):
                stop = {"step": ended["steps"][i], "of_steps": plans[i].steps}
                ended["stopped"][i] = {**stop, "reason": "not finite"}
            ends.append(_write_run(
                crew, one, records[i], population.member(params, i, mesh),
                {name: found.get(i) for name, found in scored.items()},
                whole.facts(one, group),
                seconds=ended["seconds"] / len(group), steps=ended["steps"][i],
                stopped=ended["stopped"][i],
            ))  # fmt: skip
    keep_ends(populations, group, ends)
    for one, stop in zip(group, ended["stopped"], strict=True):
        if _lost(stop):
            print(f"{one.folder.name} {early_end({'stopped': stop})}; others go on")
    forget_checkpoints(populations, group)


def _check_phases(optim: OptimSettings, params: dict, plans: Sequence) -> None:
    """Refuses to unfreeze in more phases than there are steps."""
    phases = unfreeze.count_phases(optim.unfreeze, params)
    least = min(plan.steps for plan in plans)
    if least < phases:
        raise InputError(
            f"config.optim.unfreeze={optim.unfreeze!r} has {phases} phases, but a run"
            f" has {least} steps: some layer would never move; raise config.epochs"
        )


def _lost(stopped):
    """Whether a member ended because its loss is not finite."""
    return bool(stopped) and stopped["reason"] == "not finite"


def _write_run(
    crew, one, record, params, scored, facts, *, seconds, steps, stopped
) -> dict:
    """Writes what a run ends with, but for the last record, which it returns.

    One whose loss is not finite leaves no parameters. It counts as a model that knows
    nothing: without its predictions a mean over the seeds that went well would flatter.
    """
    settings = one.settings
    lost = _lost(stopped)
    segments_TBL = crew.data.plans[one.folder].segments_TBL[:steps]
    tokens = segments_TBL.size
    results = {}
    for name, labelled in crew.data.sets.items():
        if lost:
            shape = len(labelled), len(crew.data.classes)
            probabilities_IC = np.full(shape, 1 / len(crew.data.classes))
        else:
            probabilities_IC = scored[name]
        results[name] = full_record(labelled.labels, probabilities_IC)
        write_predictions(
            one.folder / "predictions" / f"{name}.jsonl", labelled, probabilities_IC
        )
    write_json(one.folder / "classes.json", list(crew.data.classes))
    crew.data.tokenizer.save(one.folder / "tokenizer.json")
    params = jax.device_get(params)
    if not lost:
        save_params(one.folder / "params", params)
    record.write_manifest(
        {
            **manifest_facts(to_dict(settings)),
            "data": crew.data.facts,
            "dtype": str(product_dtype(settings.model.dtype)),
            "parameters": parts.count(crew.start.whole(params)),
            "parameters_moving": parts.count(params),
            "init": crew.start.facts,
            "population": facts,
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
    end = {"step": steps, "params_sha256": sha256}
    return end | found | parts.stop_fact(stopped)


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
