"""Metrics against small cases worked out by hand, identities, and their own errors."""

import numpy as np
import pytest

from tljax.metrics import classification
from tljax.settings import InputError

LABELS_I = np.array([0, 0, 0, 1, 1, 2])
PREDICTIONS_I = np.array([0, 0, 1, 1, 2, 2])


def one_hot(labels_I, classes):
    return np.eye(classes)[labels_I]


def draw(rng, items):
    """Labels drawn from their stated probabilities: calibrated by construction."""
    top_I = rng.uniform(0.5, 1.0, items)
    probabilities_IC = np.stack([top_I, 1 - top_I], 1)
    labels_I = (rng.uniform(size=items) > top_I).astype(int)
    return labels_I, probabilities_IC


def test_accuracy_by_hand():
    found = classification.accuracy(LABELS_I, PREDICTIONS_I)
    assert found.value == pytest.approx(4 / 6)
    assert found.n == 6
    # sqrt(p (1 - p) / n)
    assert found.standard_error == pytest.approx(np.sqrt(4 / 6 * 2 / 6 / 6))


def test_macro_f1_by_hand():
    # class 0: TP 2 FP 0 FN 1 -> 4/5; class 1: TP 1 FP 1 FN 1 -> 2/4; class 2: 2/3.
    found = classification.macro_f1(LABELS_I, PREDICTIONS_I)
    assert found.value == pytest.approx((4 / 5 + 1 / 2 + 2 / 3) / 3)


def test_macro_f1_leaves_out_only_classes_that_occur_nowhere():
    # Class 1 is predicted but never right: F1 0. Class 2 occurs nowhere.
    found = classification.macro_f1(np.array([0, 0, 3]), np.array([0, 1, 3]))
    assert found.value == pytest.approx((2 / 3 + 0 + 1) / 3)


def test_two_perfect_classes_give_one_without_error():
    found = classification.macro_f1(np.array([0, 1, 1]), np.array([0, 1, 1]))
    assert (found.value, found.standard_error) == (1.0, 0.0)


def test_likelihood_by_hand():
    labels_I = np.array([0, 1])
    probabilities_IC = np.array([[0.5, 0.5], [0.75, 0.25]])
    found = classification.negative_log_likelihood(labels_I, probabilities_IC)
    assert found.value == pytest.approx((np.log(2) + np.log(4)) / 2)
    assert found.standard_error == pytest.approx(np.log(2) / 2 / np.sqrt(2))


def test_certain_answers_are_perfect_or_worst():
    labels_I = np.array([0, 1, 2])
    right_IC, wrong_IC = one_hot(labels_I, 3), one_hot((labels_I + 1) % 3, 3)
    assert classification.negative_log_likelihood(labels_I, right_IC).value == 0
    worst = classification.negative_log_likelihood(labels_I, wrong_IC).value
    assert worst == pytest.approx(-np.log(1e-12))
    assert classification.expected_calibration_error(labels_I, wrong_IC).value == 1


def test_calibration_error_by_hand():
    # bin (.5, .75]: confidences .6 .7, one right: |1 - 1.3|; bin (.75, 1]: |2 - 1.8|.
    labels_I = np.array([0, 1, 0, 0])
    probabilities_IC = np.array([[0.6, 0.4], [0.7, 0.3], [0.9, 0.1], [0.9, 0.1]])
    found = classification.expected_calibration_error(
        labels_I, probabilities_IC, bins=4
    )
    assert found.value == pytest.approx((0.3 + 0.2) / 4)
    low, high = classification.reliability_bins(labels_I, probabilities_IC, bins=4)
    assert (low.low, low.high, low.n, low.accuracy) == (0.5, 0.75, 2, 0.5)
    assert low.confidence == pytest.approx(0.65)
    assert low.standard_error == pytest.approx(0.5 / np.sqrt(2))
    assert (high.n, high.accuracy, high.standard_error) == (2, 1.0, 0.0)


