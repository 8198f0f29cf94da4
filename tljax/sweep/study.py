"""The study of a sweep: what every trial is, who works on it, what came of it.

    plan -> WAITING -> claimed: RUNNING -> COMPLETE | FAIL | PRUNED
                ^------- its worker is gone

Kept by Optuna: a journal file, SQLite, or a server that several workers share. A trial
is claimed by one change of state, of which the storage grants each to one worker only.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import random
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from tljax.settings import InputError
from tljax.sweep.space import Dimension, Point, Space
from tljax.train.files import canonical_json, disk_full, write_error
from tljax.train.record import differing_keys

STATES = {
    TrialState.WAITING: "waiting",
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.FAIL: "failed",
    TrialState.PRUNED: "pruned",
}
LOST_SECONDS = 120.0  # a worker that says nothing for so long is gone
UNSIGNED_SECONDS = 20.0  # ... or that was killed between claiming and signing
_PLAN = "plan"
_ALIVE = "alive "  # a worker's sign of life, new every time
_SCORER = " --final"  # of the study beside, in which workers ask for the test split
SCHEMES = ("sqlite://", "postgresql://")
HIDDEN = "***"  # stands for a password where a storage is named or kept
_LOOKS = 10  # at a database whose tables others are just making
_MADE_AT_ONCE = (sqlalchemy.exc.IntegrityError, sqlalchemy.exc.ProgrammingError)
_STARTUP = 10  # trials that TPE draws at random, as its authors' default


@dataclasses.dataclass(frozen=True)
class Trial:
    """One point and what is known of it.

    Attributes:
      number: its place in the study, from 0.
      point: key -> value.
      state: one of STATES' words.
      group: the population that it trains in.
      values: the metric of each seed; () until it has ended.
      value: their mean; None where there is none.
      reason: why it failed or was pruned.
      seconds: that it took.
      order: place in the order of ending; None until then.
    """

    number: int
    point: Point
    state: str
    group: int
    values: tuple[float, ...] = ()
    value: float | None = None
    reason: str = ""
    seconds: float = 0.0
    order: int | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do."""
        return self.state in ("complete", "failed", "pruned")

    def row(self) -> dict[str, Any]:
        """As trials.json has it."""
        found = dataclasses.asdict(self)
        return {"params": found.pop("point"), **found, "values": list(self.values)}


