"""Trials as runs: a point -> settings and run folders -> a process -> its metric.

trials/0017       the run of the first seed; further seeds: trials/0017-s1, ...
groups/NAME.json  a population that was started; NAME.log what it said
"""

import contextlib
import copy
import dataclasses
import functools
import io
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from tljax.cli.sweep.group import NO_MEMORY
from tljax.data.sources import open_source
from tljax.metrics.classification import full_record
from tljax.settings import SETTINGS_OF_KIND, InputError, from_config, to_dict
from tljax.sweep import prune as prune_
from tljax.sweep.launch import LaunchError, Outcome
from tljax.sweep.space import Point, identity
from tljax.sweep.study import Trial
from tljax.train.files import read_json, sha256_of, write_json
from tljax.train.record import early_end, final_record, is_finished, read_record
from tljax.train.rounds import tell_of_ended

_POLL_SECONDS = 0.2
_STOP_SECONDS = 60.0  # that a stopped population has to keep what it did
SMALLER_IS_BETTER = ("ece", "nll_nats", "bits_per_byte")


class Runs:
    """The runs of a sweep's trials.

    Args:
      folder: the sweep's.
      config: the base config, plain dicts.
      seeds: runs a trial, by seeds config.seed, config.seed + 1, ...
      metric: path into a run's last record, e.g. 'validation/accuracy'.
      overridden: keys of the config that the command line set.
      prune: whether ASHA ends trials early.
      environment: of the processes; None = this one's.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        config: Mapping[str, Any],
        *,
        seeds: int,
        metric: str,
        overridden: Sequence[str],
        prune: bool = False,
        environment: Mapping[str, str] | None = None,
    ):
        self.folder, self.config = folder, config
        self.seeds, self.metric, self.overridden = seeds, metric, overridden
        self.prune, self.environment = prune, environment
        self._asha = prune_.Asha(direction_of(metric))
        self._told: set[int] = set()
        self._groups: dict[str, int] = {}
        self._made: dict[str, list[Any]] = {}

    def folders(self, number: int) -> list[pathlib.Path]:
        """Of a trial's runs, one a seed."""
        name = f"{number:04d}"
        names = [name, *(f"{name}-s{i}" for i in range(1, self.seeds))]
        return [self.folder / "trials" / name for name in names]

    def settings(self, point: Point, *, final: bool = False) -> list[Any]:
        """Of a trial's runs, one a seed, checked; the test split is seen if final.

        Raises:
          InputError: the point's values contradict each other or are out of range.
        """
        name = f"{identity(point)}{final}"
        if name not in self._made:
            # what is said of the architecture is the same of every point
            said = io.StringIO() if self._made else sys.stdout
            with contextlib.redirect_stdout(said):
                self._made[name] = self._settings(point, final)
        return self._made[name]

    def _settings(self, point: Point, final: bool) -> list[Any]:
        from tljax.cli.contradictions import check
        from tljax.cli.models import adopt_architecture  # late: imports JAX
        from tljax.cli.pretrain import check as check_pretrain

        config = copy.deepcopy(dict(self.config))
        for key, value in point.items():
            node = config
            *groups, name = key.split(".")
            for group in groups:
                node = node.setdefault(group, {})
            node[name] = value
        if config["kind"] == "finetune":
            config["task"]["score_test"] = final
            if not final:
                config["task"].pop("others", None)
        else:
            config["corpus"]["heldout_split"] = "test" if final else "validation"
        made = from_config(SETTINGS_OF_KIND[config["kind"]], config)
        made = adopt_architecture(made, [*self.overridden, *point])
        (check if made.kind == "finetune" else check_pretrain)(made)
        if made.kind == "finetune":
            _check_labels(made.task.n, made.task.source)
        if self.prune:
            prune_.check(made.record)
        return [
            dataclasses.replace(made, seed=made.seed + seed)
            for seed in range(self.seeds)
        ]

    def program(self, point: Point) -> str:
        """Names what a point shares with those that it can train together with."""
        from tljax.cli.members import program_of

        first = self.settings(point)[0]
        # pre-training runs are no population: each is on its own
        alike = program_of(first) if first.kind == "finetune" else to_dict(first)
        return sha256_of(alike)

    def group(self, point: Point) -> int:
        """The number of the population that a point trains in; asked in order."""
        return self._groups.setdefault(self.program(point), len(self._groups))

    def launch(self, trials: Sequence[Trial]) -> Iterator[None]:
        """Trains trials in a process of their own; yields while it runs.

        Raises:
          LaunchError: it ended early.
        """
        name = self._started_as([one.number for one in trials])
        if not self._group_file(name).exists():  # a new one: of what has not ended
            trials = [one for one in trials if not self.outcome(one)]
            if not trials:
                return
        runs = {
            number: list(zip(self.folders(number), self.settings(point), strict=True))
            for number, point in self._points(name, trials)
        }
        asked = {}
        if self.prune:
            asked["prune"] = {
                "direction": direction_of(self.metric),
                "metric": self._judged_by,
                "seen": self._seen(runs),
                "trials": {
                    number: [str(folder) for folder, _ in mine]
                    for number, mine in runs.items()
                },
            }
        yield from self.run(
            name, [one for mine in runs.values() for one in mine], asked
        )

    def run(
        self,
        name: str,
        runs: Sequence[tuple[pathlib.Path, Any]],
        asked: Mapping[str, Any] = MappingProxyType({}),
    ) -> Iterator[None]:
        """Trains runs as the process `name`, which is told `asked`; see `launch`."""
        path = self._group_file(name)
        kept = read_json(path) if path.exists() else {}
        members = [
            {"folder": str(folder), "config": to_dict(settings)}
            for folder, settings in runs
        ]
        populations = str(self.folder / "populations")
        job = {"populations": populations, "members": members, **asked}
        write_json(path, {**kept, **job})
        with open(path.with_suffix(".log"), "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tljax.cli.sweep.group", str(path)],
                stdin=subprocess.PIPE, stdout=log, stderr=log, env=self.environment,
                start_new_session=True,  # Ctrl-C is ours to pass on, once
            )  # fmt: skip
            try:
                while process.poll() is None:
                    time.sleep(_POLL_SECONDS)
                    yield
            except BaseException:
                _stop(process)
                raise
            finally:
                process.stdin.close()
        if process.returncode:
            said = _last_line(path.with_suffix(".log"))
            if said.startswith("cannot write"):  # a full disk fails no trial
                raise InputError(said)
            killed = process.returncode < 0
            if not killed:
                _forget(path)
            if process.returncode == 2:
                raise LaunchError(said)
            told = {
                NO_MEMORY: "memory was out",
                -signal.SIGKILL: "it was killed, as happens where memory is out",
            }
            raise LaunchError(
                told.get(process.returncode, f"its process broke off: {said}"),
                killed=killed,
            )
        path.unlink()

    def parts(self, trials: Sequence[Trial]) -> list[list[Trial]]:
        """Claimed trials of one group, as they were divided when this was stopped."""
        left, found = {one.number: one for one in trials}, []
        for path in sorted((self.folder / "groups").glob("*.json")):
            there = _numbers(path)
            if there & left.keys() and self._all_ended(there - left.keys()):
                found.append([left.pop(n) for n in sorted(there) if n in left])
        return [*found, list(left.values())] if left else found

    def _all_ended(self, numbers: Iterable[int]) -> bool:
        return all(is_finished(run) for one in numbers for run in self.folders(one))

    @property
    def _judged_by(self) -> str:
        return f"validation/{self.metric.removeprefix('validation/')}"

    def _seen(self, among: Collection[int]) -> Mapping[str, Mapping[str, float]]:
        """`Asha.state` of this folder's trials that have ended, but for some.

        Read from their records, so that it hangs neither on when nor on kills.
        """
        for folder in sorted((self.folder / "trials").glob("*")):
            number = int(folder.name) if folder.name.isdecimal() else None
            if number is None or number in self._told or number in among:
                continue
            runs = self.folders(number)
            if all(is_finished(one) for one in runs):
                judge = prune_.Prune(self._asha, {number: runs}, self._judged_by)
                rounds = read_json(runs[0] / "config.json")["record"]["rounds"]
                tell_of_ended(judge, runs, rounds)
                self._told.add(number)
        return self._asha.state

    def outcome(self, trial: Trial) -> Outcome | None:
        """What came of a trial, from its run folders; None while one has not ended."""
        folders = self.folders(trial.number)
        if not all((one / "manifest.json").exists() for one in folders):
            return None
        if not all(is_finished(one) for one in folders):
            return None
        finals = [final_record(one) for one in folders]
        seconds = sum(
            read_record(one / "manifest.json").get("time_seconds", 0) for one in folders
        )
        reasons = [early_end(one) for one in finals]
        if any(one["params_sha256"] is None for one in finals):
            return Outcome(seconds=seconds, reason=next(filter(None, reasons)))
        values = tuple(value_of(one, self.metric) for one in finals)
        pruned = [
            early_end(one)
            for one in finals
            if (one.get("stopped") or {}).get("reason") == "pruned"
        ]
        if pruned:
            return Outcome(values, seconds, reason=pruned[0], pruned=True)
        return Outcome(values, seconds)

    def _group_file(self, name: str) -> pathlib.Path:
        return self.folder / "groups" / f"{name}.json"

    def _started_as(self, numbers: Sequence[int]) -> str:
        """The population that these trials were started in, or a new one's name.

        A population that was stopped goes on whole: its checkpoints are of all members.
        One of which another worker has taken trials in the meantime is forgotten.
        """
        for path in sorted((self.folder / "groups").glob("*.json")):
            there = _numbers(path)
            if there >= set(numbers) and self._all_ended(there - set(numbers)):
                return path.stem
            if there & set(numbers):
                _forget(path)
        return f"{min(numbers):04d}x{len(numbers)}"

    def _points(
        self, name: str, trials: Sequence[Trial]
    ) -> list[tuple[int, dict[str, Any]]]:
        path = self._group_file(name)
        if path.exists():
            return [(number, point) for number, point in read_json(path)["trials"]]
        points = [(one.number, one.point) for one in trials]
        write_json(path, {"trials": points})
        return points


