"""A sweep at work: its trials laid down, grouped, shown, trained, reported.

plan -> points -> groups (-> shown: what trains together) -> work_through -> trials.json
"""

import collections
import dataclasses
import functools
import importlib
import itertools
import math
import os
import pathlib
import threading
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from tljax.cli.members import Member
from tljax.cli.sweep import Plan
from tljax.cli.sweep.estimate import Estimate, estimate
from tljax.cli.sweep.runs import Runs, value_of
from tljax.cli.sweep.table import SweepTable, counted, point_text
from tljax.report.statistics import student_interval
from tljax.report.sweep_best import best_trials
from tljax.settings import InputError
from tljax.sweep.launch import LaunchError, work_through
from tljax.sweep.search import points as draw
from tljax.sweep.space import Point, from_rows
from tljax.sweep.study import (
    Study,
    Trial,
    hidden,
    lost_in_one_line,
    mend_journal,
)
from tljax.train.files import read_json, write_json
from tljax.train.progress import Progress, describe_seconds
from tljax.train.record import final_record, is_finished

_ESTIMATED = 24  # populations whose cost is worked out before the start, .4 s each
_ROUND = 4  # trials that TPE asks for at a time
_GROUP_DIGITS = 12  # of a program's hash: a whole number that JSON keeps
BAD = -1  # the group of points that no run can have


