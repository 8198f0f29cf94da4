"""A prefix: its attention against numpy's, at the start and moved; packed = alone."""

import dataclasses

import jax
import numpy as np
import pytest

from tljax.model import heads, transformer
from tljax.settings import InputError, TransferSettings
from tljax.transfer.method import compose, split
from tljax.transfer.transplant import flat

SETTINGS = TransferSettings(method="prefix", prefix_length=3)
SEGMENTS_BL = np.array([[1, 1, 1, 2, 2, 2, 2, 0]], np.int32)
BATCH = {
    "tokens_BL": np.array([[3, 1, 4, 1, 5, 9, 2, 0]], np.int32),
    "segments_BL": SEGMENTS_BL,
}
CLOSE = {"rtol": 1e-4, "atol": 1e-5}  # float32, another order of summation


@pytest.fixture
def model(model_settings):
    """Two queries a key, rotary angles, a window in the second layer."""
    assert model_settings.positions == "rotary"
    return dataclasses.replace(model_settings, windows=(0, 2), qk_norm=False)


@pytest.fixture
def params(model, draw_params):
    key = jax.random.key(0)
    tree = draw_params(transformer.init_params, model, 12, key)
    return tree | {"head": draw_params(heads.init_classifier, 16, 3, key)}


@pytest.fixture
def moved(params):
    """(moving, frozen), keys and values of the prefix away from where they began."""
    moving, frozen = split(params, SETTINGS, jax.random.key(1))
    random = np.random.default_rng(5)

    def away(leaf):
        return leaf + random.standard_normal(leaf.shape, np.float32)

    return jax.tree.map(away, moving), frozen


def recorded(model, moving, frozen):
    """What passes through the hook, and the attention's mixed values at 'output'."""
    whole, adapter = compose(moving, frozen, SETTINGS)

    @jax.jit
    def apply(whole):
        found = {}

        def watching(path, x, y):
            kept = x if path.endswith("attention/output") else y
            if kept is not None:
                found[path] = kept
            return adapter(path, x, y)

        transformer.apply(model, whole, BATCH, adapter=watching)
        return found

    return {path: np.asarray(x, np.float64) for path, x in apply(whole).items()}


def turned(x_LHE, places_L, base):
    """Complex numbers x[i] + j x[i + E/2], turned by place x base^(-2i/E)."""
    half = x_LHE.shape[-1] // 2
    angle_LE = np.outer(places_L, base ** (-np.arange(half) / half))
    whole = (x_LHE[..., :half] + 1j * x_LHE[..., half:]) * np.exp(1j * angle_LE)[
        :, None
    ]
    return np.concatenate([whole.real, whole.imag], axis=-1)


def mixed_by_hand(model, found, path, prefix, window=0):
    """One query at a time, softmax over the prefix and what it sees of its segment.

    Returns:
      (mixed [L, H, E], the share of the weights that the text keeps [L, H]).
    """
    width = model.width // model.heads
    q, k, v = (
        found[f"{path}/{name}"][0].reshape(8, -1, width)
        for name in ("query", "key", "value")
    )
    places_L = np.array([0, 1, 2, 0, 1, 2, 3, 0])
    q, k = (turned(x, places_L, model.rope_base) for x in (q, k))
    before, before_v = (
        np.asarray(prefix[f"prefix_{name}"], np.float64).reshape(-1, *k.shape[1:])
        for name in ("key", "value")
    )
    mixed, kept = np.zeros(q.shape), np.zeros(q.shape[:2])
    for i, h in np.ndindex(*q.shape[:2]):
        group = h // (model.heads // model.kv_heads)
        seen = (SEGMENTS_BL[0] == SEGMENTS_BL[0, i]) & (np.arange(8) <= i)
        seen &= np.arange(8) > i - window if window else True
        keys = np.concatenate([before[:, group], k[seen, group]])
        weights = np.exp(keys @ q[i, h] / np.sqrt(width))
        weights /= weights.sum()
        mixed[i, h] = weights @ np.concatenate([before_v[:, group], v[seen, group]])
        kept[i, h] = weights[len(before) :].sum()
    return mixed, kept


@pytest.mark.parametrize("layer", [0, 1])
def test_every_position_sees_the_prefix_beside_its_segment(model, moved, layer):
    moving, frozen = moved
    found, path = recorded(model, moving, frozen), f"layers/{layer}/attention"
    prefix = moving["layers"][str(layer)]["attention"]
    by_hand, _ = mixed_by_hand(model, found, path, prefix, model.windows[layer])
    wanted = by_hand.reshape(8, -1)
    np.testing.assert_allclose(found[f"{path}/output"][0], wanted, **CLOSE)


def test_at_first_a_text_keeps_the_share_that_the_prefix_leaves(model, params):
    moving, frozen = split(params, SETTINGS, jax.random.key(1))
    found, path = recorded(model, moving, frozen), "layers/0/attention"
    prefix = moving["layers"]["0"]["attention"]
    _, kept_LH = mixed_by_hand(model, found, path, prefix)
    assert kept_LH.min() < 0.1 and kept_LH.max() > 0.5
    none = {name: np.zeros((0, leaf.shape[1])) for name, leaf in prefix.items()}
    own_LHE, _ = mixed_by_hand(model, found, path, none)
    wanted = (own_LHE * kept_LH[..., None]).reshape(8, -1)
    np.testing.assert_allclose(found[f"{path}/output"][0], wanted, **CLOSE)


def test_a_packed_text_is_the_text_alone(model, moved):
    @jax.jit
    def apply(moving, frozen, batch):
        whole, adapter = compose(moving, frozen, SETTINGS)
        return transformer.apply(model, whole, batch, adapter)

    packed = apply(*moved, BATCH)[0, 3:7]
    alone = {
        "tokens_BL": np.array([[1, 5, 9, 2, 0, 0, 0, 0]], np.int32),
        "segments_BL": np.array([[1, 1, 1, 1, 0, 0, 0, 0]], np.int32),
    }
    np.testing.assert_allclose(packed, apply(*moved, alone)[0, :4], **CLOSE)


def test_frozen_layers_have_no_prefix(params):
    settings = dataclasses.replace(SETTINGS, frozen_layers=1)
    moving, _ = split(params, settings, jax.random.key(1))
    places = {path.rpartition("/")[0] for path in flat(moving)}
    assert places == {"head", "layers/1/attention"}
    settings = dataclasses.replace(SETTINGS, frozen_layers=2)
    with pytest.raises(InputError, match="leaves no layer to which a prefix"):
        split(params, settings, jax.random.key(1))
