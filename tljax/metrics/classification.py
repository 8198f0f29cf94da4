"""How good are predictions over classes: accuracy, macro-F1, calibration, likelihood.

Every function is of a whole split's answers at once (never an average of batches) and
returns Estimate(value, n, standard_error). The standard error is that of a mean over n
independent items: sd(influence of each item) / sqrt(n), with sd divided by n; for a
plain mean such as accuracy that is the textbook formula, else its first-order (delta
method) counterpart. It leaves out the choice of seed: report/statistics.py adds that.
"""

from dataclasses import dataclass

import numpy as np

from tljax.settings import InputError

# A probability of exactly 0 for what happened costs this much, not infinity.
PROBABILITY_FLOOR = 1e-12
BINS = 15  # Guo et al. 2017, arXiv 1706.04599


@dataclass(frozen=True)
class Estimate:
    """A number measured on n items."""

    value: float
    n: int
    standard_error: float


@dataclass(frozen=True)
class Bin:
    """Items whose top probability lies in (low, high]: how sure, and how right."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float
    standard_error: float  # of the accuracy


def accuracy(labels_I: np.ndarray, predictions_I: np.ndarray) -> Estimate:
    """Share of items whose prediction is the label, in [0, 1].

    Args:
      labels_I, predictions_I: class indices, int.

    Raises:
      InputError: no items.
      ValueError: shapes differ.
    """
    _check_pair(labels_I, predictions_I)
    correct_I = (labels_I == predictions_I).astype(np.float64)
    return _estimate(correct_I.mean(), correct_I)


def macro_f1(labels_I: np.ndarray, predictions_I: np.ndarray) -> Estimate:
    """Mean over classes of F1 = 2 TP / (2 TP + FP + FN), in [0, 1].

    The classes are those that occur among labels or predictions; one that occurs in
    neither has no F1 and is left out.

    Args:
      labels_I, predictions_I: class indices, int.

    Raises:
      InputError: no items.
      ValueError: shapes differ.
    """
    _check_pair(labels_I, predictions_I)
    classes_C = np.union1d(labels_I, predictions_I)
    is_label_IC = labels_I[:, None] == classes_C
    is_predicted_IC = predictions_I[:, None] == classes_C
    # F1 = 2 E[both] / E[label + predicted]: a ratio of two means over items.
    twice_hit_IC = 2.0 * (is_label_IC & is_predicted_IC)
    named_IC = is_label_IC.astype(np.float64) + is_predicted_IC
    f1_C = twice_hit_IC.mean(0) / named_IC.mean(0)
    influence_IC = (twice_hit_IC - f1_C * named_IC) / named_IC.mean(0)
    return _estimate(f1_C.mean(), influence_IC.mean(1))


def negative_log_likelihood(
    labels_I: np.ndarray, probabilities_IC: np.ndarray
) -> Estimate:
    """Mean of -ln(probability of the label), in nats per item.

    Probabilities below 1e-12 count as 1e-12 (27.6 nats): one certain error is dear, but
    does not hide all other items behind an infinity.

    Args:
      labels_I: class indices, int.
      probabilities_IC: rows sum to 1.

    Raises:
      InputError: no items.
      ValueError: shapes disagree, or rows are not probabilities.
    """
    _check_probabilities(labels_I, probabilities_IC)
    likelihood_I = np.take_along_axis(probabilities_IC, labels_I[:, None], 1)[:, 0]
    loss_I = -np.log(np.maximum(likelihood_I, PROBABILITY_FLOOR))
    return _estimate(loss_I.mean(), loss_I)


def expected_calibration_error(
    labels_I: np.ndarray, probabilities_IC: np.ndarray, *, bins: int = BINS
) -> Estimate:
    """Mean over items of |accuracy - confidence| of the item's bin, in [0, 1].

    Noise alone makes it positive: expect about 0.8 x sqrt(bins x p(1-p) / n) even of
    a perfectly calibrated model, more so the fewer the items.

    Args:
      labels_I: class indices, int.
      probabilities_IC: rows sum to 1; the prediction is the most probable class.
      bins: of equal width over [0, 1].

    Raises:
      InputError: no items.
      ValueError: shapes disagree, rows are not probabilities, or bins < 1.

    Source: Guo et al. 2017, arXiv 1706.04599, equation 3.
    """
    bin_I, confidence_I, correct_I = _binned(labels_I, probabilities_IC, bins)
    gap_I = confidence_I - correct_I
    gap_of_bin = np.bincount(bin_I, weights=gap_I, minlength=bins)
    # |sum of a bin's gaps| = sum of its gaps times their common sign.
    influence_I = np.sign(gap_of_bin)[bin_I] * gap_I
    return _estimate(influence_I.mean(), influence_I)


def full_record(
    labels_I: np.ndarray, probabilities_IC: np.ndarray
) -> dict[str, dict[str, float]]:
    """Every metric of a split, {"accuracy": {"value", "n", "se"}, "macro_f1", ...}.

    Args:
      labels_I: true classes.
      probabilities_IC: rows that sum to 1; the predicted class is the most probable.

    Raises:
      InputError: as for each of the metrics.
    """
    predictions_I = probabilities_IC.argmax(axis=1)
    measured = {
        "accuracy": accuracy(labels_I, predictions_I),
        "macro_f1": macro_f1(labels_I, predictions_I),
        "ece": expected_calibration_error(labels_I, probabilities_IC),
        "nll_nats": negative_log_likelihood(labels_I, probabilities_IC),
    }
    return {
        name: {"value": one.value, "n": one.n, "se": one.standard_error}
        for name, one in measured.items()
    }


def reliability_bins(
    labels_I: np.ndarray, probabilities_IC: np.ndarray, *, bins: int = BINS
) -> list[Bin]:
    """The bins of a reliability diagram, from unsure to sure; empty ones left out.

    Args, Raises: as expected_calibration_error.

    Returns:
      Bins with mean confidence, accuracy and its standard error; n sums to the items.
    """
    bin_I, confidence_I, correct_I = _binned(labels_I, probabilities_IC, bins)
    found = []
    for index in np.unique(bin_I):
        inside_I = bin_I == index
        share = _estimate(correct_I[inside_I].mean(), correct_I[inside_I])
        found.append(
            Bin(
                low=float(index / bins),
                high=float((index + 1) / bins),
                n=share.n,
                confidence=float(confidence_I[inside_I].mean()),
                accuracy=share.value,
                standard_error=share.standard_error,
            )
        )
    return found


def _binned(
    labels_I: np.ndarray, probabilities_IC: np.ndarray, bins: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each item's bin index, confidence, and 1.0 where its top class is the label."""
    _check_probabilities(labels_I, probabilities_IC)
    if bins < 1:
        raise ValueError(f"bins is {bins}; it must be at least 1")
    confidence_I = probabilities_IC.max(1).astype(np.float64)
    correct_I = (probabilities_IC.argmax(1) == labels_I).astype(np.float64)
    # Bins are open below and closed above: (0, 1/bins], ..., (1 - 1/bins, 1].
    bin_I = np.clip(np.ceil(confidence_I * bins).astype(int) - 1, 0, bins - 1)
    return bin_I, confidence_I, correct_I


