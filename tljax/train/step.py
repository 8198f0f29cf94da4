"""The train step: one run, pure.

    train_step(state, batch, hparams) -> (state, sums)

sums are (sum, weight) pairs and what else the loss counted; whoever reports divides
them once. Device randomness is a function of (seed, step): nothing depends on when.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from tljax.settings import OptimSettings
from tljax.train import optimizer

_DROPOUT_STREAM = 2**31  # split(key, n)[i], which draws weights, is fold_in(key, i)

# loss(params, batch, key) -> (sum of nats, {"weight": ..., other sums})
Loss = Callable[[dict, dict, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]


class TrainState(NamedTuple):
    """What a step changes."""

    params: dict
    optimizer: Any
    step: jax.Array  # int32 scalar


def init_state(params: dict, settings: OptimSettings) -> TrainState:
    """The state before the first step."""
    inner = optimizer.direction(settings).init(params)
    return TrainState(params=params, optimizer=inner, step=jnp.zeros((), jnp.int32))


def make_train_step(loss: Loss, settings: OptimSettings) -> Callable:
    """Returns train_step(state, batch, hparams) -> (state, sums).

    Args:
      loss: as above; its gradient is divided by its own "weight", so that a batch with
        fewer targets counts as a smaller sum, not as a smaller mean.
      settings: which optimizer; the rates and dropout's seed come with hparams.
    """
    transform = optimizer.direction(settings)

    def train_step(state: TrainState, batch: dict, hparams: dict):
        key = jax.random.fold_in(jax.random.key(hparams["seed"]), _DROPOUT_STREAM)
        step_key = jax.random.fold_in(key, state.step)
        (nats, sums), gradients = jax.value_and_grad(loss, has_aux=True)(
            state.params, batch, step_key
        )
        weight = jnp.maximum(sums["weight"], 1.0)
        gradients = jax.tree.map(lambda leaf: leaf / weight, gradients)
        directions, inner = transform.update(gradients, state.optimizer, state.params)
        params = optimizer.apply_direction(
            settings, state.params, directions, state.step, hparams
        )
        norm = optax.tree.norm(gradients)
        sums = {"nats": nats, "gradient_norm": norm, "steps": jnp.float32(1.0), **sums}
        return TrainState(params=params, optimizer=inner, step=state.step + 1), sums

    return train_step
