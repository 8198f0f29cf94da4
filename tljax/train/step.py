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

from tljax.settings import UNREGULARIZED, OptimSettings, RegularizeSettings
from tljax.train import optimizer
from tljax.transfer.start import pull

_DROPOUT_STREAM = 2**31  # split(key, n)[i], which draws weights, is fold_in(key, i)

# loss(params, batch, key) -> (sum of nats, {"weight": ..., other sums})
# batch["hparams"] holds the traced numbers of the member, batch["step"] the step
Loss = Callable[[dict, dict, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]


class TrainState(NamedTuple):
    """What a step changes."""

    params: dict
    optimizer: Any
    step: jax.Array  # int32 scalar
    average: dict | None = None  # of params over the steps, where it is on

    @property
    def chosen(self) -> dict:
        """The parameters that are validated and kept."""
        return self.params if self.average is None else self.average


def init_state(
    params: dict,
    settings: OptimSettings,
    regularize: RegularizeSettings = UNREGULARIZED,
) -> TrainState:
    """The state before the first step."""
    return TrainState(
        params=params,
        optimizer=optimizer.direction(settings).init(params),
        step=jnp.zeros((), jnp.int32),
        average=jax.tree.map(jnp.copy, params) if regularize.ema else None,
    )


def make_train_step(
    loss: Loss, settings: OptimSettings, regularize: RegularizeSettings = UNREGULARIZED
) -> Callable:
    """Returns train_step(state, batch, hparams) -> (state, sums).

    Args:
      loss: as above; it is divided by its own "weight", so that a batch with fewer
        targets counts as a smaller sum, not as a smaller mean.
      settings: which optimizer; the rates and dropout's seed come with hparams.
      regularize: what of it acts on parameters; l2_start reads batch["start"].
    """
    transform = optimizer.direction(settings)

    def train_step(state: TrainState, batch: dict, hparams: dict):
        key = jax.random.fold_in(jax.random.key(hparams["seed"]), _DROPOUT_STREAM)
        step_key = jax.random.fold_in(key, state.step)
        batch = {**batch, "hparams": hparams, "step": state.step}

        def mean(params):
            nats, sums = loss(params, batch, step_key)
            weight = jax.lax.stop_gradient(jnp.maximum(sums["weight"], 1.0))
            return nats / weight, {"nats": nats, **sums}

        gradients, sums = jax.grad(mean, has_aux=True)(state.params)
        gradients, norm = optimizer.clip(gradients, settings.clip_norm)
        directions, inner = transform.update(gradients, state.optimizer, state.params)
        if regularize.l2_start:
            start, strength = batch["start"], hparams["l2_start"]
            directions = pull(directions, state.params, start, strength)
        params = optimizer.apply_direction(
            settings, state.params, directions, state.step, hparams
        )
        average = state.average
        if regularize.ema:
            average = averaged(average, params, state.step, hparams["ema"])
        sums = {"gradient_norm": norm, "steps": jnp.float32(1.0), **sums}
        return TrainState(params, inner, state.step + 1, average), sums

    return train_step


def averaged(average: dict, params: dict, step: jax.Array, decay: jax.Array) -> dict:
    """The average with the parameters that step (from 0) ends with.

    Step t of T weighs decay^(T - t) / their sum: the first average is the parameters.

    Source: Polyak & Juditsky 1992, decaying and without bias as in Adam (Kingma & Ba
    2015, section 3), written so that the average is unbiased at every step.
    """
    # (1 - decay) / (1 - decay^t), where decay may be all but 1
    log = jnp.log(decay)
    weight = jnp.expm1(log) / jnp.expm1((step + 1).astype(jnp.float32) * log)
    return optax.incremental_update(params, average, weight)
