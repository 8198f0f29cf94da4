"""Token states -> one vector a segment -> class logits.

Row of three segments, M = 3:   states_BLD  a a b b b c .   ->  pooled_BMD  ā  b̄  c̄
"""

import jax
import jax.numpy as jnp

from tljax.model.block import read
from tljax.model.product import product

ONE_TOKEN = ("last", "cls")  # poolings that take one token of each segment


def init_classifier(width: int, classes: int, key: jax.Array) -> dict:
    """A linear classifier on pooled states; small weights, no bias towards a class."""
    return {
        "kernel": jax.random.normal(key, (width, classes)) * width**-0.5 * 0.1,
        "bias": jnp.zeros(classes),
    }


def places(segments_BL: jax.Array, slots: int, pooling: str) -> jax.Array:
    """Where in its row the token stands that a pooling of ONE_TOKEN takes, [B, M].

    Args: as for `pool`. Of an empty slot it is any place.
    """
    member_BML = _members(segments_BL, slots)
    if pooling == "cls":
        return member_BML.argmax(axis=2)
    return segments_BL.shape[1] - 1 - member_BML[:, :, ::-1].argmax(axis=2)


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
    if pooling in ONE_TOKEN:
        read_BM = places(segments_BL, slots, pooling)
        return of_slots(read(states_BLD, read_BM), segments_BL)
    wide_BLD = states_BLD.astype(jnp.float32)
    member_BML = _members(segments_BL, slots)
    if pooling == "max":
        shown = jnp.where(member_BML[..., None], wide_BLD[:, None], -jnp.inf)
        most_BMD = shown.max(axis=2)
        return jnp.where(member_BML.any(axis=2)[..., None], most_BMD, 0.0)
    weights_BML = member_BML.astype(jnp.float32)
    count_BM1 = jnp.maximum(weights_BML.sum(axis=2, keepdims=True), 1.0)
    return jnp.einsum("bml,bld->bmd", weights_BML / count_BM1, wide_BLD)


def of_slots(states_BMD: jax.Array, segments_BL: jax.Array) -> jax.Array:
    """States at `places` as `pool` returns them: float32, zeros in empty slots."""
    filled_BM = _members(segments_BL, states_BMD.shape[1]).any(axis=2)
    return jnp.where(filled_BM[..., None], states_BMD.astype(jnp.float32), 0.0)


def _members(segments_BL, slots):
    """Whether a place belongs to a slot's segment, bool [B, M, L]."""
    slot_M = jnp.arange(1, slots + 1)
    return segments_BL[:, None, :] == slot_M[None, :, None]


def classify(params: dict, pooled_BMD: jax.Array) -> jax.Array:
    """Class logits [B, M, C], float32."""
    flat = pooled_BMD.reshape(-1, pooled_BMD.shape[-1])
    logits = product(flat, params["kernel"]) + params["bias"][None]
    return logits.reshape(*pooled_BMD.shape[:2], -1)
