"""One step: means over the batch's own weight, randomness from (seed, step) alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tljax.settings import UNREGULARIZED
from tljax.train import optimizer, step

X = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)


def fresh():
    return {
        "layers": {"0": {"kernel": jnp.ones((3, 2))}},
        "head": {"bias": jnp.array([0.5, -0.5])},
    }


def squares(params, batch, key):
    """Weighted sum of squares of x kernel + bias."""
    y = batch["x"] @ params["layers"]["0"]["kernel"] + params["head"]["bias"][None]
    weight = batch["weight"]
    return (weight * (y**2).sum(axis=1)).sum(), {"weight": weight.sum()}


def run(settings, batches, loss=squares, seed=0, **on):
    regularize = dataclasses.replace(UNREGULARIZED, **on)
    hparams = optimizer.hyperparameters(settings, len(batches), seed)
    hparams |= {name: jnp.float32(value) for name, value in on.items()}
    train_step = jax.jit(step.make_train_step(loss, settings, regularize))
    state = step.init_state(fresh(), settings, regularize)
    every = []
    for batch in batches:
        state, sums = train_step(state, batch, hparams)
        every.append(sums)
    return state, every


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def batch_of(x, weight=1.0):
    return {"x": x, "weight": np.full(len(x), weight, np.float32)}


def test_sums_and_the_first_step_by_hand(optim_settings):
    state, (sums,) = run(optim_settings, [batch_of(X)])
    y = X @ np.ones((3, 2)) + [0.5, -0.5]
    by_kernel, by_bias = 2 * X.T @ y / 6, 2 * y.sum(axis=0) / 6
    norm = np.sqrt((by_kernel**2).sum() + (by_bias**2).sum())
    np.testing.assert_allclose(sums["nats"], (y**2).sum(), rtol=1e-5)
    np.testing.assert_allclose(sums["gradient_norm"], norm, rtol=1e-5)
    assert (sums["weight"], sums["steps"], state.step) == (6, 1, 1)
    assert state.step.dtype == jnp.int32
    # AdamW's first step goes lr_peak against the sign of the gradient
    moved = 1 - state.params["layers"]["0"]["kernel"]
    np.testing.assert_allclose(moved, 0.01 * np.sign(by_kernel), rtol=1e-3)


def test_a_step_is_of_the_mean_however_large_the_batch(optim_settings):
    # after a first step of its own, Adam is no longer blind to a gradient's size
    first, twice = batch_of(2 * X[:3]), np.concatenate([X, X])
    expected, _ = run(optim_settings, [first, batch_of(X)])
    for other in (batch_of(twice), batch_of(X, weight=3.0)):
        found, _ = run(optim_settings, [first, other])
        for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4)


def test_a_batch_without_targets_moves_nothing(optim_settings):
    state, (sums,) = run(optim_settings, [batch_of(X, weight=0.0)])
    assert sums["nats"] == sums["gradient_norm"] == sums["weight"] == 0
    for a, b in zip(*map(jax.tree.leaves, (state.params, fresh())), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_the_loss_falls(optim_settings, name):
    settings = dataclasses.replace(optim_settings, name=name, lr_peak=0.05, lr_muon=0.1)
    _, sums = run(settings, [batch_of(X)] * 20)
    assert sums[-1]["nats"] < 0.5 * sums[0]["nats"]


def test_randomness_is_a_function_of_the_seed_and_the_step(optim_settings):
    def draws(params, batch, key):
        drawn = jax.random.uniform(key)
        return 0 * params["head"]["bias"].sum(), {
            "weight": jnp.ones(()),
            "drawn": drawn,
        }

    def drawn(seed):
        _, sums = run(optim_settings, [batch_of(X)] * 3, loss=draws, seed=seed)
        return [float(one["drawn"]) for one in sums]

    assert drawn(seed=7) == drawn(seed=7)
    assert len({*drawn(seed=7), *drawn(seed=8)}) == 6


def test_the_average_is_the_unbiased_one_of_the_steps(optim_settings):
    batches = [batch_of(X), batch_of(2 * X), batch_of(X[:3])]
    steps = [run(optim_settings, batches[: i + 1])[0].params for i in range(3)]
    average = optax.ema(decay=0.8, debias=True)
    inner = average.init(steps[0])
    for i, params in enumerate(steps):
        expected, inner = average.update(params, inner)
        state, _ = run(optim_settings, batches[: i + 1], ema=0.8)
        same(state.params, params)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
            state.chosen,
            expected,
        )
        if i == 0:  # of one step
            same(state.chosen, params)


def test_before_the_first_step_the_average_is_the_parameters(optim_settings):
    off = step.init_state(fresh(), optim_settings)
    assert off.average is None
    same(off.chosen, fresh())
    regularize = dataclasses.replace(UNREGULARIZED, ema=0.5)
    same(step.init_state(fresh(), optim_settings, regularize).chosen, fresh())


def test_the_pull_is_decoupled_and_goes_with_the_rate(optim_settings):
    began = {"layers": {"0": {"kernel": jnp.full((3, 2), 0.4)}}}
    batch = batch_of(X) | {"start": began}
    plain, _ = run(optim_settings, [batch])
    pulled, _ = run(optim_settings, [batch], l2_start=2.0)
    rate = optim_settings.lr_peak
    for name, towards in (("layers", 0.4), ("head", 0.0)):
        (found,), (free,), (first,) = (
            jax.tree.leaves(tree[name])
            for tree in (pulled.params, plain.params, fresh())
        )
        expected = free - rate * 2.0 * (first - towards)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
