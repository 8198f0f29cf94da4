"""Pooling by hand, and the classifier on top."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.model import heads

#          a a b b b . c        slot 3 is empty, slot 2 stands after a gap
SEGMENTS = jnp.array([[1, 1, 2, 2, 2, 0, 3]])
STATES = jnp.array(
    [
        [
            [1.0, -1.0],
            [3.0, -3.0],
            [0.0, 5.0],
            [6.0, 4.0],
            [3.0, -9.0],
            [99.0, 99.0],
            [7.0, 8.0],
        ]
    ]
)
BY_HAND = {
    "mean": [[2, -2], [3, 0], [7, 8], [0, 0]],
    "last": [[3, -3], [3, -9], [7, 8], [0, 0]],
    "cls": [[1, -1], [0, 5], [7, 8], [0, 0]],
    "max": [[3, -1], [6, 5], [7, 8], [0, 0]],
}


@pytest.mark.parametrize("pooling", BY_HAND)
def test_pooling_by_hand(pooling):
    pooled = heads.pool(STATES.astype(jnp.bfloat16), SEGMENTS, 4, pooling)
    assert pooled.dtype == jnp.float32
    np.testing.assert_allclose(pooled, [BY_HAND[pooling]], atol=1e-6)


GRADIENTS = {
    "mean": [1 / 2, 1 / 2, 1 / 3, 1 / 3, 1 / 3, 0, 1],
    "last": [0, 1, 0, 0, 1, 0, 1],
    "cls": [1, 0, 1, 0, 0, 0, 1],
    "max": [0, 1, 0, 1, 0, 0, 1],
}


@pytest.mark.parametrize("pooling", GRADIENTS)
def test_gradients_by_hand_also_beside_an_empty_slot(pooling):
    def first_channel(states):
        return heads.pool(states, SEGMENTS, 4, pooling)[..., 0].sum()

    gradient = jax.jit(jax.grad(first_channel))(STATES)
    np.testing.assert_allclose(gradient[0, :, 0], GRADIENTS[pooling], rtol=1e-6)
    assert not gradient[0, :, 1].any()


def test_logits_by_hand():
    params = {"kernel": jnp.array([[1.0, 0, 2], [0, 1, -1]]), "bias": jnp.arange(3.0)}
    pooled = jnp.array([[[1.0, 2.0], [0.0, 0.0]]])
    logits = heads.classify(params, pooled)
    np.testing.assert_array_equal(logits, [[[1, 3, 2], [0, 1, 2]]])


def test_a_fresh_classifier_is_small_and_fair():
    params = heads.init_classifier(400, 3, jax.random.key(0))
    assert params["kernel"].shape == (400, 3)
    # 1,200 draws of standard deviation .1 / sqrt(400)
    assert 0.0045 < params["kernel"].std() < 0.0055
    np.testing.assert_array_equal(params["bias"], np.zeros(3))
