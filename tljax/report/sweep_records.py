"""Reads what a sweep has written down: the plan, one row a trial, the runs' curves.

WORKDIR/sweep.json          config, space, search, seeds, metric, direction
WORKDIR/trials.json         number, state, params, values (one a seed), order, seconds
WORKDIR/final.json          the winner's test score, if it was asked for
WORKDIR/trials/0017[-s1]/   a run folder, one a seed
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tljax.report import records
from tljax.settings import InputError
from tljax.train.files import read_json
from tljax.train.record import read_metrics

STATES = ("complete", "failed", "pruned", "running", "waiting")
SHARES = ("accuracy", "macro_f1", "ece")  # told in per cent
_PLAN = {"config": dict, "space": list, "search": str, "prune": str, "seeds": int,
         "trials": int, "metric": str, "direction": str}  # fmt: skip
_ROW = {"number": int, "state": str, "params": dict, "values": list}
_TEST = {"values": list, "mean": float, "low": float | None, "high": float | None}

Trial = Mapping[str, Any]


@dataclass(frozen=True)
class Sweep:
    """A sweep's work folder; `plan`, `trials` and `final` as the files have them."""

    folder: Path
    plan: dict[str, Any]
    trials: tuple[dict[str, Any], ...]
    final: dict[str, Any] | None

    @property
    def complete(self) -> tuple[dict[str, Any], ...]:
        """The trials that have a score, in the order of their numbers."""
        return tuple(row for row in self.trials if is_complete(row))

    @property
    def seconds(self) -> float:
        """Of all trials together."""
        return sum(row.get("seconds") or 0.0 for row in self.trials)

    @property
    def space(self) -> dict[str, dict[str, Any]]:
        """What was swept: key -> its kind, range or choices, and when it applies."""
        return {one["key"]: one for one in self.plan["space"]}


def is_complete(row: Trial) -> bool:
    """Whether a trial ended with a finite score of every seed."""
    return (
        row["state"] == "complete"
        and bool(row["values"])
        and all(value is not None and math.isfinite(value) for value in row["values"])
    )


def standard_error(values: Sequence[float]) -> float | None:
    """Of the mean over seeds; None with fewer than two of them."""
    if len(values) < 2:
        return None
    return float(np.std(values, ddof=1) / np.sqrt(len(values)))


def load_sweep(folder: Path | str) -> Sweep:
    """Reads a sweep's work folder.

    Raises:
      InputError: sweep.json or trials.json is missing, broken or lacks a key.
    """
    folder = Path(folder)
    plan = records.load_json(folder / "sweep.json")
    _check(plan, _PLAN, folder / "sweep.json")
    if plan["direction"] not in ("maximize", "minimize"):
        raise InputError(
            f"{folder / 'sweep.json'}: direction is {plan['direction']!r}, not"
            " 'maximize' or 'minimize'; bring the sweep's own back"
        )
    path = folder / "trials.json"
    trials = read_json(path)
    if not isinstance(trials, list):
        raise InputError(f"{path} is not a list of trials; bring the sweep's own back")
    for place, row in enumerate(trials):
        _check(row, _ROW, f"{path}, trial {place}")
        if row["state"] not in STATES:
            raise InputError(
                f"{path}, trial {place}: state is {row['state']!r}, not one of"
                f" {', '.join(STATES)}; bring the sweep's own back"
            )
        wrong = _wrong(row, plan["seeds"]) if row["state"] == "complete" else ""
        if wrong:
            raise InputError(
                f"{path}, trial {place}: {wrong}; bring the sweep's own back"
            )
    trials = sorted(trials, key=lambda row: row["number"])
    final = folder / "final.json"
    told = records.load_json(final) if final.exists() else None
    if told is not None:
        _check(told, {"trial": int, "test": dict}, final)
        _check(told["test"], _TEST, final)
    return Sweep(folder, plan, tuple(trials), told)


def _check(record: Any, kinds: Mapping[str, Any], where: Path | str) -> None:
    for key, kind in kinds.items():
        if not isinstance(record, dict) or not isinstance(record.get(key), kind):
            raise InputError(
                f"{where} has no usable {key!r}; bring the sweep's own back"
            )


def _wrong(row: Trial, seeds: int) -> str:
    """What a complete trial lacks; '' if nothing."""
    if len(row["values"]) != seeds:
        return f"{len(row['values'])} values where sweep.json says {seeds} seeds"
    if not isinstance(row.get("order"), int):
        return "complete without a place in the order of ending"
    return ""


def run_folders(sweep: Sweep, number: int) -> list[Path]:
    """The run folders of a trial, one a seed, by seed."""
    first = sweep.folder / "trials" / f"{number:04d}"
    seeds = range(1, sweep.plan["seeds"])
    return [first, *(first.with_name(f"{first.name}-s{seed}") for seed in seeds)]


def trial_curves(
    sweep: Sweep, number: int, keys: Sequence[str]
) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """A trial's validation curves: key -> (steps, values) of each seed, maybe empty.

    Args:
      sweep: of whose folder the runs are read; one that is not there has no curve.
      number: of the trial.
      keys: of metrics.jsonl, e.g. 'loss_nats'.
    """
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {key: [] for key in keys}
    for folder in run_folders(sweep, number):
        metrics = read_metrics(folder)
        for key in keys:
            found[key].append(records.curve(metrics, split="validation", key=key))
    return found


def place_of(one: Mapping[str, Any], value: Any) -> float:
    """Where a value lies in its key's space: 0 at the low end or first choice, 1 last.

    Args:
      one: the key's entry in `space` of sweep.json; a log range is measured as such.
      value: in the range, or one of the choices.
    """
    if one["kind"] == "choice":
        return one["choices"].index(value) / max(len(one["choices"]) - 1, 1)
    scale = math.log if one.get("log") else float
    low, high, at = (scale(number) for number in (one["low"], one["high"], value))
    return (at - low) / ((high - low) or 1.0)


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """key -> its last part, or the whole where two would read alike."""
    last = [key.rpartition(".")[2] for key in keys]
    pairs = zip(keys, last, strict=True)
    return {key: name if last.count(name) == 1 else key for key, name in pairs}


def is_share(metric: str) -> bool:
    """Whether a metric such as 'validation/accuracy' lies in [0, 1] by its nature."""
    return metric.rpartition("/")[2] in SHARES
