"""Attention inside segments: a position sees its own segment, and no later position.

weights = softmax(q k^T x scale + mask)          (Vaswani et al. 2017, equation 1)

segments  1 1 1 2 2 0      a packed row; 0 is padding
row 4     . . . x x .      what the last position of segment 2 sees
window 2  . . . x x .      at most 2 of them, the last ones; 0 = all

Keys that an adapter puts before the row are seen by all of its positions.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tljax.model.product import (
    by_onednn,
    cuda_capability,
    in_rows,
    sum_last,
    times_transposed,
    transposed,
    unrounded,
    wide_product,
)
from tljax.settings import ModelSettings

_BLOCK = 64  # query rows that share one block of keys; skips the upper triangle
_BLOCKS = 8  # of a row: beyond, they grow, for each takes its time to compile
_MASKED = -1e9


def rotary_frequencies(settings: ModelSettings, *, window: int) -> np.ndarray:
    """Radians a position of each channel pair, float32 [E / 2].

    base^(-2i/E), slowed as rope_scaling says; layers with a window may have a base of
    their own, which is not slowed (Gemma 3).

    Source: RoFormer, equation 15; Chen et al. 2023 (linear); Llama 3.1's report and
    code for 'llama3', which interpolates between slowed and not by wavelength.
    """
    s = settings
    local = window and s.rope_local_base
    base = s.rope_local_base if local else s.rope_base
    width = head_width(s)
    exponent_E = np.arange(0, width, 2, dtype=np.float32) / np.float32(width)
    frequency_E = np.float32(1) / np.float32(base) ** exponent_E
    if local or s.rope_scaling == "none":
        return frequency_E
    slowed_E = frequency_E / np.float32(s.rope_factor)
    if s.rope_scaling == "linear":
        return slowed_E
    waves_E = s.rope_context * frequency_E / np.float32(2 * np.pi)
    low, high = s.rope_low_factor, s.rope_high_factor
    kept_E = np.clip((waves_E - low) / (high - low), 0, 1).astype(np.float32)
    return kept_E * frequency_E + (1 - kept_E) * slowed_E


def head_width(settings: ModelSettings) -> int:
    """Width of a head, E."""
    return settings.head_width or settings.width // settings.heads


def rotate(
    x_BLHE: jax.Array, frequency_E: np.ndarray, position_BL: jax.Array | None = None
) -> jax.Array:
    """Turns channel pairs (i, i + E/2) by position x frequency (RoFormer, eq. 34).

    Without positions, a row counts from 0: scores depend on differences only, so that a
    segment may start anywhere in its row. The angles are constants then: cosines inside
    the program are computed again for every head.
    """
    if position_BL is None:
        xp, position_BL = np, np.arange(x_BLHE.shape[1], dtype=np.float32)[None]
    else:
        xp, position_BL = jnp, position_BL.astype(jnp.float32)
    angle_BLE = position_BL[..., None] * frequency_E[None, None]
    cos_BLHE, sin_BLHE = (f(angle_BLE)[:, :, None] for f in (xp.cos, xp.sin))
    return _turn(True, x_BLHE, cos_BLHE, sin_BLHE)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _turn(heads_first, x_BLHE, cos_BLHE, sin_BLHE):
    """(a, b) -> (a cos - b sin, b cos + a sin), a and b being halves of the channels.

    As one sum for both, a loop of XLA's; two of their own, it would have to join. It is
    laid out before it is joined, for over whole heads the loop has no vectors: head by
    head, as `attend` wants it, and its gradient position by position, as products do.
    """
    halves = (*x_BLHE.shape[:-1], 2, x_BLHE.shape[-1] // 2)
    x = x_BLHE.reshape(halves).astype(jnp.float32)
    of_a = jnp.stack([cos_BLHE, sin_BLHE], axis=-2)
    of_b = jnp.stack([-sin_BLHE, cos_BLHE], axis=-2)
    turned = (x[..., :1, :] * of_a + x[..., 1:, :] * of_b).astype(x_BLHE.dtype)
    if not heads_first:
        return in_rows(turned, always=True).reshape(x_BLHE.shape)
    turned = in_rows(turned.swapaxes(1, 2), always=True)
    return turned.reshape(*turned.shape[:3], -1).swapaxes(1, 2)


def _turn_forward(heads_first, x_BLHE, cos_BLHE, sin_BLHE):
    return _turn(heads_first, x_BLHE, cos_BLHE, sin_BLHE), (cos_BLHE, sin_BLHE)


def _turn_back(heads_first, saved, gradient_BLHE):
    cos_BLHE, sin_BLHE = saved
    return _turn(not heads_first, gradient_BLHE, cos_BLHE, -sin_BLHE), None, None


_turn.defvjp(_turn_forward, _turn_back)


class Reach(NamedTuple):
    """What a layer's queries may see, and how scores are scaled."""

    causal: bool
    window: int
    scale: float