class Study:
    """The trials of one sweep, seen by one worker.

    Raises:
      InputError: the storage cannot be reached, or holds another sweep of that name.
    """

    def __init__(self, storage: str, name: str, worker: str, plan: Mapping[str, Any]):
        """Opens or makes it.

        Args:
          storage: a URL as 'sqlite:///FILE' or 'postgresql://...', or a journal's file.
          name: of the study.
          worker: this worker's own name; the same after a restart.
          plan: as JSON; that of the study if it is there.
        """
        self.worker, self.name, self.plan = worker, name, dict(plan)
        self._opened = contextlib.ExitStack()
        self._ids: dict[int, int] = {}
        # of those who hold trials: the last sign of life, when it was first seen here
        self._signs: dict[str | int, tuple[Any, float]] = {}
        self._storage = _open(storage, self._opened)
        directions = [
            {
                "maximize": optuna.study.StudyDirection.MAXIMIZE,
                "minimize": optuna.study.StudyDirection.MINIMIZE,
            }[plan["direction"]]
        ]
        try:
            self._id = self._storage.create_new_study(directions, name)
            self._storage.set_study_user_attr(self._id, _PLAN, canonical_json(plan))
        except optuna.exceptions.DuplicatedStudyError:
            self._id = self._storage.get_study_id_from_name(name)
            self._compare(storage)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends the connection."""
        self._opened.close()

    def __enter__(self) -> "Study":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _compare(self, storage: str) -> None:
        theirs = self._attribute(_PLAN)
        for _ in range(50):  # another worker is just making it
            if theirs is not None:
                break
            time.sleep(0.1)
            theirs = self._attribute(_PLAN)
        if theirs is None:  # it was killed before it said of what plan it is
            theirs = canonical_json(self.plan)
            self._storage.set_study_user_attr(self._id, _PLAN, theirs)
        if theirs != canonical_json(self.plan):
            self.close()
            old, new = json.loads(theirs), json.loads(canonical_json(self.plan))
            differ = next(iter(differing_keys(old, new, "sweep")))
            raise InputError(
                f"{hidden(storage)} holds a study {self.name!r} of another sweep"
                f" ({differ}); give --study=NAME for one of its own"
            )

    def _attribute(self, name: str) -> Any:
        return self._storage.get_study_user_attrs(self._id).get(name)

    def plan_trials(
        self, space: Space, points: Sequence[Point], groups: Sequence[int]
    ) -> None:
        """Lays down the trials that are not there yet, in order of number.

        Workers that come at once may both do it: the first of a number counts.
        """
        there = {trial.number for trial in self.trials()}
        for number, (point, group) in enumerate(zip(points, groups, strict=True)):
            if number not in there:
                self._storage.create_new_trial(
                    self._id, _template(space, point, number, group)
                )

    def ask(self, space: Space, *, seed: int, group: Callable[[Point], int]) -> Trial:
        """A trial of this worker's, at the next point of TPE from all that is known.

        Source: Bergstra et al. 2011; Optuna's, with the constant liar for those that
        still run.
        """
        with warnings.catch_warnings():
            kind = optuna.exceptions.ExperimentalWarning
            warnings.simplefilter("ignore", kind)
            sampler = optuna.samplers.TPESampler(
                seed=seed + len(self.trials()),  # a restart does not repeat
                n_startup_trials=_STARTUP,
                multivariate=True,
                group=True,
                constant_liar=True,
            )
        study = optuna.load_study(
            study_name=self.name, storage=self._storage, sampler=sampler
        )
        asked = study.ask()
        _suggest(asked, space)
        for name, value in (
            ("group", group(asked.params)),
            ("worker", self.worker),
            ("number", asked.number),  # last: who has none is no trial of ours yet
        ):
            asked.set_user_attr(name, value)
        return next(one for one in self.trials() if one.number == asked.number)

    def claim(self, numbers: Sequence[int]) -> list[Trial]:
        """Those of some waiting trials that are now this worker's.

        The first is asked for first: who does not get it gets none, so that two workers
        do not tear a population apart.
        """
        ours = []
        for index, number in enumerate(sorted(numbers)):
            trial_id = self._id_of(number)
            if self._change(trial_id, TrialState.RUNNING):
                self._storage.set_trial_user_attr(trial_id, "worker", self.worker)
                ours.append(number)
            elif index == 0:
                return []
        by_number = {one.number: one for one in self.trials()}
        return [by_number[number] for number in ours]

    def _change(self, trial_id: int, state: TrialState, values=None) -> bool:
        try:
            return self._storage.set_trial_state_values(trial_id, state, values)
        except optuna.exceptions.UpdateFinishedTrialError:
            return False

    def finish(
        self,
        number: int,
        *,
        values: Sequence[float] = (),
        seconds: float = 0.0,
        reason: str = "",
        pruned: bool = False,
    ) -> None:
        """Writes down what came of a trial of this worker's.

        Args:
          number: of the trial.
          values: the metric of each seed; () = it failed.
          seconds: that it took.
          reason: why it failed or was pruned.
          pruned: whether it was.
        """
        found = {
            "values": list(values),
            "seconds": round(seconds, 3),
            "reason": reason,
            "order": sum(trial.ended for trial in self.trials()),
        }
        state = TrialState.PRUNED if pruned else TrialState.COMPLETE
        with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
            self._finish(self._id_of(number), values, state, found)

    def _finish(self, trial_id, values, state, found) -> None:
        self._storage.set_trial_user_attr(trial_id, "found", found)
        if values:
            self._change(trial_id, state, [sum(values) / len(values)])
        else:
            self._change(trial_id, TrialState.FAIL)

    def give_back(self, numbers: Sequence[int]) -> None:
        """Trials of this worker's that wait again; those that others have now stay."""
        for number in numbers:
            there = self._storage.get_trial(self._id_of(number))
            if there.user_attrs.get("worker") == self.worker:
                self._let_go(there._trial_id)

    def _let_go(self, trial_id: int) -> None:
        # The name goes first: who claims the trial next has not signed it at once, and
        # must not be taken for the last owner.
        with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
            self._storage.set_trial_user_attr(trial_id, "worker", "")
            self._change(trial_id, TrialState.WAITING)

    def reclaim(self) -> None:
        """Trials wait again whose worker is gone: this one as it was, or one silent.

        How long others have said nothing is what this worker's own clock makes of it:
        those of several machines need not agree.
        """
        told, now = self._storage.get_study_user_attrs(self._id), time.monotonic()
        before, self._signs = self._signs, {}
        for frozen in self._numbered().values():
            if frozen.state is not TrialState.RUNNING:
                continue
            worker = frozen.user_attrs.get("worker", "")
            who = worker or frozen._trial_id
            sign = told.get(_ALIVE + worker) if worker else None
            seen, since = before.get(who, (sign, now))
            since = since if seen == sign else now
            self._signs[who] = sign, since
            lost = now - since > (LOST_SECONDS if worker else UNSIGNED_SECONDS)
            if lost or worker == self.worker:
                fresh = self._storage.get_trial(frozen._trial_id)
                # of two who find it lost, the other may have claimed it by now
                if (fresh.state, fresh.user_attrs) == (frozen.state, frozen.user_attrs):
                    self._let_go(frozen._trial_id)
                    self._signs.pop(who, None)

    def scorer(self) -> str:
        """The worker that reads the test split: this one if it is the first to ask.

        Who was first, the storage tells: it numbers the trials of a study one by one,
        and of those of a second study, one a worker that has asked, the first counts.
        """
        name = f"{self.name}{_SCORER}"
        with contextlib.suppress(optuna.exceptions.DuplicatedStudyError):
            self._storage.create_new_study([optuna.study.StudyDirection.NOT_SET], name)
        study = self._storage.get_study_id_from_name(name)

        def asked() -> list[str]:
            trials = self._storage.get_all_trials(study, deepcopy=False)
            return [one.user_attrs["worker"] for one in trials]

        if self.worker not in asked():
            mine = optuna.trial.create_trial(
                state=TrialState.FAIL, user_attrs={"worker": self.worker}
            )
            self._storage.create_new_trial(study, mine)
        return asked()[0]

    def say_alive(self) -> None:
        """Others see that this worker has not gone; more often than LOST_SECONDS."""
        self._storage.set_study_user_attr(self._id, _ALIVE + self.worker, time.time())

    def trials(self) -> list[Trial]:
        """All of them, by number."""
        return [_trial(one) for _, one in sorted(self._numbered().items())]

    def _numbered(self) -> dict[int, FrozenTrial]:
        """The first trial of each number: what two planners made twice counts once."""
        found: dict[int, FrozenTrial] = {}
        for one in self._storage.get_all_trials(self._id, deepcopy=False):
            if "number" in one.user_attrs:
                found.setdefault(one.user_attrs["number"], one)
        return found

    def _id_of(self, number: int) -> int:
        """The storage's own name of a trial; it never changes."""
        if number not in self._ids:
            self._ids = {n: one._trial_id for n, one in self._numbered().items()}
        return self._ids[number]


