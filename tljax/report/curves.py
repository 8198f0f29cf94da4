"""What the figures draw: curves averaged over seeds, and reliability per bin.

Runs of one arm log at different steps (seeds pack differently); their curves are put on
one axis of epochs and interpolated there before the mean and the band are taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tljax.metrics.classification import expected_calibration_error, reliability_bins
from tljax.report import records

GRID = 60  # points of an averaged curve; more cannot be seen
LEAST_SHARE = 0.01  # of the answers, for a bin to be drawn


@dataclass(frozen=True)
class Band:
    """A curve's mean over `runs` runs and one standard deviation to each side."""

    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    runs: int


@dataclass(frozen=True)
class Reliability:
    """Per bin mean confidence, accuracy and share of the answers; expected error."""

    confidence: np.ndarray
    accuracy: np.ndarray
    share: np.ndarray
    error: float


@dataclass(frozen=True)
class LearningCurves:
    """(arm, split) -> band of one n and one quantity; `unit` of x: epochs or steps."""

    bands: dict[tuple[str, str], Band]
    unit: str


def mean_band(curves: Sequence[tuple[np.ndarray, np.ndarray]]) -> Band | None:
    """Averages curves given as (x ascending, y) over the range that all of them cover.

    Returns:
      The band; None if no curve has a point. A lone curve keeps its own points.
    """
    curves = [(x, y) for x, y in curves if len(x)]
    if not curves:
        return None
    if len(curves) == 1:
        x, y = curves[0]
        return Band(x=x, mean=y, low=y, high=y, runs=1)
    low = max(x[0] for x, _ in curves)
    high = min(x[-1] for x, _ in curves)
    points = min(GRID, max(len(x) for x, _ in curves))
    if high <= low or points == 1:
        # One validation each, at the end of runs of unequal length.
        grid = np.array([np.mean([x[-1] for x, _ in curves])])
        values = np.array([[y[-1]] for _, y in curves])
    else:
        grid = np.linspace(low, high, points)
        values = np.stack([np.interp(grid, x, y) for x, y in curves])
    mean, deviation = values.mean(0), values.std(0, ddof=1)
    return Band(grid, mean, mean - deviation, mean + deviation, len(curves))


def learning_curves(runs: Sequence[records.Run], *, quantity: str) -> LearningCurves:
    """The training and validation curves of one n's runs, averaged by arm.

    Args:
      runs: of any arms; baselines, which keep no metrics, and runs whose loss was not
        finite are passed over.
      quantity: key of metrics.jsonl: "loss_nats" or "accuracy".
    """
    curves: dict[tuple[str, str], list] = {}
    units = set()
    for run in runs:
        if not run.trained:
            continue
        metrics = records.load_metrics(run.folder)
        epochs = records.load_json(run.folder / "config.json").get("epochs")
        stopped = metrics[-1].get("stopped", {})
        if stopped.get("reason") == "not finite":
            continue  # its end would cut off the mean of the others
        steps = stopped.get("of_steps", max(record["step"] for record in metrics))
        units.add("epochs" if epochs and steps else "steps")
        scale = epochs / steps if epochs and steps else 1.0
        for split in ("train", "validation"):
            x, y = records.curve(metrics, split=split, key=quantity)
            curves.setdefault((run.arm, split), []).append((x * scale, y))
    bands = {key: mean_band(found) for key, found in curves.items()}
    return LearningCurves(
        bands={key: band for key, band in bands.items() if band is not None},
        # Unlike axes are not mixed; a run's config always has its epochs.
        unit="epochs" if units == {"epochs"} else "steps",
    )


def pretraining_curves(metrics: Sequence[dict[str, Any]]) -> dict[str, Band]:
    """A pre-training run's loss against steps: split -> Band, for what was logged."""
    bands = {
        split: mean_band([records.curve(metrics, split=split, key="loss_nats")])
        for split in ("train", "validation")
    }
    return {split: band for split, band in bands.items() if band is not None}


def reliability(predictions: Sequence[records.Predictions]) -> Reliability:
    """Accuracy per bin of confidence, runs pooled; the error is the mean over runs.

    Bins of less than 1 % of the answers are not shown: noise with a long line to it.

    Args:
      predictions: of one arm and n, one per seed.
    """
    bins = reliability_bins(
        np.concatenate([p.labels_I for p in predictions]),
        np.concatenate([p.probabilities_IC for p in predictions]),
    )
    errors = [
        expected_calibration_error(p.labels_I, p.probabilities_IC).value
        for p in predictions
    ]
    total = sum(one.n for one in bins)
    shown = [one for one in bins if one.n >= LEAST_SHARE * total]
    return Reliability(
        confidence=np.array([one.confidence for one in shown]),
        accuracy=np.array([one.accuracy for one in shown]),
        share=np.array([one.n / total for one in shown]),
        error=float(np.mean(errors)),
    )
