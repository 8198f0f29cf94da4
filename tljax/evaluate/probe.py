"""A closed-form probe on frozen features: ridge regression on class indicators.

    X = U s V^T (standardised, centred),   W = V s / (s^2 + ridge) U^T Y

Left-one-out predictions come from the same decomposition for nothing; they choose the
ridge and the temperature that turns scores into probabilities. No validation item is
used, nothing is random.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

RIDGES = tuple(10.0**power for power in np.arange(-2, 2.6, 0.5))  # x mean of s^2


@dataclasses.dataclass(frozen=True)
class Probe:
    """A fitted probe; scores = ((x - mean) / scale) W + intercept.

    Attributes:
      mean_D, scale_D: of the features it was fitted to.
      weights_DC, intercept_C: of the classes' indicators.
      temperature: probabilities = softmax(scores / temperature).
      ridge: the one chosen.
      left_out_accuracy: of items predicted by a fit without them.
    """

    mean_D: np.ndarray
    scale_D: np.ndarray
    weights_DC: np.ndarray
    intercept_C: np.ndarray
    temperature: float
    ridge: float
    left_out_accuracy: float

    def probabilities(self, features_ID: np.ndarray) -> np.ndarray:
        """float64 [I, C]."""
        x_ID = (np.asarray(features_ID, np.float64) - self.mean_D) / self.scale_D
        return _softmax((x_ID @ self.weights_DC + self.intercept_C) / self.temperature)

    def as_classifier(self) -> dict[str, np.ndarray]:
        """One linear map whose softmax is `probabilities`; as of `model.heads`.

        logits = x kernel + bias,   kernel = W / scale / temperature,
        bias = (intercept - mean W / scale) / temperature

        Returns:
          {"kernel": [D, C], "bias": [C]}, float32.
        """
        kernel_DC = self.weights_DC / self.scale_D[:, None] / self.temperature
        bias_C = self.intercept_C / self.temperature - self.mean_D @ kernel_DC
        return {"kernel": np.float32(kernel_DC), "bias": np.float32(bias_C)}


def fit_probe(
    features_ID: np.ndarray,
    labels_I: np.ndarray,
    classes: int,
    ridges: Sequence[float] = RIDGES,
) -> Probe:
    """Fits a probe; ridge and temperature by left-one-out log-likelihood.

    Args:
      features_ID: of the labelled items, at least two.
      labels_I: integers in [0, classes).
      classes: C; one that has no item keeps the score 0.
      ridges: tried, as multiples of the mean squared singular value.

    Source: Hoerl & Kennard 1970; left-one-out: Allen 1974 (PRESS). Few-shot probes by
    least squares: Kolesnikov et al. 2020, section 3.
    """
    x_ID = np.asarray(features_ID, np.float64)
    mean_D, scale_D = x_ID.mean(axis=0), x_ID.std(axis=0)
    scale_D = np.where(scale_D > 1e-6 * max(scale_D.max(), 1e-12), scale_D, 1.0)
    x_ID = (x_ID - mean_D) / scale_D
    y_IC = np.eye(classes)[labels_I]
    intercept_C = y_IC.mean(axis=0)
    u_IR, s_R, v_DR = _decompose(x_ID)
    pulled_RC = u_IR.T @ (y_IC - intercept_C)
    mean_square = max(float(np.mean(s_R**2)), 1e-12)
    best = None
    for ridge in ridges:
        added = ridge * mean_square
        left_out_IC = _left_out(u_IR, s_R, pulled_RC, y_IC, intercept_C, added)
        temperature = _temperature(left_out_IC, labels_I)
        nats = _nats(left_out_IC / temperature, labels_I)
        if best is None or nats < best[0]:
            best = nats, ridge, added, temperature, left_out_IC
    _, ridge, added, temperature, left_out_IC = best
    weights_DC = v_DR @ ((s_R / (s_R**2 + added))[:, None] * pulled_RC)
    right = left_out_IC.argmax(axis=1) == labels_I
    return Probe(
        mean_D,
        scale_D,
        weights_DC,
        intercept_C,
        temperature,
        ridge,
        float(right.mean()),
    )


def _decompose(x_ID: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """U [I, R], s [R], V [D, R] of X, by the smaller of its two Gram matrices."""
    items, width = x_ID.shape
    if items <= width:
        square_R, u_IR = np.linalg.eigh(x_ID @ x_ID.T)
        keep = square_R > 1e-9 * square_R[-1]
        s_R, u_IR = np.sqrt(square_R[keep]), u_IR[:, keep]
        return u_IR, s_R, x_ID.T @ u_IR / s_R
    square_R, v_DR = np.linalg.eigh(x_ID.T @ x_ID)
    keep = square_R > 1e-9 * square_R[-1]
    s_R, v_DR = np.sqrt(square_R[keep]), v_DR[:, keep]
    return x_ID @ v_DR / s_R, s_R, v_DR


def _left_out(u_IR, s_R, pulled_RC, y_IC, intercept_C, ridge) -> np.ndarray:
    """Scores of each item by the fit without it: (yhat - h y) / (1 - h).

    h is the hat matrix's diagonal, the intercept's 1 / I included; scale and mean of
    the features are those of all items.
    """
    shrunk_R = s_R**2 / (s_R**2 + ridge)
    fitted_IC = intercept_C + u_IR @ (shrunk_R[:, None] * pulled_RC)
    h_I1 = (u_IR**2 @ shrunk_R + 1 / len(u_IR))[:, None]
    return (fitted_IC - h_I1 * y_IC) / np.maximum(1 - h_I1, 1e-9)


def _temperature(scores_IC: np.ndarray, labels_I: np.ndarray) -> float:
    """The temperature of least log-loss, in [.01, 100]."""
    from scipy.optimize import minimize_scalar  # late: takes half a second

    found = minimize_scalar(
        lambda log: _nats(scores_IC / np.exp(log), labels_I),
        bounds=(np.log(0.01), np.log(100.0)),
        method="bounded",
    )
    return float(np.exp(found.x))


def _nats(scores_IC: np.ndarray, labels_I: np.ndarray) -> float:
    p_IC = _softmax(scores_IC)
    return float(-np.log(p_IC[np.arange(len(labels_I)), labels_I] + 1e-300).mean())


def _softmax(scores_IC: np.ndarray) -> np.ndarray:
    odds_IC = np.exp(scores_IC - scores_IC.max(axis=1, keepdims=True))
    return odds_IC / odds_IC.sum(axis=1, keepdims=True)