def _trial(frozen: FrozenTrial) -> Trial:
    kept = frozen.user_attrs
    found = kept.get("found", {}) if frozen.state.is_finished() else {}
    return Trial(
        number=kept["number"],
        point=dict(frozen.params),
        state=STATES[frozen.state],
        group=kept["group"],
        values=tuple(found.get("values", ())),
        value=frozen.value if found.get("values") else None,
        reason=found.get("reason", ""),
        seconds=found.get("seconds", 0.0),
        order=found.get("order"),
    )


def _template(space: Space, point: Point, number: int, group: int) -> FrozenTrial:
    distributions = {
        one.key: _distribution(one) for one in space.dimensions if one.key in point
    }
    return optuna.trial.create_trial(
        state=TrialState.WAITING,
        params=dict(point),
        distributions=distributions,
        user_attrs={"number": number, "group": group},
    )


def _distribution(one: Dimension) -> BaseDistribution:
    if one.kind == "choice":
        return CategoricalDistribution(one.choices)
    kind = IntDistribution if one.kind == "int" else FloatDistribution
    return kind(one.low, one.high, log=one.log)


def _suggest(trial: optuna.Trial, space: Space) -> None:
    """Draws every key that counts, in order."""
    point: Point = {}
    for one in space.dimensions:
        if not one.counts(point):
            continue
        if one.kind == "choice":
            point[one.key] = trial.suggest_categorical(one.key, one.choices)
        elif one.kind == "int":
            point[one.key] = trial.suggest_int(
                one.key, int(one.low), int(one.high), log=one.log
            )
        else:
            point[one.key] = trial.suggest_float(
                one.key, one.low, one.high, log=one.log
            )


