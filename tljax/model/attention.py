"""Attention inside segments: a position sees its own segment, and no later position.

    weights = softmax(q k^T / sqrt(E) + mask)        (Vaswani et al. 2017, equation 1)

    segments  1 1 1 2 2 0      a packed row; 0 is padding
    row 4     . . . x x .      what the last position of segment 2 sees

Positions are rotary, hence relative: a segment may start anywhere in its row.
"""

import functools

import jax
import jax.numpy as jnp

from tljax.model.product import in_rows, transposed

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
    groups = q_BQHE.shape[2] // k_BKHE.shape[2]
    if groups > 1:
        k_BKHE = jnp.repeat(k_BKHE, groups, axis=2)
        v_BKHE = jnp.repeat(v_BKHE, groups, axis=2)
    q_BHQE, k_BHKE, v_BHKE = (
        in_rows(x.transpose(0, 2, 1, 3)) for x in (q_BQHE, k_BKHE, v_BKHE)
    )
    mixed_BHQE = _mix(causal, q_BHQE, k_BHKE, v_BHKE, segments_BL)
    return in_rows(mixed_BHQE.transpose(0, 2, 1, 3))


def _blocks(length: int, causal: bool) -> list[tuple[slice, slice]]:
    """Pairs of (query positions, key positions that they may see)."""
    step = _BLOCK if causal and length % _BLOCK == 0 else length
    return [
        (slice(start, start + step), slice(0, start + step if causal else length))
        for start in range(0, length, step)
    ]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _mix(causal, q_BHQE, k_BHKE, v_BHKE, segments_BL):
    return _forward(causal, q_BHQE, k_BHKE, v_BHKE, segments_BL)[0]


def _forward(causal, q_BHQE, k_BHKE, v_BHKE, segments_BL):
    length, width = q_BHQE.shape[2:]
    mixed, weights = [], []
    for queries, keys in _blocks(length, causal):
        scores_BHQK = q_BHQE[:, :, queries] @ transposed(k_BHKE[:, :, keys])
        mask_BQK = segments_BL[:, queries, None] == segments_BL[:, None, keys]
        if causal:
            query_Q, key_K = jnp.arange(length)[queries], jnp.arange(length)[keys]
            mask_BQK &= (query_Q[:, None] >= key_K[None])[None]
        scores_BHQK = scores_BHQK.astype(jnp.float32) * width**-0.5
        weights_BHQK = jax.nn.softmax(
            jnp.where(mask_BQK[:, None], scores_BHQK, _MASKED), axis=-1
        ).astype(v_BHKE.dtype)
        weights.append(weights_BHQK)
        mixed.append(weights_BHQK @ v_BHKE[:, :, keys])
    mixed_BHQE = jnp.concatenate(mixed, axis=2)
    return mixed_BHQE, (q_BHQE, k_BHKE, v_BHKE, weights)


def _backward(causal, saved, gradient_BHQE):
    """With weights p, scores s and g the gradient of the mix:

    dv = p^T g,  ds = p x (g v^T - sum(p x g v^T)) / sqrt(E),  dq = ds k,  dk = ds^T q.
    """
    q_BHQE, k_BHKE, v_BHKE, weights = saved
    length, width = q_BHQE.shape[2:]
    dq, dk_BHKE = [], jnp.zeros(k_BHKE.shape, jnp.float32)
    dv_BHKE = jnp.zeros(v_BHKE.shape, jnp.float32)
    for (queries, keys), p_BHQK in zip(_blocks(length, causal), weights, strict=True):
        g_BHQE = gradient_BHQE[:, :, queries]
        dv_BHKE = dv_BHKE.at[:, :, keys].add(transposed(p_BHQK) @ g_BHQE)
        pull_BHQK = (g_BHQE @ transposed(v_BHKE[:, :, keys])).astype(jnp.float32)
        wide_BHQK = p_BHQK.astype(jnp.float32)
        mean_BHQ1 = (wide_BHQK * pull_BHQK).sum(axis=-1, keepdims=True)
        ds_BHQK = wide_BHQK * (pull_BHQK - mean_BHQ1) * width**-0.5
        ds_BHQK = ds_BHQK.astype(q_BHQE.dtype)
        dq.append(ds_BHQK @ k_BHKE[:, :, keys])
        dk_BHKE = dk_BHKE.at[:, :, keys].add(
            transposed(ds_BHQK) @ q_BHQE[:, :, queries]
        )
    dk_BHKE, dv_BHKE = (x.astype(k_BHKE.dtype) for x in (dk_BHKE, dv_BHKE))
    return jnp.concatenate(dq, axis=2), dk_BHKE, dv_BHKE, None


_mix.defvjp(_forward, _backward)
