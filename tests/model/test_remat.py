"""What is computed again is the same, and what is not kept takes no memory."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.model import transformer
from tljax.objective.next_token import language_loss

VOCAB = 40


@pytest.fixture(scope="module")
def drawn(model_settings, draw_params):
    """(settings, parameters, a batch of packed rows) of two layers."""
    settings = dataclasses.replace(model_settings, depth=2, dropout=0.1)
    key = jax.random.key(0)
    params = draw_params(transformer.init_params, settings, VOCAB, key)
    random = np.random.default_rng(0)
    tokens_BL = random.integers(0, VOCAB, (4, 32), dtype=np.int32)
    segments_BL = np.sort(random.integers(1, 4, (4, 32)), axis=1).astype(np.int32)
    batch = {
        "tokens_BL": tokens_BL,
        "targets_BL": np.roll(tokens_BL, -1, axis=1),
        "segments_BL": segments_BL,
    }
    return settings, params, batch


COMPILED = {}


def compiled(settings, params, batch):
    """Loss and gradients of next words; once for the same settings."""

    def loss(params, batch):
        return language_loss(settings)(params, batch, jax.random.key(1))[0]

    key = settings, *batch
    if key not in COMPILED:
        lowered = jax.jit(jax.value_and_grad(loss)).lower(params, batch)
        COMPILED[key] = lowered.compile()
    return COMPILED[key]


@pytest.mark.parametrize(
    ("remat", "scan"), [("products", False), ("layer", False), ("products", True)]
)
def test_gradients_are_those_without_and_memory_is_less(drawn, remat, scan):
    settings, params, batch = drawn
    plain = dataclasses.replace(settings, scan_layers=scan)
    plan, short = (
        compiled(one, params, batch)
        for one in (plain, dataclasses.replace(plain, remat=remat))
    )
    (loss, gradients), (again, others) = plan(params, batch), short(params, batch)
    # the same float32 operations, which XLA may fuse in other ways
    np.testing.assert_allclose(again, loss, rtol=1e-5)
    for one, other in zip(*map(jax.tree.leaves, (gradients, others)), strict=True):
        assert np.abs(one).max() > 1e-3
        assert np.abs(one - other).max() < 1e-4 * np.abs(one).max()
    kept, less = (one.memory_analysis().temp_size_in_bytes for one in (plan, short))
    assert less < kept


def test_an_adapter_s_gradients_pass_too(drawn):
    settings, params, batch = drawn

    def pulled(strength, settings):
        def adapter(path, x, y):
            return None if path.endswith("prefix") else y * strength

        states_BLD = transformer.apply(settings, params, batch, adapter=adapter)
        return jnp.sin(states_BLD).sum()

    found = [
        jax.jit(jax.grad(functools.partial(pulled, settings=one)))(1.1)
        for one in (settings, dataclasses.replace(settings, remat="layer"))
    ]
    assert abs(found[0]) > 0.1
    np.testing.assert_allclose(*found, rtol=1e-4)


def test_rows_without_segments_are_one_each(drawn):
    settings, params, batch = drawn
    whole = batch | {"segments_BL": np.ones((4, 32), np.int32)}
    bare = {name: rows for name, rows in batch.items() if name != "segments_BL"}
    one, other, packed = (
        compiled(settings, params, rows)(params, rows) for rows in (whole, bare, batch)
    )
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert packed[0] != one[0]
