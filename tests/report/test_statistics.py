"""Tests of tests: small cases by hand, then what they promise under known truths."""

import numpy as np
import pytest
from scipy import stats

from tljax.report import statistics
from tljax.settings import InputError


def flip(*differences, alternative="two-sided"):
    return statistics.sign_flip_test(
        np.array(differences), alternative=alternative, seed=0
    )


def crossed(rng, *, seeds, items, by_seed, by_item, both, mean=0.1):
    """values_SI = mean + seed's effect + item's effect + their interaction."""
    return (
        mean
        + by_seed * rng.normal(size=(seeds, 1))
        + by_item * rng.normal(size=(1, items))
        + both * rng.normal(size=(seeds, items))
    )


def test_sign_flips_by_hand():
    # |+-1 +-2 +-3|: 6 4 2 0 0 2 4 6. As large as |1 + 2 - 3| = 0: all. As 4: four.
    assert flip(1.0, 2.0, -3.0) == 1.0
    assert flip(-1.0, 2.0, 3.0) == 4 / 8
    assert flip(1.0, 2.0, 3.0) == 2 / 8
    assert flip(1.0, 2.0, 3.0, alternative="greater") == 1 / 8
    assert flip(-1.0, -2.0, -3.0, alternative="greater") == 1.0


def test_sign_flips_know_neither_scale_nor_direction_nor_order():
    differences_S = np.random.default_rng(0).normal(0.3, 1, size=9)
    p = flip(*differences_S)
    assert 0.01 < p < 0.99
    assert flip(*(100 * differences_S)) == p
    assert flip(*(-differences_S)) == p
    assert flip(*differences_S[::-1]) == p


def test_ties_of_rounded_sums_count_as_equal():
    # .1 + .2 - .3 is not 0 in floating point; the sums are +-0 .2 .4 .6, twice each.
    assert flip(0.1, 0.2, -0.3) == 1.0
    assert flip(0.1, -0.2, 0.3) == 6 / 8
    assert flip(0.0, 0.0, 0.0) == 1.0


def test_smallest_p_is_reached_and_no_smaller():
    assert flip(*[1.0] * 6) == statistics.smallest_p(6) == pytest.approx(0.03125)
    assert flip(*[1.0] * 20) == statistics.smallest_p(20) == 2**-19


def test_many_seeds_are_sampled_and_near_the_exact_p(monkeypatch):
    differences_S = np.random.default_rng(1).normal(0.4, 1, size=18)
    exact = flip(*differences_S)
    monkeypatch.setattr(statistics, "EXACT_SEEDS", 17)
    sampled = flip(*differences_S)
    assert sampled != exact
    # Four standard errors of a share of 200,000 draws.
    assert sampled == pytest.approx(exact, abs=4 * np.sqrt(exact / 200_000))
    assert flip(*[1.0] * 40) == statistics.smallest_p(40) == 1 / 200_001


def test_sign_flips_reject_a_true_null_at_their_level():
    rng = np.random.default_rng(2)
    ps = np.array([flip(*rng.normal(size=8)) for _ in range(2_000)])
    # Under the null, p is uniform on the multiples of 2 / 2^8.
    for level in (13 / 128, 6 / 128, 32 / 128):
        hits = (ps <= level).sum()
        low, high = stats.binom.interval(0.9999, 2_000, level)
        assert low <= hits <= high


def test_sign_flips_refuse_what_they_cannot_judge():
    with pytest.raises(ValueError, match="finite"):
        flip(1.0, float("nan"))
    with pytest.raises(ValueError, match="finite"):
        flip()
    with pytest.raises(ValueError, match="alternative"):
        flip(1.0, alternative="less")


def test_constant_values_have_no_width():
    found = statistics.hierarchical_bootstrap(np.ones((3, 5)), resamples=50, seed=0)
    assert found == statistics.Interval(1.0, 1.0, 1.0)


def test_resampled_means_have_the_variance_of_the_two_way_draw():
    # Owen 2007: of independent draws of rows and columns, by their plug-in components.
    values_SI = crossed(
        np.random.default_rng(3), seeds=6, items=30, by_seed=0.2, by_item=0.3, both=0.4
    )
    rows_S, columns_I = values_SI.mean(1), values_SI.mean(0)
    rest_SI = values_SI - rows_S[:, None] - columns_I + values_SI.mean()
    want = rows_S.var() / 6 + columns_I.var() / 30 + rest_SI.var() / (6 * 30)
    rng = np.random.default_rng(4)
    means_J = statistics._resampled_means(values_SI, rng, 20_000)
    assert means_J.var() == pytest.approx(want, rel=0.05)  # 4 x sqrt(2 / 20,000) = 4 %
    assert means_J.mean() == pytest.approx(values_SI.mean(), abs=0.005)


def test_same_seed_same_interval_and_means_are_inside():
    values_SI = crossed(
        np.random.default_rng(5), seeds=8, items=50, by_seed=0.1, by_item=0.3, both=0.2
    )
    one, again, other = (
        statistics.hierarchical_bootstrap(values_SI, resamples=700, seed=seed)
        for seed in (1, 1, 2)
    )
    assert one == again != other
    assert one.low < one.mean == values_SI.mean() < one.high


def test_resampling_only_seeds_would_be_too_sure():
    # Seeds agree, items differ: the spread is that of the items' mean, .5 / sqrt(100).
    column_I = np.repeat([0.0, 1.0], 50)
    found = statistics.hierarchical_bootstrap(
        np.tile(column_I, (8, 1)), resamples=2_000, seed=0
    )
    assert found.high - found.low == pytest.approx(2 * 1.98 * 0.05, rel=0.1)