def value_of(final: Mapping[str, Any], metric: str) -> float:
    """A number of a run's last record.

    Raises:
      InputError: it has none of that name.
    """
    node: Any = final
    for name in metric.split("/"):
        node = node.get(name) if isinstance(node, Mapping) else None
    value = node.get("value") if isinstance(node, Mapping) else None
    if value is None:
        raise InputError(f"--metric={metric} is not in the last record of a run")
    return float(value)


def metrics_of(kind: str) -> list[str]:
    """What --metric may be, for runs of a kind."""
    if kind == "pretrain":
        return ["bits_per_byte"]
    names = full_record(np.array([0, 1]), np.full((2, 2), 0.5))
    return [f"validation/{name}" for name in names]


def direction_of(metric: str) -> str:
    """'maximize', or 'minimize' where smaller is better."""
    small = metric.rpartition("/")[2] in SMALLER_IS_BETTER
    return "minimize" if small else "maximize"


def _check_labels(n: int, uri: str) -> None:
    there = _labels(uri)
    if n > there:
        raise InputError(
            f"config.task.n is {n}, but {uri} has {there} labelled training items;"
            f" allowed: 1 to {there}, or 0 for all"
        )


@functools.cache
def _labels(uri: str) -> int:
    return len(open_source(uri).examples("train"))


def _numbers(path: pathlib.Path) -> set[int]:
    """Of a population's trials."""
    return {number for number, _ in read_json(path).get("trials", [])}


def _forget(path: pathlib.Path) -> None:
    """Removes a population that does not go on as it is, with its checkpoints."""
    from tljax.cli.members import forget_population, member_of, read_division

    job = read_json(path)
    path.unlink()
    members = [
        member_of(one["config"], one["folder"]) for one in job.get("members", [])
    ]
    if members:
        populations = pathlib.Path(job["populations"])
        forget_population(populations, members, read_division(populations, members))


def _stop(process: subprocess.Popen) -> None:
    """Ends a population as Ctrl-C does: with a checkpoint."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _last_line(log: pathlib.Path) -> str:
    lines = [one for one in log.read_text("utf-8", "replace").splitlines() if one]
    said = lines[-1] if lines else "it said nothing"
    return said.removeprefix("tljax sweep: error: ")
