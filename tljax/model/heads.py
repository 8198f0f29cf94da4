"""Token states -> one vector a segment -> class logits.

Row of three segments, M = 3:   states_BLD  a a b b b c .   ->  pooled_BMD  ā  b̄  c̄
"""

import jax
import jax.numpy as jnp

from tljax.model.product import product


def init_classifier(width: int, classes: int, key: jax.Array) -> dict:
    """A linear classifier on pooled states; small weights, no bias towards a class."""
    return {
        "kernel": jax.random.normal(key, (width, classes)) * width**-0.5 * 0.1,
        "bias": jnp.zeros(classes),
    }


def pool(
    states_BLD: jax.Array, segments_BL: jax.Array, slots: int, pooling: str
) -> jax.Array:
    """One vector a segment.

    Args:
      states_BLD: hidden states.
      segments_BL: int32; 0 = padding, m + 1 = slot m.
      slots: M.
      pooling: 'mean', 'last' or 'cls' (the segment's last or first token), 'max'.

    Returns:
      pooled_BMD in float32; zeros in empty slots.
    """
    wide_BLD = states_BLD.astype(jnp.float32)
    slot_M = jnp.arange(1, slots + 1)
    member_BML = segments_BL[:, None, :] == slot_M[None, :, None]
    if pooling == "max":
        shown = jnp.where(member_BML[..., None], wide_BLD[:, None], -jnp.inf)
        most_BMD = shown.max(axis=2)
        return jnp.where(member_BML.any(axis=2)[..., None], most_BMD, 0.0)
    weights_BML = member_BML.astype(jnp.float32)
    if pooling in ("last", "cls"):
        seen_BML = jnp.cumsum(weights_BML, axis=2)
        wanted_BM1 = weights_BML.sum(axis=2, keepdims=True) if pooling == "last" else 1
        weights_BML *= seen_BML == wanted_BM1
    count_BM1 = jnp.maximum(weights_BML.sum(axis=2, keepdims=True), 1.0)
    return jnp.einsum("bml,bld->bmd", weights_BML / count_BM1, wide_BLD)


def classify(params: dict, pooled_BMD: jax.Array) -> jax.Array:
    """Class logits [B, M, C], float32."""
    flat = pooled_BMD.reshape(-1, pooled_BMD.shape[-1])
    logits = product(flat, params["kernel"]) + params["bias"][None]
    return logits.reshape(*pooled_BMD.shape[:2], -1)
