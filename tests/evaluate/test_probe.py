"""The probe by hand, and left-one-out as fits that leave one out."""

import numpy as np
import pytest

from tljax.evaluate import probe
from tljax.evaluate.probe import fit_probe


def draw(items, width, classes=2, seed=0, signal=1.0):
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(items) % classes)
    centres = random.standard_normal((classes, width))
    noise = random.standard_normal((items, width))
    return signal * centres[labels] + noise, labels


@pytest.mark.parametrize(("items", "width"), [(12, 5), (12, 30)])
def test_weights_solve_the_ridge_equations(items, width):
    x, labels = draw(items, width, classes=3)
    fitted = fit_probe(x, labels, 3, ridges=[0.3])
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    y = np.eye(3)[labels] - np.eye(3)[labels].mean(axis=0)
    squares = np.linalg.svd(z, compute_uv=False) ** 2
    squares = squares[squares > 1e-6]
    ridge = 0.3 * squares.mean()
    by_hand = np.linalg.solve(z.T @ z + ridge * np.eye(width), z.T @ y)
    np.testing.assert_allclose(fitted.weights_DC, by_hand, atol=1e-8)
    np.testing.assert_allclose(fitted.intercept_C, np.bincount(labels) / items)


def test_one_linear_map_of_raw_features_gives_the_same_probabilities():
    x, labels = draw(12, 5, classes=3)
    x = x * [1, 2, 3, 4, 0] + 7  # the last feature is constant
    fitted = fit_probe(x, labels, 3)
    head = fitted.as_classifier()
    odds = np.exp(x @ head["kernel"] + head["bias"])
    found = odds / odds.sum(axis=1, keepdims=True)
    # float32 weights; features of 7 +- 4 nearly cancel against the bias
    np.testing.assert_allclose(found, fitted.probabilities(x), atol=1e-4)


@pytest.mark.parametrize(("items", "width"), [(9, 4), (9, 20)])
def test_left_out_scores_are_those_of_fits_without_the_item(items, width):
    x, labels = draw(items, width)
    x -= x.mean(axis=0)
    y, ridge = np.eye(2)[labels], 2.0
    u, s, _ = probe._decompose(x)
    mean = y.mean(axis=0)
    found = probe._left_out(u, s, u.T @ (y - mean), y, mean, ridge)
    for i in range(items):
        rest = np.arange(items) != i
        # the intercept is not shrunk: centre what is left
        z, t = x[rest], y[rest]
        centre, level = z.mean(axis=0), t.mean(axis=0)
        z, t = z - centre, t - level
        weights = np.linalg.solve(z.T @ z + ridge * np.eye(width), z.T @ t)
        alone = (x[i] - centre) @ weights + level
        np.testing.assert_allclose(found[i], alone, atol=1e-8)


def test_probabilities_follow_signal_and_noise():
    x, labels = draw(200, 10, signal=1.0)
    fitted = fit_probe(x[:100], labels[:100], 2)
    found = fitted.probabilities(x[100:])
    np.testing.assert_allclose(found.sum(axis=1), 1.0)
    right = (found.argmax(axis=1) == labels[100:]).mean()
    assert right > 0.85 and abs(fitted.left_out_accuracy - right) < 0.12
    assert abs(found.max(axis=1).mean() - right) < 0.1  # believes what it can do
    x, labels = draw(100, 10, signal=0.0)
    blind = fit_probe(x, labels, 2)
    assert blind.ridge == max(probe.RIDGES)
    assert blind.probabilities(x).max() < 0.7


def test_a_class_without_items_and_a_channel_without_spread():
    x, labels = draw(20, 4)
    x[:, 2] = 7.0
    fitted = fit_probe(x, labels, 3)
    found = fitted.probabilities(x)
    assert found.shape == (20, 3) and (found[:, 2] < found[:, :2].max(axis=1)).all()
    moved = x.copy()
    moved[:, 2] = 9.0  # never varied: it says nothing
    np.testing.assert_allclose(fitted.probabilities(moved), found)
