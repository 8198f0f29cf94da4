"""The label multiplier on curves drawn by hand."""

import numpy as np
import pytest

from tljax.report import label_efficiency

SIZES_Z = np.array([50, 100, 200, 800])


def multiplier(scratch, transfer, *, n=100, resamples=400):
    return label_efficiency.label_multiplier(
        {size: np.array(values) for size, values in scratch.items()},
        np.array(transfer),
        n=n,
        resamples=resamples,
        seed=0,
    )


def needed(accuracies, target):
    return label_efficiency.labels_needed(SIZES_Z, np.array(accuracies), target)


def test_isotonic_by_hand():
    def isotonic(*values):
        return label_efficiency.isotonic(np.array(values)).tolist()

    assert isotonic(1.0, 2.0, 3.0) == [1, 2, 3]
    assert isotonic(1.0, 3.0, 2.0) == [1, 2.5, 2.5]
    assert isotonic(3.0, 2.0, 1.0) == [2, 2, 2]
    assert isotonic(4.0, 5.0, 0.0, 7.0) == [3, 3, 3, 7]


def test_reads_the_curve_in_log_labels():
    rising = [0.5, 0.6, 0.7, 0.8]
    assert needed(rising, 0.7) == (pytest.approx(200), "exact")
    # Half way in accuracy is half way in log labels: sqrt(200 x 800).
    assert needed(rising, 0.75) == (pytest.approx(400), "exact")
    assert needed(rising, 0.5) == (50, "exact")


def test_ends_of_the_curve_are_bounds():
    rising = [0.5, 0.6, 0.7, 0.8]
    assert needed(rising, 0.81) == (800, "at least")
    assert needed(rising, 0.49) == (50, "at most")


def test_fewest_labels_on_a_level_stretch_and_dips_are_pooled():
    assert needed([0.5, 0.7, 0.7, 0.8], 0.7) == (pytest.approx(100), "exact")
    # .72 .68 pool to .70 at 100 and 200.
    assert needed([0.5, 0.72, 0.68, 0.8], 0.7) == (pytest.approx(100), "exact")
    assert needed([0.5, 0.72, 0.68, 0.8], 0.75)[0] == pytest.approx(400)


def test_multiplier_of_equal_arms_is_one():
    scratch = {50: [0.5, 0.52], 100: [0.6, 0.64], 500: [0.8, 0.84]}
    found = multiplier(scratch, [0.6, 0.64])
    assert found.value == pytest.approx(1.0)
    assert found.ci95 == pytest.approx((1.0, 1.0))  # paired: both move together
    assert not found.censored


def test_multiplier_and_its_interval():
    scratch = {50: [0.5, 0.5], 100: [0.6, 0.6], 400: [0.8, 0.8]}
    found = multiplier(scratch, [0.65, 0.75])
    assert found.value == pytest.approx(2.0)  # .7 is half way from 100 to 400 in log
    # Both draws the first seed, or both the second: 100 x 4^(1/4), 100 x 4^(3/4).
    assert found.ci95 == pytest.approx((4**0.25, 4**0.75))
    assert (found.bound, found.ci95_bounds) == ("exact", ("exact", "exact"))


def test_beyond_the_largest_size_is_censored_not_extrapolated():
    scratch = {50: [0.5, 0.5], 100: [0.6, 0.6], 400: [0.8, 0.8]}
    found = multiplier(scratch, [0.9, 0.95])
    assert (found.value, found.bound, found.censored) == (4.0, "at least", True)
    assert found.ci95 == (4.0, 4.0)
    assert found.ci95_bounds == ("at least", "at least")
    found = multiplier(scratch, [0.7, 0.86])
    assert (found.bound, found.censored) == ("exact", False)
    assert found.ci95_bounds == ("exact", "at least")


def test_transfer_worse_than_the_smallest_size_is_at_most():
    scratch = {50: [0.5, 0.5], 100: [0.6, 0.6]}
    found = multiplier(scratch, [0.4, 0.4])
    assert (found.value, found.bound, found.censored) == (0.5, "at most", False)


def test_unpaired_arms_are_refused():
    with pytest.raises(ValueError, match="3 seeds"):
        multiplier({50: [0.5, 0.5]}, [0.6, 0.6, 0.6])
