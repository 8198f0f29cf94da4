"""Rounds: after which steps a run is recorded and validated, and what was seen then.

    steps 8, rounds 4, validations 2      2 . 4 v 6 . 8 v

Who ends a run because others are better (`Work.pruned`) hears a `Look` a validation.
All it ever heard stands in metrics.jsonl: a job that goes on hears it again from there,
so that nothing else of it must be kept.
"""

import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tljax.train.record import final_record, read_metrics


class Look(NamedTuple):
    """One validation of a run.

    Attributes:
      folder: of the run.
      share: of the run's rounds that are over, above 0; 1 = it has ended.
      record: its "validation" record.
    """

    folder: pathlib.Path
    share: float
    record: Mapping[str, Any]


# (the looks of one round, folders of runs that had ended early) -> folders to end now
Pruned = Callable[[list[Look], set[pathlib.Path]], set[pathlib.Path]]


def boundaries(steps: int, rounds: int) -> list[int]:
    """The steps after which a run is recorded: at most `rounds`, evenly spaced."""
    rounds = min(rounds, steps)
    return [round(steps * (i + 1) / rounds) for i in range(rounds)]


def validation_due(index: int, rounds: int, validations: int) -> bool:
    """Whether a run validates after a round: evenly over all, the last one included."""
    return (index + 1) * validations // rounds > index * validations // rounds


def tell_again(
    pruned: Pruned,
    folders: Sequence[pathlib.Path],
    ends: Sequence[Sequence[int]],
    stopped: Sequence[Mapping[str, Any] | None],
) -> None:
    """Says once more what is on record, round by round; its answers are history.

    Args:
      pruned: hears it.
      folders: of the runs that train together.
      ends: `boundaries` of each.
      stopped: of each, as `loop.train` has it.
    """
    looks: dict[int, list[Look]] = {}
    for folder, own in zip(folders, ends, strict=True):
        for row in read_metrics(folder):
            if row.get("split") == "validation":
                index = own.index(row["step"])
                look = Look(folder, (index + 1) / len(own), row)
                looks.setdefault(index, []).append(look)
    for index in sorted(looks):
        pruned(looks[index], set(_ended_before(index, folders, ends, stopped)))


def _ended_before(index, folders, ends, stopped) -> Iterator[pathlib.Path]:
    """Who had ended when that round was asked about; its answer came afterwards."""
    for folder, own, stop in zip(folders, ends, stopped, strict=True):
        if stop:
            here = own[min(index, len(own) - 1)]
            answered = stop["reason"] == "pruned" and stop["step"] == here
            if stop["step"] <= here and not answered:
                yield folder


def tell_of_ended(
    pruned: Pruned | None, folders: Sequence[pathlib.Path], rounds: int
) -> None:
    """`tell_again` of runs that trained together and have all ended."""
    if pruned is None:
        return
    finals = [final_record(folder) for folder in folders]
    stopped = [final.get("stopped") for final in finals]
    ends = [
        boundaries(stop["of_steps"] if stop else final["step"], rounds)
        for final, stop in zip(finals, stopped, strict=True)
    ]
    tell_again(pruned, folders, ends, stopped)
