"""Which trial is best: by hand."""

import numpy as np
import pytest

from tljax.report.sweep_best import best_trials, edges, expected_bests, scores_in_order


def trial(number, values, state="complete", order=0):
    return {"number": number, "state": state, "values": values, "order": order}


# Student's t at 2 degrees of freedom is 4.303: the differences .01 .02 .03 give
# .02 +- 4.303 x .01 / sqrt(3) = .02 +- .0248, and .01 .011 .012 give .011 +- .0025.
TRIALS = [
    trial(3, [0.79, 0.889, 0.988]),
    trial(5, [0.80, 0.90, 1.00]),
    trial(8, [0.79, 0.88, 0.97]),
    trial(9, [], "failed"),
]


def test_trials_are_compared_by_paired_seeds():
    found = best_trials(TRIALS, "maximize")
    assert found.order == (5, 3, 8)
    assert found.best == 5
    assert found.interval.low == pytest.approx(0.9 - 4.3027 * 0.1 / 3**0.5, abs=1e-5)
    # 3 lies nearer to the best than 8, but steadily so; unpaired both would be alike
    assert found.alike == (8,)
    assert found.differences[8].high == pytest.approx(0.02 + 0.02484, abs=1e-5)
    assert found.differences[3].low == pytest.approx(0.011 - 0.002484, abs=1e-5)


def test_minimize_turns_the_order_round():
    found = best_trials(TRIALS, "minimize")
    assert found.order == (8, 3, 5)
    assert found.differences[5].mean == pytest.approx(-0.02)
    # what is worse by a steady .011 is told apart in this direction too
    assert best_trials(TRIALS[:2], "minimize").alike == ()


def test_equal_trials_are_alike_and_the_first_is_best():
    found = best_trials([trial(7, [0.5, 0.6]), trial(2, [0.5, 0.6])], "maximize")
    assert (found.best, found.alike) == (2, (7,))


def test_one_seed_tells_no_difference():
    found = best_trials([trial(0, [0.5]), trial(1, [0.9])], "maximize")
    assert (found.best, found.interval, found.alike) == (1, None, ())


@pytest.mark.parametrize(
    "row",
    [
        trial(0, [], "running"),
        trial(0, [0.9, 0.9], "pruned"),
        trial(0, [0.9, None]),
        trial(0, [0.9, float("nan")]),
    ],
)
def test_a_trial_without_a_score_is_passed_over(row):
    assert best_trials([row], "maximize").best is None
    assert best_trials([row, trial(1, [0.1, 0.2])], "maximize").order == (1,)
    assert scores_in_order([row]) == []


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="paired by seed"):
        best_trials([trial(0, [1.0]), trial(1, [1.0, 2.0])], "maximize")
    with pytest.raises(ValueError, match="direction 'up'"):
        best_trials([], "up")


@pytest.mark.parametrize(
    ("params", "found"),
    [
        ({"optim.lr_peak": 1e-3}, {}),
        ({"optim.lr_peak": 1.3e-5}, {"optim.lr_peak": "lower"}),  # 4 % of log range
        ({"optim.lr_peak": 1.6e-5}, {}),  # 7 %
        ({"optim.lr_peak": 8e-3}, {"optim.lr_peak": "upper"}),
        ({"transfer.rank": 16}, {"transfer.rank": "upper"}),
        ({"transfer.rank": 1}, {}),  # no rank below 1
        ({"optim.weight_decay": 0.1}, {"optim.weight_decay": "upper"}),
        ({"optim.weight_decay": 0}, {}),  # nothing below 0
        ({"optim.weight_decay": 0.01}, {}),
        ({"transfer.method": "lora"}, {}),  # names have no order
    ],
)
def test_edges(sweep, params, found):
    assert edges(sweep.space, params) == found


@pytest.mark.parametrize(
    ("choices", "found"),
    [
        ([6, 4, 2], {"k": "lower"}),
        ([2, 6, 4], {"k": "lower"}),
        ([4, 1, 2], {}),
        ([0, 1, 2], {"k": "upper"}),
        ([2, 3], {}),
        ([2, "3", 4], {}),
        ([2, 2.5, 4], {"k": "lower"}),
    ],
)
def test_edges_of_choices_need_an_order(choices, found):
    one = {"key": "k", "kind": "choice", "choices": choices}
    assert edges([one], {"k": 2}) == found


@pytest.mark.parametrize(("low", "found"), [(0.0, {}), (0.005, {"k": "lower"})])
def test_a_range_that_begins_at_nought_has_no_lower_edge(low, found):
    one = {"key": "k", "kind": "float", "low": low, "high": 0.3, "log": False}
    assert edges([one], {"k": 0.01}) == found


def test_two_seeds_of_the_same_difference_tell_nothing():
    ranking = best_trials([trial(0, [0.8, 0.9]), trial(1, [0.7, 0.8])], "maximize")
    assert ranking.best == 0 and ranking.alike == (1,)
    rows = [trial(0, [0.8, 0.9, 0.7]), trial(1, [0.7, 0.8, 0.6])]
    assert best_trials(rows, "maximize").alike == ()


def test_scores_come_in_the_order_of_ending():
    rows = [
        trial(0, [0.1], order=2),
        trial(1, [0.2], order=0),
        trial(2, [0.3], order=1),
    ]
    assert scores_in_order(rows) == [0.2, 0.3, 0.1]


def test_expected_best_by_hand_in_both_directions():
    # pairs of 1 2 4: best 2 4 4, or 1 1 2
    means, deviations = expected_bests([4.0, 1.0, 2.0], "maximize")
    assert means == pytest.approx([7 / 3, 10 / 3, 4.0])
    assert deviations == pytest.approx([np.std([1, 2, 4]), np.std([2, 4, 4]), 0.0])
    means, deviations = expected_bests([4.0, 1.0, 2.0], "minimize")
    assert means == pytest.approx([7 / 3, 4 / 3, 1.0])
    assert deviations[1] == pytest.approx(np.std([1, 1, 2]))
    assert expected_bests([], "maximize") == ([], [])
