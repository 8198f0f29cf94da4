"""Curves averaged over seeds and reliability bins, by hand."""

from pathlib import Path

import numpy as np
import pytest

from tljax.report import curves, records


def test_mean_band_interpolates_over_the_common_range() -> None:
    short = (np.array([0.0, 2.0]), np.array([0.0, 2.0]))
    long = (np.array([0.0, 1.0, 4.0]), np.array([2.0, 3.0, 6.0]))
    band = curves.mean_band([short, long])
    np.testing.assert_allclose(band.x, [0.0, 1.0, 2.0])
    np.testing.assert_allclose(band.mean, [1.0, 2.0, 3.0])  # y = x and y = x + 2
    np.testing.assert_allclose(band.high - band.mean, np.sqrt(2.0))
    np.testing.assert_allclose(band.mean - band.low, np.sqrt(2.0))
    assert band.runs == 2


def test_mean_band_of_single_points_is_one_point() -> None:
    found = [(np.array([10.0]), np.array([1.0])), (np.array([12.0]), np.array([3.0]))]
    band = curves.mean_band(found)
    assert band.x.tolist() == [11.0]
    assert band.mean.tolist() == [2.0]


def test_mean_band_of_one_curve_and_of_none() -> None:
    x, y = np.array([1.0, 2.0]), np.array([5.0, 4.0])
    empty = (np.array([]), np.array([]))
    band = curves.mean_band([(x, y), empty])
    assert band.runs == 1
    assert band.low.tolist() == band.mean.tolist() == [5.0, 4.0]
    assert curves.mean_band([empty]) is None


def test_learning_curves_pass_over_baselines_and_count_epochs(
    experiment_folder: Path,
) -> None:
    experiment = records.load_experiment(experiment_folder)
    runs = [run for run in experiment.runs if run.n == 100]
    found = curves.learning_curves(runs, quantity="loss_nats")
    assert {arm for arm, _ in found.bands} == {"scratch", "transfer"}
    assert found.unit == "epochs"
    band = found.bands["transfer", "train"]
    assert band.runs == 8
    assert band.x[0] == 0.0
    assert 17.0 < band.x[-1] <= 20.0  # the configs say 20 epochs


def test_pretraining_curves_are_of_the_splits_that_were_logged() -> None:
    metrics = [
        {"step": 1, "split": "train", "loss_nats": 3.0},
        {"step": 2, "split": "train", "loss_nats": 2.0},
        {"step": 2, "split": "validation", "loss_nats": 2.5},
    ]
    bands = curves.pretraining_curves(metrics)
    assert bands["train"].x.tolist() == [1, 2]
    assert bands["train"].mean.tolist() == [3.0, 2.0]
    assert bands["validation"].x.tolist() == [2]
    assert set(curves.pretraining_curves(metrics[:2])) == {"train"}


def test_reliability_by_hand() -> None:
    def answers(probability: float, right: int, items: int) -> records.Predictions:
        labels_I = np.array([0] * right + [1] * (items - right), np.int32)
        return records.Predictions(
            ids=tuple(map(str, range(items))),
            labels_I=labels_I,
            predictions_I=np.zeros(items, np.int32),
            probabilities_IC=np.tile([probability, 1 - probability], (items, 1)),
            classes=("a", "b"),
        )

    found = curves.reliability([answers(0.9, 5, 10), answers(0.7, 7, 10)])
    np.testing.assert_allclose(found.confidence, [0.7, 0.9])
    np.testing.assert_allclose(found.accuracy, [0.7, 0.5])
    np.testing.assert_allclose(found.share, [0.5, 0.5])
    assert found.error == pytest.approx((0.4 + 0.0) / 2)  # mean over the two runs