def mend_journal(path: pathlib.Path) -> None:
    """What a worker that was killed while it wrote leaves: a lock, half a line.

    Nobody else may work with the journal.
    """
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    if path.exists():
        text = path.read_bytes()
        whole = text.rfind(b"\n") + 1
        if whole < len(text):
            os.truncate(path, whole)


@contextlib.contextmanager
def lost_in_one_line(storage: str) -> Iterator[None]:
    """A storage that goes away while it is used, or is full, is an InputError."""
    try:
        yield
    except OSError as error:
        if disk_full(error):
            raise write_error(pathlib.Path(storage), error) from error
        raise
    except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.DBAPIError) as error:
        why = str(error.__cause__ or error).strip().splitlines()[0]
        raise InputError(
            f"--storage={hidden(storage)} was lost: {why}; call the sweep again when it"
            " is back: what had ended is kept, the rest goes on from its checkpoints"
        ) from error


def hidden(storage: str) -> str:
    """A storage's name without its password."""
    storage = re.sub(r"(//[^:/@]*):[^@]*@", rf"\1:{HIDDEN}@", storage)
    return re.sub(r"([?&]password=)[^&]*", rf"\1{HIDDEN}", storage)


def _tables(url: str) -> RDBStorage:
    """Optuna's tables in a database, made if they are not there.

    Of workers that come at once to an empty database one makes them; what stops the
    others is over when they look again.
    """
    for _ in range(_LOOKS - 1):
        try:
            return RDBStorage(url)
        except sqlalchemy.exc.DBAPIError as error:
            at_once = isinstance(error, _MADE_AT_ONCE) or "already exists" in str(error)
            if not at_once:
                raise
            time.sleep(random.uniform(0.2, 0.6))
    return RDBStorage(url)


def _lock_before_reading(engine: sqlalchemy.Engine) -> None:
    """SQLite's transactions begin by locking the file.

    As its driver has it, two workers that look at a trial before either changes it
    would both be granted it (SQLAlchemy's documentation, 'Serializable isolation').
    """
    engine.dispose()  # connections that were made without
    sqlalchemy.event.listen(
        engine, "connect", lambda made, _: setattr(made, "isolation_level", None)
    )
    sqlalchemy.event.listen(
        engine, "begin", lambda held: held.exec_driver_sql("BEGIN IMMEDIATE")
    )


def _open(storage: str, opened: contextlib.ExitStack) -> optuna.storages.BaseStorage:
    """The storage behind a URL or a journal's file. Raises: InputError."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if "://" not in storage:
        return JournalStorage(JournalFileBackend(storage))
    shown = hidden(storage)
    if not storage.startswith(SCHEMES):
        raise InputError(
            f"--storage={shown} is of no kind that keeps a study; allowed:"
            f" {', '.join(SCHEMES)}"
        )
    try:
        found = _tables(storage.replace("postgresql://", "postgresql+psycopg://"))
    except ImportError as error:
        raise InputError(
            f"--storage={shown} needs a driver ({error}); pip install 'tljax[postgres]'"
        ) from error
    except (sqlalchemy.exc.SQLAlchemyError, ValueError) as error:
        why = str(error.__cause__ or error).strip().splitlines()[0]
        raise InputError(
            f"--storage={shown} cannot be reached: {why}; mend that, or leave --storage"
            " out for a journal in the work folder"
        ) from error
    if found.engine.dialect.name == "sqlite":
        _lock_before_reading(found.engine)
    opened.callback(found.engine.dispose)
    opened.callback(found.remove_session)
    return optuna.storages.get_storage(found)
