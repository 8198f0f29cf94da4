"""Rounds: their steps by hand, and what is told again from the records."""

import pytest

from tljax.train import rounds
from tljax.train.record import RunRecord


@pytest.mark.parametrize(
    ("steps", "count", "by_hand"),
    [(6, 3, [2, 4, 6]), (7, 3, [2, 5, 7]), (2, 3, [1, 2]), (1, 1, [1]), (0, 3, [])],
)
def test_rounds_are_evenly_spaced(steps, count, by_hand):
    assert rounds.boundaries(steps, count) == by_hand


@pytest.mark.parametrize(
    ("count", "validations", "by_hand"),
    [(4, 2, [1, 3]), (4, 0, []), (4, 9, [0, 1, 2, 3]), (3, 2, [1, 2])],
)
def test_validations_are_evenly_spaced(count, validations, by_hand):
    due = [i for i in range(count) if rounds.validation_due(i, count, validations)]
    assert due == by_hand


@pytest.fixture
def ended(tmp_path):
    """Runs of 4 and 8 steps; two lost patience or were pruned at step 4 of 8."""
    for name, every, last in (("a", 1, 4), ("b", 2, 8), ("c", 2, 4), ("d", 2, 4)):
        with RunRecord(tmp_path / name) as record:
            for step in range(every, last + 1, every):
                record.append({"step": step, "split": "train", "loss_nats": 0.0})
                row = {"step": step, "split": "validation", "loss_nats": step / every}
                record.append(row)
            reason = {"c": "patience", "d": "pruned"}.get(name)
            stop = {"step": 4, "of_steps": 8, "reason": reason}
            record.finish(last, "00", **({"stopped": stop} if reason else {}))
    return [tmp_path / name for name in "abcd"]


def test_runs_that_have_ended_are_told_of_as_they_were(ended):
    """Who lost patience had ended before the question, who was pruned by its answer."""
    told = []

    def note(looks, over):
        shares = {look.folder.name: look.share for look in looks}
        values = {look.record["loss_nats"] for look in looks}
        told.append((shares, values, {one.name for one in over}))
        return set(ended)

    rounds.tell_of_ended(note, ended, 4)
    assert told == [
        ({"a": 0.25, "b": 0.25, "c": 0.25, "d": 0.25}, {1.0}, set()),
        ({"a": 0.5, "b": 0.5, "c": 0.5, "d": 0.5}, {2.0}, {"c"}),
        ({"a": 0.75, "b": 0.75}, {3.0}, {"c", "d"}),
        ({"a": 1.0, "b": 1.0}, {4.0}, {"c", "d"}),
    ]
    rounds.tell_of_ended(None, ended, 4)  # nobody asks
