"""Layers that wait for their turn keep every bit; whose turn it is, by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.train import optimizer, step, unfreeze

PARAMS = {
    "embedding": {"tokens": np.ones((3, 2), np.float32)},
    "embedding_norm": {"scale": np.ones(2, np.float32)},
    "layers": {
        str(i): {"up": {"kernel": np.ones((2, 2), np.float32)}} for i in range(2)
    },
    "final_norm": {"scale": np.ones(2, np.float32)},
    "head": {"bias": np.ones(2, np.float32)},
}
PLACE = {"head": 0, "final_norm": 1, "layers/1": 1, "layers/0": 2, "embedding": 3}
PLACE |= {"embedding_norm": 3}
BY_HAND = {
    "gradual": [{0}] * 2 + [{0, 1}] * 2 + [{0, 1, 2}] * 2 + [{0, 1, 2, 3}] * 2,
    "chain": [{0}, {0}, {3}, {3}, {2}, {2}, {1}, {1}, {0, 1, 2, 3}, {0, 1, 2, 3}],
}


def leaf_of(params, place):
    return jax.tree.leaves(
        params["layers"][place[-1]] if "/" in place else params[place]
    )[0]


@pytest.mark.parametrize("kind", BY_HAND)
def test_only_those_whose_turn_it_is_move_or_decay(optim_settings, kind):
    """A gradient everywhere, decay and all: whoever waits keeps every bit."""
    turns = BY_HAND[kind]
    settings = dataclasses.replace(optim_settings, unfreeze=kind, weight_decay=0.1)
    hparams = optimizer.hyperparameters(settings, len(turns), seed=0)

    def loss(params, batch, key):
        return sum(map(jnp.sum, jax.tree.leaves(params))), {"weight": jnp.ones(())}

    train_step = jax.jit(step.make_train_step(loss, settings))
    state = step.init_state(jax.tree.map(jnp.asarray, PARAMS), settings)
    for moving in turns:
        before = state.params
        state, _ = train_step(state, {}, hparams)
        for name, place in PLACE.items():
            same = np.array_equal(leaf_of(before, name), leaf_of(state.params, name))
            assert same == (place not in moving), (name, moving)
    assert unfreeze.count_phases(kind, PARAMS) == len(turns) / 2


def test_moments_run_on_while_a_layer_waits(optim_settings):
    """When its turn comes the embedding goes as if it had been watched all along."""
    settings = dataclasses.replace(optim_settings, unfreeze="gradual")
    transform = optimizer.direction(settings)
    state, gradients = transform.init(PARAMS), PARAMS
    for _ in range(4):
        directions, state = transform.update(gradients, state, PARAMS)
    hparams = optimizer.hyperparameters(settings, 4, seed=0)

    def moved(settings):
        return optimizer.apply_direction(
            settings, PARAMS, directions, jnp.int32(3), hparams
        )

    plain = moved(dataclasses.replace(settings, unfreeze="none"))
    jax.tree.map(np.testing.assert_array_equal, moved(settings), plain)


def test_places_of_a_part_that_moves_are_counted_without_gaps():
    top = {"head": PARAMS["head"], "layers": {"1": PARAMS["layers"]["1"]}}
    assert unfreeze.count_phases("gradual", top) == 2
    turns = unfreeze.turns("chain", top, jnp.int32(1), jnp.float32(3))
    assert {path: bool(turn) for path, turn in turns.items()} == {
        "head/bias": False,
        "layers/1/up/kernel": True,
    }
    assert unfreeze.turns("none", top, jnp.int32(1), jnp.float32(3)) == {}
