"""Spread, failures, shares and the best of k: by hand, by brute force, by trial."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from tljax.report import spread


def test_spread_test_by_hand():
    # |x - median|: 1 0 1 and 2 0 2; Levene's F is t^2 of those, t = -.6667 / .7454.
    calm_S, wild_S = np.array([-1.0, 0, 1]), np.array([-2.0, 0, 2])
    t = (2 / 3 - 4 / 3) / math.sqrt((1 / 3 + 4 / 3) / 3)
    want = stats.t.cdf(t, 4)
    assert spread.spread_test(calm_S, wild_S) == pytest.approx(want, rel=1e-12)
    assert spread.spread_test(wild_S, calm_S) == pytest.approx(1 - want, rel=1e-12)


def test_spread_test_where_deviations_do_not_vary():
    still_S, heaps_S = np.ones(4), np.array([0.0, 2, 0, 2])
    assert spread.spread_test(still_S, still_S) == 1.0
    assert spread.spread_test(still_S, heaps_S) == 0.0
    assert spread.spread_test(heaps_S, still_S) == 1.0


@pytest.mark.parametrize("scores", [[1.0, 2.0], [1.0, 2.0, math.nan]])
def test_spread_refuses_what_it_cannot_judge(scores):
    with pytest.raises(ValueError, match="3 or more finite numbers"):
        spread.spread_test(np.array(scores), np.arange(5.0))
    with pytest.raises(ValueError, match="no ratio of spreads"):
        spread.spread_ratio(np.ones(6), np.arange(6.0))


def test_spread_ratio_knows_scale_and_side():
    rng = np.random.default_rng(0)
    calm_S, wild_S = rng.normal(size=20), 2 * rng.normal(size=25)
    found = spread.spread_ratio(calm_S, wild_S)
    assert found.mean == pytest.approx(calm_S.std(ddof=1) / wild_S.std(ddof=1))
    assert found.low < found.mean < found.high
    back = spread.spread_ratio(wild_S, calm_S)
    assert (1 / back.high, 1 / back.low) == pytest.approx((found.low, found.high))
    moved = spread.spread_ratio(3 * calm_S + 1, 3 * wild_S - 9)
    assert moved.low == pytest.approx(found.low)


def test_spread_ratio_s_interval_covers():
    rng = np.random.default_rng(1)
    covered, repeats = 0, 1000
    for _ in range(repeats):
        found = spread.spread_ratio(rng.normal(size=20), 2 * rng.normal(size=20))
        covered += found.low <= 0.5 <= found.high
    # four standard errors below 95 %; it is meant to be on the safe side of it
    assert 0.95 - 4 * math.sqrt(0.05 * 0.95 / repeats) <= covered / repeats < 0.995


def test_failures_by_hand():
    # 0 of 3 against 3 of 3: one table of C(6, 3) = 20 is as extreme.
    assert spread.failure_test(0, 3, 3, 3) == pytest.approx(1 / 20)
    assert spread.failure_test(3, 3, 0, 3) == 1.0
    assert spread.failure_test(0, 20, 0, 20) == 1.0
    assert spread.failure_threshold(0.5, 100) == pytest.approx(0.6)


def test_difference_of_failure_rates_is_newcombe_s():
    # Newcombe 1998, table II, method 10: 56/70 - 48/80 is +.2 (.0524 to .3339).
    found = spread.failure_difference(56, 70, 48, 80)
    assert (found.mean, found.low, found.high) == pytest.approx(
        (0.2, 0.0524, 0.3339), abs=5e-5
    )
    none = spread.failure_difference(0, 20, 0, 20)
    assert none.mean == 0 and none.low == -none.high < -0.1


def grid(rng, weights, orders, *, init, order, rest):
    """One run for each of both, whose three sources have these SDs."""
    return (
        init * rng.normal(size=(weights, 1))
        + order * rng.normal(size=(1, orders))
        + rest * rng.normal(size=(weights, orders))
    )


def test_shares_by_hand():
    # init -2 0 2, order -1 1, rest zero: MS_init 8, MS_order 6, so 8/2 = 4 and 6/3 = 2.
    scores_WO = np.array([[-2.0], [0], [2]]) + np.array([[-1.0, 1]])
    found = spread.variance_shares(scores_WO, draws=50, seed=0)
    parts = (found.init.mean, found.order.mean, found.rest.mean, found.difference.mean)
    assert parts == pytest.approx((2 / 3, 1 / 3, 0, 1 / 3))
    # Interaction alone: MS_init = MS_order = 0, truncated.
    only = spread.variance_shares(np.array([[1.0, -1], [-1, 1]]), draws=50, seed=0)
    assert (only.init.mean, only.order.mean, only.rest.mean) == (0, 0, 1)


def test_shares_are_those_of_brute_force_mean_squares():
    scores_WO = grid(np.random.default_rng(2), 5, 4, init=2, order=1, rest=0.5)
    cells = list(itertools.product(range(5), range(4)))
    mean = scores_WO.mean()
    init = sum((scores_WO[w].mean() - mean) ** 2 for w, _ in cells) / 4
    order = sum((scores_WO[:, o].mean() - mean) ** 2 for _, o in cells) / 3
    rest = sum(
        (scores_WO[w, o] - scores_WO[w].mean() - scores_WO[:, o].mean() + mean) ** 2
        for w, o in cells
    ) / (4 * 3)
    variances = np.array([(init - rest) / 4, (order - rest) / 5, rest])
    found = spread.variance_shares(scores_WO, draws=50, seed=0)
    want = variances / variances.sum()
    assert (found.init.mean, found.order.mean, found.rest.mean) == pytest.approx(want)
    turned = spread.variance_shares(scores_WO.T, draws=50, seed=0)
    assert turned.init.mean == pytest.approx(found.order.mean)


def test_intervals_of_shares_cover():
    rng = np.random.default_rng(3)
    repeats, covered = 600, np.zeros(4)
    for repeat in range(repeats):
        scores_WO = grid(rng, 6, 6, init=1, order=1, rest=1)
        found = spread.variance_shares(scores_WO, draws=300, seed=repeat)
        truths = ((found.init, 1 / 3), (found.order, 1 / 3), (found.rest, 1 / 3),
                  (found.difference, 0))  # fmt: skip
        covered += [one.low <= truth <= one.high for one, truth in truths]
    # four standard errors; 300 draws place the ends roughly
    assert (np.abs(covered / repeats - 0.95) < 4 * math.sqrt(0.0475 / repeats)).all()


def test_shares_refuse_what_has_none():
    with pytest.raises(ValueError, match="two rows and columns"):
        spread.variance_shares(np.ones((1, 6)), draws=9, seed=0)
    with pytest.raises(ValueError, match="no shares"):
        spread.variance_shares(np.ones((3, 3)), draws=9, seed=0)


def test_expected_best_is_the_mean_over_all_subsets():
    scores_S = np.random.default_rng(4).normal(size=7)
    want = [
        np.mean([max(some) for some in itertools.combinations(scores_S, k)])
        for k in (1, 2, 3, 6, 7)
    ]
    found = spread.expected_best(scores_S, (1, 2, 3, 6, 7))
    assert found == pytest.approx(want)
    assert found[0] == pytest.approx(scores_S.mean()) and found[-1] == scores_S.max()


def test_spread_of_best_is_the_deviation_over_all_subsets():
    scores_S = np.random.default_rng(4).normal(size=6)
    found = spread.spread_of_best(scores_S, range(1, 7))
    subsets = [itertools.combinations(scores_S, k) for k in range(1, 7)]
    assert found == pytest.approx([np.std([max(s) for s in one]) for one in subsets])


def test_expected_best_refuses_more_runs_than_there_are():
    with pytest.raises(ValueError, match="a budget of 4 runs; 3 runs are there"):
        spread.expected_best(np.arange(3.0), (1, 4))