def test_bins_are_closed_above():
    bins = classification.reliability_bins(
        np.array([0, 0]), np.array([[0.5, 0.5], [1.0, 0.0]]), bins=2
    )
    assert [(b.low, b.high, b.n) for b in bins] == [(0.0, 0.5, 1), (0.5, 1.0, 1)]


def test_calibration_error_is_the_weighted_gap_of_the_bins():
    labels_I, probabilities_IC = draw(np.random.default_rng(0), 500)
    error = classification.expected_calibration_error(labels_I, probabilities_IC)
    bins = classification.reliability_bins(labels_I, probabilities_IC)
    gaps = sum(b.n * abs(b.accuracy - b.confidence) for b in bins) / 500
    assert error.value == pytest.approx(gaps)
    assert sum(b.n for b in bins) == 500


def test_a_calibrated_model_has_a_small_calibration_error():
    labels_I, probabilities_IC = draw(np.random.default_rng(1), 20_000)
    found = classification.expected_calibration_error(labels_I, probabilities_IC)
    assert found.value < 0.02  # 0.8 sqrt(15 x .17 / 20,000) = .009, and some room


@pytest.mark.parametrize(
    "metric",
    [
        lambda y_I, p_IC: classification.accuracy(y_I, p_IC.argmax(1)),
        lambda y_I, p_IC: classification.macro_f1(y_I, p_IC.argmax(1)),
        classification.negative_log_likelihood,
        lambda y_I, p_IC: classification.expected_calibration_error(
            y_I, 0.5 * p_IC + 0.5 * one_hot(np.zeros(len(y_I), int), 2)
        ),
    ],
    ids=["accuracy", "macro_f1", "likelihood", "calibration"],
)
def test_standard_error_is_the_spread_over_fresh_samples(metric):
    rng = np.random.default_rng(2)
    found = [metric(*draw(rng, 400)) for _ in range(400)]
    spread = np.std([estimate.value for estimate in found])
    stated = np.mean([estimate.standard_error for estimate in found])
    # The spread of 400 values is itself known to 1/sqrt(800) = 3.5 %; four of those.
    assert stated == pytest.approx(spread, rel=0.14)


def test_refuses_what_is_not_there():
    empty_I = np.array([], int)
    with pytest.raises(InputError, match="no items"):
        classification.accuracy(empty_I, empty_I)
    with pytest.raises(ValueError, match="one length"):
        classification.accuracy(LABELS_I, PREDICTIONS_I[:-1])
    with pytest.raises(ValueError, match="sum to 1"):
        classification.negative_log_likelihood(np.array([0]), np.array([[0.7, 0.7]]))
    with pytest.raises(ValueError, match="0 to 1"):
        classification.negative_log_likelihood(np.array([2]), np.array([[0.5, 0.5]]))
    with pytest.raises(ValueError, match="bins"):
        classification.reliability_bins(np.array([0]), np.array([[1.0, 0.0]]), bins=0)


def test_a_full_record_has_every_metric_with_n_and_a_standard_error():
    probabilities_IC = np.array([[0.5, 0.5], [0.2, 0.8], [0.9, 0.1], [1.0, 0.0]])
    record = classification.full_record(np.array([1, 1, 0, 0]), probabilities_IC)
    assert set(record) == {"accuracy", "macro_f1", "ece", "nll_nats"}
    se = pytest.approx((0.75 * 0.25 / 4) ** 0.5)
    assert record["accuracy"] == {"value": 0.75, "n": 4, "se": se}
    # 2 TP / (2 TP + FP + FN): 4 / (4 + 1 + 0) and 2 / (2 + 0 + 1)
    assert record["macro_f1"]["value"] == pytest.approx((4 / 5 + 2 / 3) / 2)
    # each alone in its bin, this far from being right: .5, .2, .1, 0
    assert record["ece"]["value"] == pytest.approx((0.5 + 0.2 + 0.1 + 0.0) / 4)
    nats = -np.log([0.5, 0.8, 0.9, 1.0])
    assert record["nll_nats"]["value"] == pytest.approx(nats.mean())
    assert all(one["se"] > 0 and one["n"] == 4 for one in record.values())