def kernel(q_BQHE: jax.Array, k_BKHE: jax.Array, *, flash: bool = True) -> str:
    """Which kernel mixes on the default device: 'blocks', 'cudnn' or 'xla'.

    blocks  a CPU: `_mix`, with layouts and a derivative of its own
    cudnn   NVIDIA from Ampere on: flash attention, whose scores never reach memory; it
            takes 16 bits, heads of 8, 16 ... 128 channels (from Hopper on 256), and,
            with a mask, even lengths
    xla     what is left: TPUs, float32, odd sizes; XLA fuses plain attention

    Args:
      q_BQHE: queries, of which shape and dtype are read.
      k_BKHE: keys, likewise.
      flash: whether cuDNN may be taken.
    """
    if jax.default_backend() == "cpu":
        return "blocks"
    capability, width = cuda_capability(), q_BQHE.shape[-1]
    fits = (
        q_BQHE.dtype == k_BKHE.dtype == jnp.bfloat16
        and width % 8 == 0
        and width <= (256 if capability >= 9 else 128)
        and q_BQHE.shape[1] % 2 == k_BKHE.shape[1] % 2 == 0
    )
    return "cudnn" if flash and capability >= 8 and fits else "xla"


def attend(
    q_BQHE: jax.Array,
    k_BKHE: jax.Array,
    v_BKHE: jax.Array,
    segments_BL: jax.Array | None,
    reach: Reach,
    *,
    flash: bool = True,
) -> jax.Array:
    """Mixes values over each query's own segment, by the device's `kernel`.

    Args:
      q_BQHE: queries; q's heads are a multiple of k's and v's (grouped queries).
      k_BKHE: keys; the first K - Q of them, if there are more than queries, stand
        before the row and are seen by every query.
      v_BKHE: values.
      segments_BL: int32, 0 = padding; no attention crosses segments. None = every row
        is one segment, which cuDNN computes without a mask.
      reach: whether later positions are hidden, how far back is seen, the scale.
      flash: as for `kernel`.

    Returns:
      Mixed values [B, Q, H, E] in q's dtype. A padding position sees padding only
      (and what stands before the row).
    """
    chosen = kernel(q_BQHE, k_BKHE, flash=flash)
    if chosen != "blocks":
        return _mix_fused(reach, q_BQHE, k_BKHE, v_BKHE, segments_BL, chosen)
    if segments_BL is None:
        segments_BL = _one_segment(q_BQHE)
    groups = q_BQHE.shape[2] // k_BKHE.shape[2]
    if groups > 1:
        k_BKHE = jnp.repeat(k_BKHE, groups, axis=2)
        v_BKHE = jnp.repeat(v_BKHE, groups, axis=2)
    q_BHQE, k_BHKE, v_BHKE = (
        in_rows(x.transpose(0, 2, 1, 3)) for x in (q_BQHE, k_BKHE, v_BKHE)
    )
    mixed_BHQE = _mix(reach, q_BHQE, k_BHKE, v_BHKE, segments_BL)
    return in_rows(mixed_BHQE.transpose(0, 2, 1, 3))


def _mix_fused(reach, q_BQHE, k_BKHE, v_BKHE, segments_BL, implementation):
    """`attend` by jax.nn: a mask [B, 1, Q, K], shared by the heads, and a hint.

    All that is hidden stands in the mask; that later positions are is said once more,
    so that cuDNN skips the upper triangle instead of computing and hiding it. It counts
    from the first key, so that it may not be said where keys stand before the row.
    """
    queries, keys = q_BQHE.shape[1], k_BKHE.shape[1]
    before, mask_B1QK = keys - queries, None
    if segments_BL is None and (before or reach.window):
        segments_BL = _one_segment(q_BQHE)
    if segments_BL is not None:
        every = slice(0, queries), slice(0, keys)
        mask_B1QK = _mask(segments_BL, *every, before, reach)[:, None]
    return jax.nn.dot_product_attention(
        q_BQHE, k_BKHE, v_BKHE, mask=mask_B1QK, scale=reach.scale,
        is_causal=reach.causal and not before, implementation=implementation,
    )  # fmt: skip