def runs_of(plan: Plan, folder: pathlib.Path) -> Runs:
    """The runs of a sweep, each population in a process of its own.

    This process, which estimates and then waits, leaves them an accelerator's memory.
    """
    environment = dict(os.environ)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    return Runs(
        folder, plan.config, seeds=plan.seeds, metric=plan.metric,
        overridden=plan.overridden, prune=plan.prune == "asha",
        environment=environment,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Laid:
    """What is known of a sweep's trials before it starts.

    Attributes:
      points: of each trial; () where they are chosen as results come.
      groups: the population of each; BAD = none.
      bad: number -> why no run can have its point.
    """

    points: Sequence[Point]
    groups: Sequence[int]
    bad: Mapping[int, str]


def show(plan: Plan, runs: Runs) -> Laid:
    """Prints what trains together and what it takes; writes nothing.

    Raises:
      InputError: no point can be trained, or a source cannot be used.
    """
    if plan.search != "tpe":
        points = _draw(plan)
        groups, bad = _groups(runs, points)
        many = len(set(groups) - {BAD})
        where = f"{many} processes one after another" if many > 1 else "a process"
        print(f"{_runs_in_all(plan)}, in {where}{_ended(runs.folder)}")
        _show_groups(plan, runs, points, groups, together=len(points))
        for number, reason in bad.items():
            print(f"  trial {number} cannot be trained: {reason}")
        return Laid(points, groups, bad)
    some = min(plan.trials, from_rows(plan.space).size)
    points = _draw(plan, search="random", trials=int(some))
    groups, _ = _groups(runs, points)
    print(
        f"{_runs_in_all(plan)}, chosen as results come, {_ROUND} trials at a time"
        f"{_ended(runs.folder)}; were they drawn at random:"
    )
    _show_groups(plan, runs, points, groups, together=_ROUND)
    return Laid((), (), {})


def work(
    plan: Plan,
    folder: pathlib.Path,
    *,
    worker: str,
    final: bool,
    export: pathlib.Path | None = None,
) -> None:
    """Trains what is left of a sweep and reports it.

    Args:
      plan: of the sweep.
      folder: its work folder, which no other command works in.
      worker: this worker's name, the same after a restart.
      final: whether the winner is scored on the test split.
      export: a .csv or .parquet file for the trials; None = none.
    """
    runs = runs_of(plan, folder)
    laid = show(plan, runs)
    if not plan.storage:
        mend_journal(folder / "journal.log")
    storage = plan.storage or str(folder / "journal.log")
    shared = plan.shared()
    with lost_in_one_line(storage), Study(storage, plan.study, worker, shared) as study:
        kept = dataclasses.replace(plan, storage=hidden(plan.storage))
        write_json(folder / "sweep.json", dataclasses.asdict(kept))
        _train(plan, study, runs, laid)
        trials = study.trials()
        scorer = worker if final else ""
        if final and plan.storage:  # others may be called so too
            scorer = study.scorer()
    _keep(folder, trials)
    if scorer == worker:
        _score_winner(plan, runs, trials, folder)
    elif scorer:
        print(f"--final: the test split is read once, by {scorer}; its report tells")
    from tljax.report.export_trials import export_trials  # late: see _read_ahead
    from tljax.report.hparams import write_hparams
    from tljax.report.sweep_page import write_sweep_report

    for line in write_sweep_report(folder)["sentences"]:
        print(line)
    print(f"report: {folder / 'report.html'}")
    write_hparams(folder)
    if export:
        print(f"trials: {export_trials(folder, export)}")


@functools.cache
def _read_ahead() -> None:
    """While populations train, what the report is made with is imported: seconds.

    Not sooner: every write to the study would wait for the thread that imports.
    """

    def read() -> None:
        for name in (
            "tljax.report.sweep_page",
            "tljax.report.hparams",
            "sklearn.ensemble",
        ):
            importlib.import_module(name)

    threading.Thread(target=read, daemon=True).start()


def _train(plan: Plan, study: Study, runs: Runs, laid: Laid) -> None:
    """Lays the trials down and works through them."""
    study.plan_trials(from_rows(plan.space), laid.points, laid.groups)
    study.reclaim()  # bad points too, of a worker that was killed here
    for number, reason in laid.bad.items():
        if study.claim([number]):
            study.finish(number, reason=reason)
    with SweepTable(plan.metric, plan.direction, plan.trials) as table:

        def tell() -> None:
            if table.due:
                trials = study.trials()
                table.show(trials)
                _keep(runs.folder, trials)

        def launch(trials: Sequence[Trial]) -> Iterator[None]:
            if trials[0].group == BAD:  # claimed by a worker that was killed then
                raise LaunchError(_reason(runs, trials[0].point))
            for _ in runs.launch(trials):
                _read_ahead()
                yield

        work_through(
            study, launch=launch, outcome=runs.outcome, parts=runs.parts, tell=tell,
            say=table.say,
            more=lambda: _ask(plan, study, runs) if plan.search == "tpe" else (),
        )  # fmt: skip
        table.show(study.trials(), last=True)


def _keep(folder: pathlib.Path, trials: Sequence[Trial]) -> None:
    """Writes trials.json, which reports read."""
    write_json(folder / "trials.json", [one.row() for one in trials])


def _draw(plan: Plan, **other) -> list[Point]:
    asked = {"search": plan.search, "seed": plan.seed, "trials": plan.trials, **other}
    return draw(from_rows(plan.space), **asked)


def _groups(runs: Runs, points: Sequence[Point]) -> tuple[list[int], dict[int, str]]:
    """The population of each point, and why those that have none are bad."""
    groups, bad = [], {}
    for number, point in enumerate(points):
        try:
            groups.append(runs.group(point))
        except InputError as error:
            groups.append(BAD)
            bad[number] = str(error)
    if len(bad) == len(points):
        raise InputError(f"no point of the space can be trained: {bad[0]}")
    return groups, bad


def _runs_in_all(plan: Plan) -> str:
    trials, seeds = counted(plan.trials, "trial"), counted(plan.seeds, "seed")
    return f"{trials} of {seeds} = {counted(plan.trials * plan.seeds, 'run')}"


def _ended(folder: pathlib.Path) -> str:
    """How many trials have ended already, if any."""
    path = folder / "trials.json"
    rows = read_json(path) if path.exists() else []
    ended = sum(one["state"] not in ("waiting", "running") for one in rows)
    return f"; {counted(ended, 'trial')} ended before" if ended else ""


def _show_groups(plan, runs, points, groups, *, together) -> None:
    """A line a population, of which so many trials train at a time."""
    costs = _costs(plan, runs, points, groups, together)
    counts = collections.Counter(one for one in groups if one != BAD)
    for group, count in sorted(counts.items()):
        mine = [
            point for point, own in zip(points, groups, strict=True) if own == group
        ]
        alike = {
            key: value
            for key, value in mine[0].items()
            if all(one.get(key) == value for one in mine)
        }
        told = point_text(alike) if count > 1 else point_text(mine[0])
        what = "a population" if plan.config["kind"] == "finetune" else "in turn"
        took, cost = "", costs.get(group)
        if cost:
            seconds = describe_seconds(cost.seconds)
            took = f" (about {seconds}, {cost.bytes / 1e9:.1f} GB)"
        held = counted(count * plan.seeds, "run")
        print(f"  {group}: {held}, {what} {told}".rstrip() + took)
    seconds = sum(one.seconds for one in costs.values()) / len(costs) * len(counts)
    print(f"  in all about {describe_seconds(seconds)}")


def _costs(plan, runs, points, groups, together) -> dict[int, Estimate]:
    """What each population will take; of many, the first few."""
    mine: dict[int, list[Point]] = {}
    for point, group in zip(points, groups, strict=True):
        if group != BAD:
            mine.setdefault(group, []).append(point)
    found = {}
    for group, own in itertools.islice(mine.items(), _ESTIMATED):
        members = [
            Member(settings, folder)
            for number, point in enumerate(own[:together])
            for settings, folder in zip(
                runs.settings(point), runs.folders(number), strict=True
            )
        ]
        if plan.config["kind"] == "pretrain":  # one after another
            one, times = estimate(members[:1]), len(own) * plan.seeds
        else:
            one = estimate(members, together=plan.prune == "asha")
            times = math.ceil(len(own) / together)
        found[group] = dataclasses.replace(one, seconds=one.seconds * times)
    return found


def _ask(plan: Plan, study: Study, runs: Runs) -> list[Trial]:
    """The next trials of TPE; those of another population wait for their turn."""
    space, asked = from_rows(plan.space), []
    while len(study.trials()) < plan.trials:  # others ask too
        one = study.ask(
            space, seed=plan.seed, group=lambda point: _group_of(runs, point)
        )
        if one.group == BAD:
            study.finish(one.number, reason=_reason(runs, one.point))
        else:
            asked.append(one)
        if len(asked) == _ROUND:
            break
    first = [one for one in asked if one.group == asked[0].group]
    study.give_back([one.number for one in asked if one not in first])
    return first


def _group_of(runs: Runs, point: Point) -> int:
    """The same at all workers, whatever each of them has seen."""
    try:
        return int(runs.program(point)[:_GROUP_DIGITS], 16)
    except InputError:
        return BAD


def _reason(runs: Runs, point: Point) -> str:
    try:
        runs.settings(point)
    except InputError as error:
        return str(error)
    return ""


def _score_winner(plan, runs, trials, folder) -> None:
    path = folder / "final.json"
    best = best_trials([one.row() for one in trials], plan.direction).best
    if best is None:
        raise InputError("--final: no trial has a value, so there is no winner")
    winner = next(one for one in trials if one.number == best)
    if path.exists():
        if read_json(path)["trial"] != winner.number:
            raise InputError(
                f"the test split was read for trial {read_json(path)['trial']} and the"
                f" best is now {winner.number}; a second look would be a choice by test"
                " items: start a sweep in another --workdir"
            )
        return
    seen = [
        (folder / "final" / f"s{seed}", settings)
        for seed, settings in enumerate(runs.settings(winner.point, final=True))
    ]
    with Progress("final", 1) as progress:
        try:
            for _ in runs.run("final", seen):
                pass
        except LaunchError as error:
            raise InputError(
                f"--final: trial {winner.number} could not be trained again:"
                f" {error.reason}; the sweep itself is kept"
            ) from error
        progress.update(1)
    finals = [final_record(one) for one, _ in seen]
    tried = [one for one in runs.folders(winner.number) if is_finished(one)]
    hashes = [final_record(one)["params_sha256"] for one in tried]
    metric = plan.metric.replace("validation/", "test/")
    values = [value_of(one, metric) for one in finals]
    sure = student_interval(np.array(values)) if len(values) > 1 else None
    write_json(
        path,
        {
            "trial": winner.number,
            "params": winner.point,
            "test": {
                "values": values,
                "mean": sum(values) / len(values),
                **({"low": sure.low, "high": sure.high} if sure else {}),
            },
            "folders": [str(one.relative_to(folder)) for one, _ in seen],
            # None: another worker has its runs
            "repeated_exactly": hashes == [one["params_sha256"] for one in finals]
            if tried
            else None,
        },
    )
