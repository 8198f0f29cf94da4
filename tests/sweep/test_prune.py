"""ASHA by hand: rungs, who goes on, seeds, what is passed on."""

import dataclasses
import json
import pathlib

import pytest

from tljax.settings import InputError, RecordSettings
from tljax.sweep import prune


@pytest.mark.parametrize(
    ("shares", "by_hand"),
    [
        ([0.25, 0.5, 0.75, 1.0], [2, 1, 1, 0]),
        ([1 / 9, 1 / 3, 2 / 3], [2, 1, 1]),
        ([0.05, 0.1, 0.3], [3, 3, 2]),
    ],
)
def test_rungs(shares, by_hand):
    assert [prune.rung_of(share) for share in shares] == by_hand
    assert prune.rung_of(0.5, eta=2) == 1 and prune.rung_of(0.49, eta=2) == 2


def test_the_best_third_goes_on_of_all_seen_so_far():
    asha = prune.Asha("maximize")
    assert asha.decide(2, {0: 0.5, 1: 0.4}) == set()  # fewer than three
    assert asha.decide(2, {2: 0.3}) == {2}  # of .5 .4 .3 only .5 is in the best third
    assert asha.decide(2, {3: 0.6}) == set()
    assert asha.decide(2, {4: 0.5}) == {4}  # one of five: .6
    assert asha.decide(2, {5: 0.5, 6: 0.1}) == {6}  # two of seven: .6 and .5
    assert asha.decide(1, {6: 0.1}) == set()  # another rung knows nobody


def test_as_good_as_the_last_of_the_best_is_good_enough():
    asha = prune.Asha("minimize", eta=2)
    assert asha.decide(1, {0: 1.0, 1: 1.0, 2: 1.0, 3: 2.0}) == {3}


def test_what_others_saw_is_passed_on_as_json():
    first = prune.Asha("minimize")
    first.decide(1, {0: 1.0, 1: 2.0})
    seen = json.loads(json.dumps(first.state))
    second = prune.Asha("minimize", seen=seen)
    assert second.decide(1, {7: 3.0}) == {7}
    assert second.state == {"1": {"0": 1.0, "1": 2.0, "7": 3.0}}
    assert first.state == {"1": {"0": 1.0, "1": 2.0}}  # a copy


def folders(*names):
    return [pathlib.Path(name) for name in names]


@pytest.fixture
def three():
    """Three trials of two runs each, and what has already been seen of none."""
    trials = {i: folders(f"{i}", f"{i}-s1") for i in range(3)}
    return prune.Prune(prune.Asha("maximize"), trials, "validation/accuracy")


def looks(share, **values):
    return [
        (pathlib.Path(name[1:].replace("_", "-")), share, {"accuracy": value})
        for name, value in values.items()
    ]


def test_a_trial_is_judged_by_the_mean_of_its_runs_and_they_end_together(three):
    found = looks(0.5, r0=0.9, r0_s1=0.1, r1=0.6, r1_s1=0.6, r2=0.2, r2_s1=0.3)
    assert three(found, set()) == set(folders("0", "0-s1", "2", "2-s1"))
    assert three.asha.state == {"1": {"0": 0.5, "1": 0.6, "2": 0.25}}
    assert three(looks(0.75, r1=0.0, r1_s1=0.0), set(folders("0"))) == set()
    assert three(looks(1.0, r1=0.0, r1_s1=0.0), set(folders("0"))) == set()
    assert three.asha.state == {"1": {"0": 0.5, "1": 0.6, "2": 0.25}}


def test_a_trial_waits_for_all_runs_that_go_on(three):
    assert three(looks(0.4, r0=0.5, r1=0.6, r2=0.1, r2_s1=0.1), set()) == set()
    assert three.asha.state == {"1": {"2": 0.1}}
    # its value is that of the first validation at the rung, not of the latest
    assert three(looks(0.6, r0=0.0), set()) == set()
    assert three(looks(0.5, r0_s1=0.5, r1_s1=0.6), set()) == set(folders("0", "0-s1"))
    assert three.asha.state == {"1": {"0": 0.5, "1": 0.6, "2": 0.1}}


def test_a_run_that_ended_early_is_not_waited_for(three):
    three(looks(0.2, r0=0.9, r0_s1=0.1), set())
    three(looks(0.5, r0_s1=0.2), set(folders("0")))
    assert three.asha.state == {"2": {"0": 0.5}, "1": {"0": 0.2}}


def test_a_metric_is_found_with_and_without_its_split():
    found = [(pathlib.Path("0"), 0.5, {"accuracy": 0.1, "n": 3})]
    for metric in ("validation/accuracy", "accuracy"):
        one = prune.Prune(prune.Asha("maximize"), {0: folders("0")}, metric)
        assert one(found, set()) == set() and one.asha.state == {"1": {"0": 0.1}}
    one = prune.Prune(prune.Asha("maximize"), {0: folders("0")}, "validation/macro_f1")
    with pytest.raises(InputError, match="macro_f1 is not .* measured are accuracy:"):
        one(found, set())


def test_a_record_without_a_rung_is_refused():
    record = RecordSettings(rounds=8, validations=2, checkpoint_seconds=1.0,
                            checkpoints_kept=1, choose="last")  # fmt: skip
    prune.check(record)
    for change in ({"validations": 1}, {"rounds": 1}):
        with pytest.raises(InputError, match="raise both to 3 or more"):
            prune.check(dataclasses.replace(record, **change))
