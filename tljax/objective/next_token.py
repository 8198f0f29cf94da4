"""Next-word prediction: sum over targets of -log softmax(h E^T)[target].

The gradient is computed in the forward pass, block by block of positions, so that the
[tokens, V] logits are never kept: with p = softmax(h E^T) and y the one-hot target,
    dh = (p - y) E,    dE = (p - y)^T h.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from tljax.model import transformer
from tljax.model.product import (
    by_onednn,
    times_transposed,
    transposed,
    wide_product,
)
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


def _block(vocab: int, width: int) -> tuple[int, int]:
    """Tokens, and words of the vocabulary, of one product.

    A CPU keeps a block of logits small, and some words' weights, a megabyte, in a
    core's cache; accelerators want large products.
    """
    if jax.default_backend() != "cpu":
        return 8192, vocab
    if by_onednn():  # which walks over the weights block by block itself
        words = 4096
    else:
        words = max(1024, min(2**19 // width, 2048))
    return max(1, min(2048, 2**24 // vocab)), words


def _blocks(hidden_BLD, output_VD, targets_BL, *, gradients):
    """Walks over blocks of positions; batch rows stay together (and sharded).

    Few logits are unrolled: XLA works on blocks side by side, with the memory of all.
    Many are scanned: one block's memory. exp_NC is not divided by the sum over
    all words: what it is multiplied with is.
    """
    batch, length, width = hidden_BLD.shape
    tokens, words = _block(*output_VD.shape)
    step = max(1, min(length, tokens // batch))
    blocks = -(-length // step)
    dtype = hidden_BLD.dtype
    output = output_VD.astype(dtype)
    parts_CD = [output[i : i + words] for i in range(0, output.shape[0], words)]

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

    def one(gradients_DC, block):
        hidden_ND, target_N = block[0].reshape(-1, width), block[1].reshape(-1)
        weight_N = (target_N >= 0).astype(jnp.float32)
        logits_NC = [times_transposed(hidden_ND, part_CD) for part_CD in parts_CD]
        peaks_N = [one_NC.max(axis=-1) for one_NC in logits_NC]
        peak_N = functools.reduce(jnp.maximum, peaks_N).astype(jnp.float32)
        exp_NC = [
            jnp.exp(one_NC.astype(jnp.float32) - peak_N[:, None]).astype(dtype)
            for one_NC in logits_NC
        ]
        sum_N = sum(one_NC.sum(axis=-1, dtype=jnp.float32) for one_NC in exp_NC)
        wanted_ND = output[jnp.maximum(target_N, 0)]
        chosen_N = (hidden_ND * wanted_ND).sum(axis=-1, dtype=jnp.float32)
        nats_N = weight_N * (jnp.log(sum_N) + peak_N - chosen_N)
        if not gradients:
            return gradients_DC, (nats_N.reshape(batch, step), None)
        share_N1 = (weight_N / sum_N)[:, None]
        mixed_ND = sum(
            wide_product(one_NC, part_CD)
            for one_NC, part_CD in zip(exp_NC, parts_CD, strict=True)
        )
        pull_ND = mixed_ND * share_N1 - wanted_ND * weight_N[:, None]
        shared_DN = transposed((hidden_ND * share_N1).astype(dtype))
        gradients_DC = [
            sum_DC + wide_product(shared_DN, one_NC)
            for sum_DC, one_NC in zip(gradients_DC, exp_NC, strict=True)
        ]
        pull_BSD = pull_ND.astype(dtype).reshape(batch, step, width)
        return gradients_DC, (nats_N.reshape(batch, step), pull_BSD)

    start_DC = [jnp.zeros(one.shape[::-1]) for one in parts_CD] if gradients else []
    few = batch * length * output_VD.shape[0] <= _AT_ONCE
    gradients_DC, (nats, pulls) = jax.lax.scan(
        one, start_DC, (cut(hidden_BLD, 0), cut(targets_BL, -1)),
        unroll=blocks if few else 1,
    )  # fmt: skip
    nats_BL = join(nats)
    if not gradients:
        return nats_BL, None
    shown_BLD = hidden_BLD * (targets_BL >= 0)[..., None].astype(dtype)
    # one by one: XLA transposes slowly what it joins in the same loop
    gradients_CD = [transposed(one_DC, always=True) for one_DC in gradients_DC]
    gradient_VD = jnp.concatenate(gradients_CD)
    gradient_VD = gradient_VD.at[jnp.maximum(targets_BL, 0)].add(
        -shown_BLD.astype(jnp.float32)
    )
    return nats_BL, (join(pulls), gradient_VD)
