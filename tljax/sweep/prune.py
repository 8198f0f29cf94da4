"""Which runs of a sweep end early because others are better: ASHA.

    share of a trial's steps   1/9      1/3      1        eta = 3
    rung                        2        1       (0)
    trials that go on        best 1/3  best 1/3

A trial stands at rung k from its first validation at or past 1/eta^k of its rounds,
with the value found there; a validation that passes several rungs is of the last of
them. It goes on if it is among the best floor(n/eta) of the n values seen at this rung
so far, or as good as the last of these; where fewer than eta are known, all go on.

Source: Li et al. 2020, 'A system for massively parallel hyperparameter tuning',
algorithm 2, turned round: there a trial waits at a rung until it is promoted, here it
goes on unless it is ended, and who was ended is not taken up again.
"""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tljax.settings import InputError, RecordSettings

ETA = 3
_ROUNDING = 1e-9


def rung_of(share: float, eta: int = ETA) -> int:
    """The highest rung that a share of a trial's rounds has reached; 0 = its end.

    Args:
      share: above 0, at most 1.
      eta: of the rungs 1/eta^k.
    """
    rung = 0
    while share * eta**rung < 1 - _ROUNDING:
        rung += 1
    return rung


class Asha:
    """Values by rung, and who goes on.

    Args:
      direction: 'maximize' or 'minimize'.
      seen: `state` of another, e.g. of trials that were trained before; copied.
      eta: one of so many goes on.

    Attributes:
      state: {rung: {trial: value}}, all that was seen; keys are text, as in JSON.
    """

    def __init__(
        self,
        direction: str,
        *,
        seen: Mapping[str, Mapping[str, float]] | None = None,
        eta: int = ETA,
    ):
        if direction not in ("maximize", "minimize"):
            raise ValueError(f"direction {direction!r}: 'maximize' or 'minimize'")
        self.direction, self.eta = direction, eta
        self._sign = 1 if direction == "maximize" else -1
        self.state = {rung: dict(values) for rung, values in (seen or {}).items()}

    def decide(self, rung: int, values: Mapping[int, float]) -> set[int]:
        """Notes what trials have reached at a rung; those that come together count so.

        Args:
          rung: above 0.
          values: finite, by trial.

        Returns:
          Which of these trials are to end.
        """
        known = self.state.setdefault(str(rung), {})
        known |= {str(trial): float(value) for trial, value in values.items()}
        if len(known) < self.eta:
            return set()
        scores = self._sign * np.array(list(known.values()))
        least = np.sort(scores)[-(len(scores) // self.eta)]
        return {trial for trial, value in values.items() if self._sign * value < least}


class Prune:
    """Asha over run folders: what `finetune` and `pretrain` take as `prune`.

    A trial's value at a rung is the mean over its runs that stand there; it is judged
    when all of them do that have not ended early, and they end together. Make a new one
    for every call: what a call that goes on had seen, it hears again from the records.

    Args:
      asha: decides.
      trials: run folders of each trial, those of its seeds.
      metric: of the "validation" records, e.g. 'validation/accuracy', 'bits_per_byte'.
    """

    def __init__(
        self, asha: Asha, trials: Mapping[int, Sequence[pathlib.Path]], metric: str
    ):
        self.asha, self.trials, self.metric = asha, trials, metric
        self._trial_of = {one: trial for trial, runs in trials.items() for one in runs}
        # {folder: {rung: value}}, and the last rung at which a trial was judged
        self._reached = {folder: {} for folder in self._trial_of}
        self._judged = dict.fromkeys(trials, math.inf)

    def of(self, folder: pathlib.Path) -> "Prune":
        """The same for one run that trains alone."""
        trial = self._trial_of[folder]
        return Prune(self.asha, {trial: [folder]}, self.metric)

    @property
    def seeds(self) -> int:
        """Most runs of a trial: they had better train together."""
        return max(map(len, self.trials.values()))

    def __call__(
        self,
        looks: Sequence[tuple[pathlib.Path, float, Mapping[str, Any]]],
        ended: set[pathlib.Path],
    ) -> set[pathlib.Path]:
        """Folders of the runs to end; arguments as of `train.rounds.Pruned`."""
        for folder, share, record in looks:
            rung = rung_of(share, self.asha.eta)
            self._reached[folder].setdefault(rung, self._value(record))
        here = {folder for folder, *_ in looks}
        values: dict[int, dict[int, float]] = {}
        for trial in sorted({self._trial_of[folder] for folder in here}):
            runs = self.trials[trial]
            rung = max(
                min(self._reached[one], default=math.inf)
                for one in runs
                if one in here or one not in ended
            )
            if 0 < rung < self._judged[trial]:
                self._judged[trial] = rung
                at = values.setdefault(rung, {})
                at[trial] = self._mean(runs, rung)
        stop = set()
        for rung, reached in values.items():
            stop |= self.asha.decide(rung, reached)
        return {folder for trial in stop for folder in self.trials[trial]}

    def _mean(self, runs, rung) -> float:
        """Over the runs that have reached a rung, each where it first did."""
        found = []
        for one in runs:
            reached = [k for k in self._reached[one] if k <= rung]
            if reached:
                found.append(self._reached[one][max(reached)])
        return float(np.mean(found))

    def _value(self, record) -> float:
        key = self.metric.removeprefix("validation/")
        if key not in record:
            there = [k for k, v in record.items() if isinstance(v, float)]
            raise InputError(
                f"--metric={self.metric} is not measured while a run trains, so that"
                " --prune=asha cannot go by it; measured are"
                f" {', '.join(k for k in there if k[:5] != 'time_')}: take one of them,"
                " or --prune=none"
            )
        return float(record[key])


def check(record: RecordSettings, eta: int = ETA) -> None:
    """Refuses a record that no rung lies in.

    Raises:
      InputError: every validation is the run's last.
    """
    if min(record.validations, record.rounds) < 2:
        raise InputError(
            f"--prune=asha ends runs after a validation before their last, but"
            f" config.record.validations={record.validations} and"
            f" config.record.rounds={record.rounds}; raise both to {eta} or more"
        )