def _estimate(value: float, influence_I: np.ndarray) -> Estimate:
    n = len(influence_I)
    return Estimate(float(value), n, float(influence_I.std() / np.sqrt(n)))


def _check_pair(labels_I: np.ndarray, predictions_I: np.ndarray) -> None:
    if labels_I.ndim != 1 or labels_I.shape != predictions_I.shape:
        raise ValueError(
            f"labels {labels_I.shape} and predictions {predictions_I.shape} must be two"
            " vectors of one length"
        )
    if not len(labels_I):
        raise InputError("no items were given; a metric needs at least one")


def _check_probabilities(labels_I: np.ndarray, probabilities_IC: np.ndarray) -> None:
    if probabilities_IC.ndim != 2:
        raise ValueError(
            f"probabilities {probabilities_IC.shape} must be items x classes"
        )
    _check_pair(labels_I, probabilities_IC[:, 0])
    classes = probabilities_IC.shape[1]
    if labels_I.min() < 0 or labels_I.max() >= classes:
        raise ValueError(f"labels must be 0 to {classes - 1}, the columns given")
    sums_I = probabilities_IC.sum(1)
    if not (probabilities_IC >= 0).all() or not np.allclose(sums_I, 1.0, atol=1e-3):
        raise ValueError("probabilities must be at least 0 and sum to 1 in every row")
