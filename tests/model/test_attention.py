"""Attention sees its own segment and nothing later; rotary positions are relative."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.model import attention


def rotate(x_BLHE, base):
    frequency_E = base ** (-np.arange(0, x_BLHE.shape[-1], 2) / x_BLHE.shape[-1])
    frequency_E = frequency_E.astype(np.float32)
    return jax.jit(lambda x: attention.rotate(x, frequency_E))(x_BLHE)


# three heads' worth of float32 sums of 12 terms: rounding stays below this
CLOSE = {"rtol": 1e-5, "atol": 1e-6}
SEGMENTS_BL = np.array(
    [[1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 0, 0], [1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]]
)


def draw(heads, seed, length=12):
    return np.random.default_rng(seed).standard_normal(
        (2, length, heads, 4), np.float32
    )


def reach_of(causal, window=0):
    return attention.Reach(causal, window, scale=0.5)


def attend(*arrays, causal, window=0):
    """Compiled anew at each call: a test may have changed the block."""
    reach = reach_of(causal, window)
    return jax.jit(lambda *args: attention.attend(*args, reach=reach))(*arrays)


def attend_by_hand(q_BQHE, k_BKHE, v_BKHE, segments_BL, causal, window=0):
    """One query at a time, over the positions that it may see, and all before these."""
    before = np.ones(k_BKHE.shape[1] - q_BQHE.shape[1], bool)
    q_BQHE, k_BKHE, v_BKHE = (
        np.asarray(x, np.float64) for x in (q_BQHE, k_BKHE, v_BKHE)
    )
    out_BQHE = np.zeros(q_BQHE.shape)
    for b, i, h in np.ndindex(*q_BQHE.shape[:3]):
        seen = segments_BL[b] == segments_BL[b, i]
        if causal:
            seen &= np.arange(len(seen)) <= i
        if window:
            seen &= np.arange(len(seen)) > i - window
        seen = np.concatenate([before, seen])
        scores_K = k_BKHE[b, seen, h] @ q_BQHE[b, i, h] / np.sqrt(q_BQHE.shape[-1])
        weights_K = np.exp(scores_K - scores_K.max())
        out_BQHE[b, i, h] = weights_K @ v_BKHE[b, seen, h] / weights_K.sum()
    return out_BQHE


@pytest.mark.parametrize("block", [4, 5, 64])
@pytest.mark.parametrize(
    ("causal", "window"), [(True, 0), (False, 0), (True, 1), (True, 5), (True, 12)]
)
def test_blocks_of_any_size_give_plain_attention(monkeypatch, block, causal, window):
    monkeypatch.setattr(attention, "_BLOCK", block)
    q, k, v = (draw(heads=3, seed=seed) for seed in range(3))
    out = attend(q, k, v, SEGMENTS_BL, causal=causal, window=window)
    by_hand = attend_by_hand(q, k, v, SEGMENTS_BL, causal, window)
    np.testing.assert_allclose(out, by_hand, **CLOSE)


@pytest.mark.parametrize(
    ("onednn", "length", "block"),
    [
        (False, 64, 64), (False, 512, 64), (False, 1024, 128), (False, 4096, 512),
        (False, 17 * 64, 64), (False, 1100, 1100),
        (True, 64, 64), (True, 512, 128), (True, 4096, 512), (True, 17 * 64, 64),
    ],
)  # fmt: skip
def test_a_row_has_eight_blocks_at_most_where_they_can_double(
    monkeypatch, onednn, length, block
):
    monkeypatch.setattr(attention, "by_onednn", lambda: onednn)
    blocks = attention._blocks(length, length, attention.Reach(True, 0, 1.0))
    assert {rows.stop - rows.start for rows, _ in blocks} == {block}
    assert [keys.stop for _, keys in blocks] == list(range(block, length + 1, block))


@pytest.mark.parametrize("block", [4, 64])
@pytest.mark.parametrize(("causal", "window"), [(True, 0), (False, 0), (True, 3)])
def test_keys_before_the_row_are_seen_by_all(monkeypatch, block, causal, window):
    monkeypatch.setattr(attention, "_BLOCK", block)
    q, k, v = (draw(heads=3, seed=i, length=12 + 2 * (i > 0)) for i in range(3))
    out = attend(q, k, v, SEGMENTS_BL, causal=causal, window=window)
    by_hand = attend_by_hand(q, k, v, SEGMENTS_BL, causal, window)
    np.testing.assert_allclose(out, by_hand, **CLOSE)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("causal", "window", "before"),
    [(True, 0, 0), (False, 0, 0), (True, 3, 0), (True, 3, 2)],
)
def test_own_gradients_are_those_of_plain_attention(
    monkeypatch, onednn, causal, window, before, dtype
):
    monkeypatch.setattr(attention, "_BLOCK", 4)
    q, k, v = (
        jnp.asarray(draw(heads=3, seed=i, length=12 + before * (i > 0)), dtype)
        for i in range(3)
    )
    pull = jnp.asarray(draw(heads=3, seed=3), dtype)
    same = SEGMENTS_BL[:, :, None] == SEGMENTS_BL[:, None, :]
    seen_BQK = same & (np.tri(12, dtype=bool) if causal else True)
    seen_BQK &= ~np.tri(12, k=-window, dtype=bool) if window else True
    seen_BQK = np.pad(seen_BQK, ((0, 0), (0, 0), (before, 0)), constant_values=True)

    def plain(q, k, v):
        scores = jnp.einsum("bqhe,bkhe->bhqk", q, k) / 2.0
        weights = jax.nn.softmax(jnp.where(seen_BQK[:, None], scores, -1e9), axis=-1)
        return jnp.einsum("bhqk,bkhe->bqhe", weights, v)

    def gradients(function, *arrays, pull):
        return jax.jit(lambda *args: jax.vjp(function, *args)[1](pull))(*arrays)

    def own(*args):
        return attention.attend(*args, SEGMENTS_BL, reach=reach_of(causal, window))

    ours = gradients(own, q, k, v, pull=pull)
    wide = [np.asarray(x, np.float32) for x in (q, k, v, pull)]
    theirs = gradients(plain, *wide[:3], pull=jnp.asarray(wide[3]))
    # of a stored number (2^-24, 2^-8), times a margin for three products of 12 terms
    rounding = {"float32": 5e-6, "bfloat16": 2e-2}[dtype]
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == dtype
        error = np.abs(np.asarray(one, np.float32) - other)
        assert error.max() < rounding * np.abs(other).max()


def test_groups_of_queries_share_a_head_of_keys_and_values():
    q, k, v = draw(heads=6, seed=0), draw(heads=2, seed=1), draw(heads=2, seed=2)
    out = attend(q, k, v, SEGMENTS_BL, causal=True)
    of_query = [0, 0, 0, 1, 1, 1]
    k, v = np.asarray(k)[:, :, of_query], np.asarray(v)[:, :, of_query]
    repeated = attend(q, k, v, SEGMENTS_BL, causal=True)
    np.testing.assert_array_equal(out, repeated)


@pytest.mark.parametrize("causal", [True, False])
def test_gradients_flow_where_the_picture_has_a_cross(causal):
    segments_BL = jnp.array([[1, 1, 1, 2, 2, 0]])
    q, k, v = (draw(heads=1, seed=seed, length=6)[:1] for seed in range(3))

    def out_Q(v):
        out_BQHE = attention.attend(q, k, v, segments_BL, reach=reach_of(causal))
        return out_BQHE.sum(axis=(0, 2, 3))

    seen_QK = np.abs(jax.jit(jax.jacobian(out_Q))(v)).sum(axis=(1, 3, 4)) > 0
    picture = (
        "x.....|xx....|xxx...|...x..|...xx.|.....x"
        if causal
        else "xxx...|xxx...|xxx...|...xx.|...xx.|.....x"
    )
    assert ["".join(".x"[int(s)] for s in row) for row in seen_QK] == picture.split("|")


def test_rotation_by_hand():
    x_BLHE = np.tile(np.float32([1, 0, 0, 2]), (1, 3, 1, 1))
    turned = rotate(x_BLHE, 100.0)[0, :, 0]
    # pairs are (0, 2), turned by the position, and (1, 3), turned by a tenth of it
    by_hand = [
        [np.cos(p), -2 * np.sin(p / 10), np.sin(p), 2 * np.cos(p / 10)]
        for p in range(3)
    ]
    np.testing.assert_allclose(turned, by_hand, **CLOSE)


def test_the_gradient_of_a_rotation_turns_back():
    x_BLHE, g_BLHE = draw(heads=3, seed=0), draw(heads=3, seed=1)
    back_BLHE = jax.vjp(lambda x: rotate(x, 100.0), x_BLHE)[1](g_BLHE)[0]
    # orthogonal: turned forward again, the gradient is what was given
    np.testing.assert_allclose(rotate(back_BLHE, 100.0), g_BLHE, **CLOSE)
    changed = rotate(x_BLHE, 100.0) * g_BLHE
    np.testing.assert_allclose(changed.sum(), (x_BLHE * back_BLHE).sum(), rtol=1e-4)


def test_only_distances_matter_to_rotated_products():
    x_BLHE = np.random.default_rng(0).standard_normal((2, 1, 1, 8), np.float32)
    q_LE, k_LE = np.asarray(rotate(np.tile(x_BLHE, (1, 20, 1, 1)), 1e4)[:, :, 0])
    scores_QK = q_LE @ k_LE.T
    for distance in range(-15, 16):
        same = np.diagonal(scores_QK, distance)
        np.testing.assert_allclose(same, same[0], rtol=1e-5, atol=1e-5)
    assert np.ptp(scores_QK[0]) > 0.1


def test_frequencies_by_hand(model_settings):
    def frequencies(window=0, **changes):
        settings = dataclasses.replace(model_settings, head_width=8, **changes)
        return attention.rotary_frequencies(settings, window=window)

    plain = [1.0, 10**-0.5, 0.1, 10**-1.5]  # base 100
    np.testing.assert_allclose(frequencies(), plain, rtol=1e-6)
    slowed = frequencies(rope_scaling="linear", rope_factor=4.0)
    np.testing.assert_allclose(slowed, np.array(plain) / 4, rtol=1e-6)
    local = {"rope_local_base": 10_000.0, "rope_scaling": "linear", "rope_factor": 4.0}
    own = frequencies(window=3, **local)
    np.testing.assert_allclose(own, [1.0, 0.1, 0.01, 0.001], rtol=1e-6)
    np.testing.assert_array_equal(frequencies(window=0, **local), slowed)
    # wavelengths 6.3, 19.9, 62.8, 198.7 in an old context of 100: those shorter than
    # 25 stay, longer than 100 are slowed, one in between is (100 / 62.8 - 1) / 3 kept
    llama = frequencies(
        rope_scaling="llama3", rope_factor=8.0, rope_context=100, rope_low_factor=1.0,
        rope_high_factor=4.0,
    )  # fmt: skip
    kept = (100 / (20 * np.pi) - 1) / 3
    by_hand = [*plain[:2], 0.1 * kept + 0.1 / 8 * (1 - kept), plain[3] / 8]
    np.testing.assert_allclose(llama, by_hand, rtol=1e-6)


def test_queries_behind_a_cache_are_the_last_rows_of_attention():
    q, k, v = draw(heads=4, seed=0), draw(heads=2, seed=1), draw(heads=2, seed=2)
    whole = attend(q, k, v, SEGMENTS_BL, causal=True, window=3)
    same_BQK = SEGMENTS_BL[:, 9:, None] == SEGMENTS_BL[:, None]
    near_QK = attention.seen(jnp.arange(9, 12), jnp.arange(12), reach_of(True, 3))
    mask_BQK = same_BQK & near_QK[None]
    k_BHKE, v_BHKE = (x.swapaxes(1, 2) for x in (k, v))
    last = attention.attend_cached(q[:, 9:], k_BHKE, v_BHKE, mask_BQK, 0.5)
    np.testing.assert_allclose(last, whole[:, 9:], **CLOSE)