@pytest.mark.parametrize(
    ("seeds", "by_seed", "by_item", "both"),
    [(8, 0.03, 0.0, 0.02), (8, 0.0, 0.3, 0.1), (8, 0.0, 0.1, 0.5), (4, 0.02, 0.3, 0.3)],
    ids=["seeds", "items", "interaction", "all"],
)
def test_intervals_cover_as_often_as_they_say(seeds, by_seed, by_item, both):
    rng = np.random.default_rng(6)
    covered, repeats = 0, 500
    for repeat in range(repeats):
        values_SI = crossed(
            rng, seeds=seeds, items=50, by_seed=by_seed, by_item=by_item, both=both
        )
        found = statistics.hierarchical_bootstrap(values_SI, resamples=600, seed=repeat)
        covered += found.low <= 0.1 <= found.high
    # Binomial noise alone spans 92.4 to 97.4 %; a little more as the draws are few.
    # Plain percentiles fail here: 89 % with seeds alone, 99 % with interaction.
    low, high = stats.binom.interval(0.99, repeats, 0.95)
    assert low - 3 <= covered <= high + 3


def test_bootstrap_at_the_size_of_the_main_experiment():
    values_SI = np.random.default_rng(7).integers(2, size=(8, 2_000)).astype(float)
    found = statistics.hierarchical_bootstrap(values_SI, resamples=2_000, seed=0)
    assert found.low < values_SI.mean() < found.high


def test_bootstrap_refuses_one_seed():
    with pytest.raises(ValueError, match="two of each"):
        statistics.hierarchical_bootstrap(np.ones((1, 9)), resamples=9, seed=0)


def test_holm_by_hand():
    assert statistics.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert statistics.holm([0.5, 0.6]) == [1.0, 1.0]
    assert statistics.holm([0.02]) == [0.02]
    assert statistics.holm([]) == []


def test_equivalence_by_hand():
    # .1 + d and .1 - d are all above 0: each one-sided p is 1 / 2^3.
    differences_S = np.array([0.01, -0.02, 0.0])
    test = statistics.equivalence_test
    assert test(differences_S, margin=0.1, seed=0) == 1 / 8
    # A mean beyond the margin can never be called equivalent.
    assert test(differences_S + 0.5, margin=0.1, seed=0) == 1.0
    # The worse of the two sides counts: .1 - d = .09 -.02 .1 has patterns as high.
    one_sided = flip(0.09, -0.02, 0.1, alternative="greater")
    found = test(np.array([0.01, 0.12, 0.0]), margin=0.1, seed=0)
    assert found == one_sided == 2 / 8
    with pytest.raises(ValueError, match="margin"):
        test(differences_S, margin=0.0, seed=0)


def test_smallest_detectable_by_hand_and_by_trial():
    # sd 2, S 4: (3.1824 + .9785) x 2 / 2.
    differences_S = 2 * np.array([1.0, 1.0, -1.0, -1.0]) * np.sqrt(3 / 4)
    found = statistics.smallest_detectable(differences_S, alpha=0.05)
    assert found == pytest.approx(4.1608, abs=1e-3)
    # A paired t test finds a true difference of that size in about 80 % of trials.
    rng = np.random.default_rng(8)
    unit_S = np.sqrt(11 / 12) * np.repeat([1.0, -1.0], 6)
    wanted = statistics.smallest_detectable(unit_S, alpha=0.05)
    trials_JS = rng.normal(wanted, 1.0, size=(2_000, 12))
    power = (stats.ttest_1samp(trials_JS, 0, axis=1).pvalue < 0.05).mean()
    assert power == pytest.approx(0.8, abs=0.04)


def test_plans_that_cannot_pass_are_refused():
    one, two, three = ["a"], ["a", "b"], ["a", "b", "c"]
    statistics.check_plan(6, one, 0.05)
    statistics.check_plan(8, three, 0.05)
    statistics.check_plan(2, [], 0.05)
    with pytest.raises(InputError, match="set plan.seeds to 7 or more"):
        statistics.check_plan(6, two, 0.05)
    with pytest.raises(InputError, match=r"Holm p is 0.188.*plan.seeds to 7 or more"):
        statistics.check_plan(5, three, 0.05)
    # .0625 is not below .0625: a verdict asks for p < alpha.
    with pytest.raises(InputError, match="plan.seeds to 7"):
        statistics.check_plan(6, two, 0.0625)
    with pytest.raises(InputError, match="plan.alpha"):
        statistics.check_plan(8, one, 1.5)
    with pytest.raises(InputError, match="2 or more"):
        statistics.check_plan(1, [], 0.05)


def test_student_interval_by_hand():
    # sd 1, t at 2 degrees of freedom 4.3027
    found = statistics.student_interval(np.array([1.0, 2.0, 3.0]))
    half = 4.302653 / 3**0.5
    assert (found.low, found.mean, found.high) == pytest.approx((2 - half, 2, 2 + half))
    wider = statistics.student_interval(np.array([1.0, 2.0, 3.0]), confidence=0.99)
    assert wider.high - 2 == pytest.approx(9.924843 / 3**0.5)


@pytest.mark.parametrize("values", [[1.0], [1.0, np.nan]])
def test_student_interval_refuses_what_has_no_spread(values):
    with pytest.raises(ValueError, match="two or more finite values"):
        statistics.student_interval(np.array(values))
