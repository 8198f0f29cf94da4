"""Next-word prediction: sum over targets of -log softmax(h E^T)[target].

The gradient is computed in the forward pass, block by block of positions, so that the
[tokens, V] logits are never kept: with p = softmax(h E^T) and y the one-hot target,
    dh = (p - y) E,    dE = (p - y)^T h.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from tljax.model import transformer
from tljax.model.product import transposed
from tljax.settings import ModelSettings


def language_loss(settings: ModelSettings) -> Callable:
    """Returns loss(params, batch, key) -> (nats, {"weight"})."""

    def loss(params, batch, key):
        hidden_BLD = transformer.apply(settings, params, batch, dropout_key=key)
        output_VD = transformer.output_matrix(params)
        nats, weight = next_token_loss(hidden_BLD, output_VD, batch["targets_BL"])
        return nats, {"weight": weight}

    return loss


def next_token_loss(
    hidden_BLD: jax.Array, output_VD: jax.Array, targets_BL: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Loss of predicting targets from hidden states.

    Args:
      hidden_BLD: final hidden states.
      output_VD: output matrix, float32.
      targets_BL: int32; -1 where nothing is to be predicted.

    Returns:
      (sum of nats, number of targets), both float32.
    """
    weight = (targets_BL >= 0).sum().astype(jnp.float32)
    return _sum_nats(hidden_BLD, output_VD, targets_BL), weight


def token_nats(
    hidden_BLD: jax.Array, output_VD: jax.Array, targets_BL: jax.Array
) -> jax.Array:
    """Nats of each target, float32 [B, L]; 0 where nothing is predicted."""
    nats_BL, _ = _blocks(hidden_BLD, output_VD, targets_BL, gradients=False)
    return nats_BL


@jax.custom_vjp
def _sum_nats(hidden_BLD, output_VD, targets_BL):
    return token_nats(hidden_BLD, output_VD, targets_BL).sum()


def _forward(hidden_BLD, output_VD, targets_BL):
    nats_BL, saved = _blocks(hidden_BLD, output_VD, targets_BL, gradients=True)
    return nats_BL.sum(), saved


def _backward(saved, scale):
    hidden, output = saved
    return hidden * scale.astype(hidden.dtype), output * scale, None


_sum_nats.defvjp(_forward, _backward)


def _block_tokens() -> int:
    """A CPU keeps a block of logits in its cache; accelerators want large products."""
    return 1024 if jax.default_backend() == "cpu" else 8192


def _blocks(hidden_BLD, output_VD, targets_BL, *, gradients):
    """Walks over blocks of positions; batch rows stay together (and sharded)."""
    batch, length, width = hidden_BLD.shape
    step = max(1, min(length, _block_tokens() // batch))
    dtype = hidden_BLD.dtype
    output = output_VD.astype(dtype)
    output_DV = transposed(output)
    nats, pulls, kernel_gradient_DV = [], [], 0.0
    for start in range(0, length, step):
        hidden_ND = hidden_BLD[:, start : start + step].reshape(-1, width)
        target_N = targets_BL[:, start : start + step].reshape(-1)
        weight_N = (target_N >= 0).astype(jnp.float32)
        logits_NV = (hidden_ND @ output_DV).astype(jnp.float32)
        peak_N = logits_NV.max(axis=-1)
        exp_NV = jnp.exp(logits_NV - peak_N[:, None])
        sum_N = exp_NV.sum(axis=-1)
        wanted_ND = output[jnp.maximum(target_N, 0)]
        chosen_N = (hidden_ND * wanted_ND).sum(axis=-1, dtype=jnp.float32)
        nats_N = weight_N * (jnp.log(sum_N) + peak_N - chosen_N)
        nats.append(nats_N.reshape(batch, -1))
        if gradients:
            p_NV = (exp_NV * (weight_N / sum_N)[:, None]).astype(dtype)
            pull_ND = p_NV @ output - wanted_ND * weight_N[:, None].astype(dtype)
            pulls.append(pull_ND.reshape(batch, -1, width))
            kernel_gradient_DV += (transposed(hidden_ND) @ p_NV).astype(jnp.float32)
    nats_BL = jnp.concatenate(nats, axis=1)
    if not gradients:
        return nats_BL, None
    shown_BLD = hidden_BLD * (targets_BL >= 0)[..., None].astype(dtype)
    output_gradient_VD = kernel_gradient_DV.T.at[jnp.maximum(targets_BL, 0)].add(
        -shown_BLD.astype(jnp.float32)
    )
    return nats_BL, (jnp.concatenate(pulls, axis=1), output_gradient_VD)