def _one_segment(q_BQHE):
    return jnp.ones(q_BQHE.shape[:2], jnp.int32)


def seen(query_Q: jax.Array, key_K: jax.Array, reach: Reach) -> jax.Array:
    """Which key places each query place may see, bool [Q, K]."""
    behind_QK = query_Q[:, None] - key_K[None]
    seen_QK = behind_QK >= 0 if reach.causal else jnp.ones_like(behind_QK, bool)
    return seen_QK & (behind_QK < reach.window) if reach.window else seen_QK


def attend_cached(
    q_BQHE: jax.Array,
    k_BHKE: jax.Array,
    v_BHKE: jax.Array,
    mask_BQK: jax.Array,
    scale: float,
) -> jax.Array:
    """As `attend`, for queries that are fewer than the keys: no derivative of its own.

    Args:
      q_BQHE: queries; heads a multiple of the keys' (grouped: no key is copied).
      k_BHKE: keys, those of unused places included, laid out as products want them.
      v_BHKE: values.
      mask_BQK: bool; a query that may see nothing mixes all values evenly.
      scale: of the scores.
    """
    batch, queries, heads, width = q_BQHE.shape
    shared = k_BHKE.shape[1]
    grouped = q_BQHE.reshape(batch, queries, shared, heads // shared, width)
    if (
        queries == 1
    ):  # fused sums: on a CPU, products of one row take five times as long
        q_BHGE = grouped[:, 0].astype(jnp.float32)
        k_BH1KE = k_BHKE[:, :, None].astype(jnp.float32)
        products_BHGKE = q_BHGE[..., None, :] * k_BH1KE
        scores = sum_last(products_BHGKE, beside=2)[..., None, :]
    else:
        scores = jnp.einsum("bqhge,bhke->bhgqk", grouped, k_BHKE).astype(jnp.float32)
    scores = jnp.where(mask_BQK[:, None, None], scores * scale, _MASKED)
    if queries == 1:  # divided once mixed: fewer numbers, and one pass less
        powers = jnp.exp(scores - scores.max(axis=-1, keepdims=True))
        v_BH1KE = v_BHKE[:, :, None].astype(jnp.float32)
        mixed = (powers[..., 0, :, None] * v_BH1KE).sum(axis=-2) / powers.sum(axis=-1)
    else:
        weights = jax.nn.softmax(scores, axis=-1)
        mixed = jnp.einsum("bhgqk,bhke->bqhge", weights.astype(v_BHKE.dtype), v_BHKE)
    return mixed.reshape(q_BQHE.shape).astype(q_BQHE.dtype)


def attend_at(
    q_BMHE: jax.Array,
    k_BKHE: jax.Array,
    v_BKHE: jax.Array,
    segments_BL: jax.Array | None,
    reach: Reach,
    read_BM: jax.Array,
) -> jax.Array:
    """As `attend`, for the queries of a few places of the row: [B, M, H, E]."""
    if segments_BL is None:
        segments_BL = jnp.ones((k_BKHE.shape[0], k_BKHE.shape[1]), jnp.int32)
    before = k_BKHE.shape[1] - segments_BL.shape[1]
    asking_BM = jnp.take_along_axis(segments_BL, read_BM, axis=1)
    places_L = jnp.arange(segments_BL.shape[1])
    mask_BML = asking_BM[:, :, None] == segments_BL[:, None]
    mask_BML &= jax.vmap(lambda read_M: seen(read_M, places_L, reach))(read_BM)
    every = ((0, 0), (0, 0), (before, 0))
    mask_BMK = jnp.pad(mask_BML, every, constant_values=True)
    k_BHKE, v_BHKE = (x.swapaxes(1, 2) for x in (k_BKHE, v_BKHE))
    return attend_cached(q_BMHE, k_BHKE, v_BHKE, mask_BMK, reach.scale)


def _blocks(queries: int, keys: int, reach: Reach) -> list[tuple[slice, slice]]:
    """Pairs of (query positions, key positions that they may see)."""
    step = _BLOCK if reach.causal and queries % _BLOCK == 0 else queries
    least = -(-queries // _BLOCKS)
    if by_onednn():  # whose calls take longer to begin
        least = max(least, 2 * _BLOCK)
    while step < least and queries % (2 * step) == 0:
        step *= 2
    return [
        (slice(start, start + step), _keys(start, start + step, queries, keys, reach))
        for start in range(0, queries, step)
    ]


def _keys(start: int, stop: int, queries: int, keys: int, reach: Reach) -> slice:
    before = keys - queries
    if not reach.causal:
        return slice(0, keys)
    cut = reach.window and not before  # what stands before the row is always seen
    return slice(max(0, start - reach.window + 1) if cut else 0, before + stop)


def _mask(segments_BL: jax.Array, queries: slice, keys: slice, before: int, reach):
    """Which keys some queries see, bool [B, Q, K]; `before` of all stand before L."""
    segments_BK = jnp.pad(segments_BL, ((0, 0), (before, 0)))
    mask_BQK = segments_BL[:, queries, None] == segments_BK[:, None, keys]
    places_K = jnp.arange(-before, segments_BL.shape[1])
    mask_BQK &= seen(places_K[before:][queries], places_K[keys], reach)[None]
    return mask_BQK | (places_K[keys] < 0)[None, None] if before else mask_BQK


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _mix(reach, q_BHQE, k_BHKE, v_BHKE, segments_BL):
    return _forward(reach, q_BHQE, k_BHKE, v_BHKE, segments_BL)[0]


def _forward(reach, q_BHQE, k_BHKE, v_BHKE, segments_BL):
    sizes = q_BHQE.shape[2], k_BHKE.shape[2]
    mixed, weights = [], []
    asking_BHQE, asked_BHKE = unrounded(q_BHQE), unrounded(k_BHKE)
    for queries, keys in _blocks(*sizes, reach):
        scores_BHQK = times_transposed(
            asking_BHQE[:, :, queries], asked_BHKE[:, :, keys], jnp.float32
        )
        mask_BQK = _mask(segments_BL, queries, keys, sizes[1] - sizes[0], reach)
        weights_BHQK = jax.nn.softmax(
            jnp.where(mask_BQK[:, None], scores_BHQK * reach.scale, _MASKED), axis=-1
        ).astype(v_BHKE.dtype)
        weights.append(weights_BHQK)
        mixed.append(weights_BHQK @ v_BHKE[:, :, keys])
    mixed_BHQE = jnp.concatenate(mixed, axis=2)
    return mixed_BHQE, (q_BHQE, k_BHKE, v_BHKE, weights)


def _backward(reach, saved, gradient_BHQE):
    """With weights p, scores s and g the gradient of the mix:

    dv = p^T g,  ds = p x (g v^T - sum(p x g v^T)) x scale,  dq = ds k,  dk = ds^T q.
    """
    q_BHQE, k_BHKE, v_BHKE, weights = saved
    blocks = _blocks(q_BHQE.shape[2], k_BHKE.shape[2], reach)
    dq, dk_BHKE = [], jnp.zeros(k_BHKE.shape, jnp.float32)
    dv_BHKE = jnp.zeros(v_BHKE.shape, jnp.float32)
    for (queries, keys), p_BHQK in zip(blocks, weights, strict=True):
        g_BHQE = gradient_BHQE[:, :, queries]
        dv_BHKE = dv_BHKE.at[:, :, keys].add(wide_product(transposed(p_BHQK), g_BHQE))
        pull_BHQK = times_transposed(g_BHQE, v_BHKE[:, :, keys], jnp.float32)
        wide_BHQK = p_BHQK.astype(jnp.float32)
        mean_BHQ1 = (wide_BHQK * pull_BHQK).sum(axis=-1, keepdims=True)
        ds_BHQK = wide_BHQK * (pull_BHQK - mean_BHQ1) * reach.scale
        ds_BHQK = ds_BHQK.astype(q_BHQE.dtype)
        dq.append(ds_BHQK @ k_BHKE[:, :, keys])
        dk_BHKE = dk_BHKE.at[:, :, keys].add(
            wide_product(transposed(ds_BHQK), q_BHQE[:, :, queries])
        )
    dk_BHKE, dv_BHKE = (x.astype(k_BHKE.dtype) for x in (dk_BHKE, dv_BHKE))
    return jnp.concatenate(dq, axis=2), dk_BHKE, dv_BHKE, None


_mix.defvjp(_forward, _backward)
