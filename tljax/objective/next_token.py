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

_AT_ONCE = 2**26  # logits of a step up to which blocks are unrolled, XLA overlaps them


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


def _block_tokens(vocab: int) -> int:
    """A CPU keeps a block of logits small; accelerators want large products."""
    if jax.default_backend() != "cpu":
        return 8192
    return max(1, min(1024, 2**23 // vocab))


def _blocks(hidden_BLD, output_VD, targets_BL, *, gradients):
    """Walks over blocks of positions; batch rows stay together (and sharded).

    Few logits are unrolled: XLA works on blocks side by side, with the memory of all.
    Many are scanned: one block's memory.
    """
    batch, length, width = hidden_BLD.shape
    step = max(1, min(length, _block_tokens(output_VD.shape[0]) // batch))
    blocks = -(-length // step)
    dtype = hidden_BLD.dtype
    output = output_VD.astype(dtype)
    output_DV = transposed(output)

    def cut(x_BL, fill):
        """Blocks first; what the last one lacks is filled."""
        more = [(0, 0), (0, blocks * step - length)] + [(0, 0)] * (x_BL.ndim - 2)
        x_BL = jnp.pad(x_BL, more, constant_values=fill) if more[1][1] else x_BL
        x_BTS = x_BL.reshape(batch, blocks, step, *x_BL.shape[2:])
        return jnp.moveaxis(x_BTS, 1, 0)

    def join(x_TBS):
        x_BTS = jnp.moveaxis(x_TBS, 0, 1)
        x_BL = x_BTS.reshape(batch, blocks * step, *x_BTS.shape[3:])
        return x_BL[:, :length]

    def one(kernel_gradient_DV, block):
        hidden_ND, target_N = block[0].reshape(-1, width), block[1].reshape(-1)
        weight_N = (target_N >= 0).astype(jnp.float32)
        logits_NV = (hidden_ND @ output_DV).astype(jnp.float32)
        peak_N = logits_NV.max(axis=-1)
        exp_NV = jnp.exp(logits_NV - peak_N[:, None])
        sum_N = exp_NV.sum(axis=-1)
        wanted_ND = output[jnp.maximum(target_N, 0)]
        chosen_N = (hidden_ND * wanted_ND).sum(axis=-1, dtype=jnp.float32)
        nats_N = weight_N * (jnp.log(sum_N) + peak_N - chosen_N)
        if not gradients:
            return kernel_gradient_DV, (nats_N.reshape(batch, step), None)
        p_NV = (exp_NV * (weight_N / sum_N)[:, None]).astype(dtype)
        pull_ND = p_NV @ output - wanted_ND * weight_N[:, None].astype(dtype)
        kernel_gradient_DV += (transposed(hidden_ND) @ p_NV).astype(jnp.float32)
        pulled = nats_N.reshape(batch, step), pull_ND.reshape(batch, step, width)
        return kernel_gradient_DV, pulled

    start_DV = jnp.zeros(output_DV.shape if gradients else ())
    few = batch * length * output_VD.shape[0] <= _AT_ONCE
    kernel_gradient_DV, (nats, pulls) = jax.lax.scan(
        one, start_DV, (cut(hidden_BLD, 0), cut(targets_BL, -1)),
        unroll=blocks if few else 1,
    )  # fmt: skip
    nats_BL = join(nats)
    if not gradients:
        return nats_BL, None
    shown_BLD = hidden_BLD * (targets_BL >= 0)[..., None].astype(dtype)
    output_gradient_VD = kernel_gradient_DV.T.at[jnp.maximum(targets_BL, 0)].add(
        -shown_BLD.astype(jnp.float32)
    )
    return nats_BL, (join(pulls), output_gradient_VD)
