"""Importance: squared gradients of rows, and a penalty of nothing at the start."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.model import transformer
from tljax.objective import importance
from tljax.objective.next_token import next_token_loss
from tljax.settings import TransferSettings
from tljax.transfer.method import split

TEXT = {
    "tokens_BL": jnp.array([[3, 4, 5, 6], [7, 8, 9, 2]]),
    "segments_BL": jnp.array([[1, 1, 1, 1], [1, 1, 2, 2]]),
    "targets_BL": jnp.array([[4, 5, 6, 1], [8, -1, 2, 3]]),
}


@pytest.fixture
def params(model_settings, draw_params):
    key = jax.random.key(0)
    tree = draw_params(transformer.init_params, model_settings, 10, key)
    return jax.tree.map(jnp.asarray, tree)


@pytest.mark.parametrize("frozen_layers", [0, 1])
def test_importance_is_the_rows_squared_gradients_a_word(
    model_settings, params, frozen_layers
):
    transfer = TransferSettings(frozen_layers=frozen_layers)

    @jax.jit
    def gradient(params, row):
        def nats(params):
            states = transformer.apply(model_settings, params, row)
            output = params["embedding"]["tokens"]
            return next_token_loss(states, output, row["targets_BL"])[0]

        return jax.grad(nats)(params)

    rows = [jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], TEXT) for i in (0, 1)]
    squares = jax.tree.map(
        lambda a, b: (a**2 + b**2) / 7, *(gradient(params, row) for row in rows)
    )
    tree = {**params, "head": {}}
    moving, frozen = split(tree, transfer, jax.random.key(0))
    measure = jax.jit(
        lambda *args: importance.fisher(model_settings, transfer, *args, TEXT)
    )
    found = measure(moving, frozen)
    expected, _ = split({**squares, "head": {}}, transfer, jax.random.key(0))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, 1e-3, 1e-6), found, expected
    )


def test_the_penalty_by_hand():
    start = {"layers": {"0": {"kernel": jnp.array([1.0, 2.0])}}}
    weights = {"layers": {"0": {"kernel": jnp.array([4.0, 0.5])}}}
    moved = {"layers": {"0": {"kernel": jnp.array([2.0, 4.0])}}, "head": jnp.ones(3)}
    # (4 x 1^2 + 0.5 x 2^2) / 2; the head has no first weights
    assert importance.penalty(moved, start, weights) == 3.0
    assert importance.penalty(start, start, weights) == 0.0
