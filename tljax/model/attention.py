"""Attention inside segments: a position sees its own segment, and no later position.

    weights = softmax(q k^T / sqrt(E) + mask)        (Vaswani et al. 2017, equation 1)

    segments  1 1 1 2 2 0      a packed row; 0 is padding
    row 4     . . . x x .      what the last position of segment 2 sees

Positions are rotary, hence relative: a segment may start anywhere in its row.
"""

import jax
import jax.numpy as jnp

_BLOCK = 64  # query rows that share one block of keys; skips the upper triangle
_MASKED = -1e9


def rotate(x_BLHE: jax.Array, base: float) -> jax.Array:
    """Turns channel pairs by position x base^(-2i/E) (RoFormer, equation 34)."""
    length, width = x_BLHE.shape[1], x_BLHE.shape[-1]
    frequency_E = base ** (-jnp.arange(0, width, 2, dtype=jnp.float32) / width)
    angle_LE = jnp.arange(length, dtype=jnp.float32)[:, None] * frequency_E[None]
    cos_LHE, sin_LHE = jnp.cos(angle_LE)[:, None], jnp.sin(angle_LE)[:, None]
    first, second = jnp.split(x_BLHE.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate(
        [
            first * cos_LHE[None] - second * sin_LHE[None],
            second * cos_LHE[None] + first * sin_LHE[None],
        ],
        axis=-1,
    )
    return turned.astype(x_BLHE.dtype)


def attend(
    q_BQHE: jax.Array,
    k_BKHE: jax.Array,
    v_BKHE: jax.Array,
    segments_BL: jax.Array,
    *,
    causal: bool,
) -> jax.Array:
    """Mixes values over each query's own segment.

    Args:
      q_BQHE: queries; q's heads are a multiple of k's and v's (grouped queries).
      k_BKHE: keys.
      v_BKHE: values.
      segments_BL: int32, 0 = padding; no attention crosses segments.
      causal: whether later positions are hidden.

    Returns:
      Mixed values [B, Q, H, E] in q's dtype. A padding position sees padding only.
    """
    batch, length, heads, width = q_BQHE.shape
    groups = heads // k_BKHE.shape[2]
    if groups > 1:
        k_BKHE = jnp.repeat(k_BKHE, groups, axis=2)
        v_BKHE = jnp.repeat(v_BKHE, groups, axis=2)
    q_BHQE, k_BHKE, v_BHKE = (
        x.transpose(0, 2, 1, 3) for x in (q_BQHE * width**-0.5, k_BKHE, v_BKHE)
    )
    step = _BLOCK if causal and length % _BLOCK == 0 else length
    blocks = []
    for start in range(0, length, step):
        seen = slice(0, start + step if causal else length)
        scores_BHQK = jnp.einsum(
            "bhqe,bhke->bhqk", q_BHQE[:, :, start : start + step], k_BHKE[:, :, seen]
        ).astype(jnp.float32)
        mask_BQK = (
            segments_BL[:, start : start + step, None] == segments_BL[:, None, seen]
        )
        if causal:
            query_Q, key_K = jnp.arange(start, start + step), jnp.arange(seen.stop)
            mask_BQK &= (query_Q[:, None] >= key_K[None])[None]
        weights_BHQK = jax.nn.softmax(
            jnp.where(mask_BQK[:, None], scores_BHQK, _MASKED), axis=-1
        )
        blocks.append(
            jnp.einsum(
                "bhqk,bhke->bhqe",
                weights_BHQK.astype(v_BHKE.dtype),
                v_BHKE[:, :, seen],
            )
        )
    mixed_BHQE = jnp.concatenate(blocks, axis=2)
    return mixed_BHQE.transpose(0, 2, 1, 3)
