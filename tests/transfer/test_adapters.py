"""Each adapter's equation against numpy's; what moves, on a model with biases."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.model import heads, transformer
from tljax.settings import (
    METHOD_KEYS,
    WEIGHT_METHODS,
    InputError,
    TransferSettings,
    from_config,
)
from tljax.transfer.method import METHODS, compose, merge, split
from tljax.transfer.transplant import flat

BATCH = {
    "tokens_BL": np.array([[3, 1, 4, 1, 5, 9]], np.int32),
    "segments_BL": np.array([[1, 1, 1, 1, 2, 2]], np.int32),
}
# compiled once for all tests that give no adapter
states = jax.jit(transformer.apply, static_argnums=0, static_argnames="adapter")
CLOSE = {"rtol": 1e-4, "atol": 1e-5}  # float32, another order of summation


@pytest.fixture
def plain_settings(model_settings):
    """Plain feed-forward layers, biases and LayerNorm: a small GPT-2."""
    return dataclasses.replace(
        model_settings, mlp="gelu", bias="all", norm="layer", qk_norm=False
    )


@pytest.fixture
def params(plain_settings, draw_params):
    key = jax.random.key(0)
    tree = draw_params(transformer.init_params, plain_settings, 12, key)
    return tree | {"head": draw_params(heads.init_classifier, 16, 3, key)}


@pytest.fixture
def moved(params):
    """moved(settings) -> (moving, frozen), all that moves away from its start."""

    def make(settings):
        moving, frozen = split(params, settings, jax.random.key(1))
        random = np.random.default_rng(5)
        away = jax.tree.map(
            lambda x: x + 0.3 * random.standard_normal(x.shape, np.float32), moving
        )
        return away, frozen

    return make


def draw(*shape):
    return np.random.default_rng(2).standard_normal(shape, np.float32)


def test_the_table_has_every_method_of_the_settings():
    assert tuple(METHODS) == tuple(METHOD_KEYS)
    plain = {name for name, method in METHODS.items() if method.addition is None}
    assert set(WEIGHT_METHODS) == plain - {"head"}  # that moves none
    known = set(TransferSettings.__dataclass_fields__) - {"method"}
    assert {key for keys in METHOD_KEYS.values() for key in keys} == known


@pytest.mark.parametrize("name", ["lora", "dora", "ia3", "bottleneck"])
def test_nothing_changes_at_first(plain_settings, params, name):
    settings = TransferSettings(method=name)
    moving, frozen = split(params, settings, jax.random.key(1))
    whole, adapter = compose(moving, frozen, settings)
    found = states(plain_settings, whole, BATCH, adapter=adapter)
    np.testing.assert_allclose(found, states(plain_settings, params, BATCH), **CLOSE)


@pytest.mark.parametrize(
    "name", ["lora", "dora", "ia3", "bottleneck", "prompt", "prefix"]
)
def test_merged_is_unmerged_or_refused(plain_settings, params, moved, name):
    settings = TransferSettings(method=name)
    moving, frozen = moved(settings)
    if not METHODS[name].merges:
        with pytest.raises(InputError, match=f"method='{name}' adds .* `tljax predi"):
            merge(moving, frozen, settings)
        return
    whole, adapter = compose(moving, frozen, settings)
    found = states(plain_settings, whole, BATCH, adapter=adapter)
    merged = merge(moving, frozen, settings)
    assert flat(merged).keys() == flat(params).keys()
    plain = states(plain_settings, merged, BATCH)
    np.testing.assert_allclose(found, plain, rtol=1e-3, atol=1e-4)
    assert np.abs(plain - states(plain_settings, params, BATCH)).max() > 0.01


@pytest.mark.parametrize(
    ("config", "ends"),
    [
        ({"method": "bitfit"}, {"bias"}),
        ({"method": "bitfit", "frozen_layers": 1}, {"bias"}),
        ({"method": "norms"}, {"scale", "bias"}),
        ({"method": "rule", "targets": ".*/up/kernel"}, {"kernel"}),
    ],
)
def test_weights_are_chosen_by_their_paths(params, config, ends):
    settings = from_config(TransferSettings, config)
    moving = {
        path
        for path in flat(split(params, settings, jax.random.key(0))[0])
        if not path.startswith("head/")
    }
    below = f"layers/{settings.frozen_layers - 1}/"
    wanted = {
        path
        for path in flat(params)
        if path.rpartition("/")[2] in ends
        and not path.startswith(("head/", below))
        and (config["method"] != "norms" or "norm" in path)
        and (config["method"] != "rule" or "/up/" in path)
    }
    assert moving == wanted


def test_the_embedding_alone_may_stay(params):
    fixed = TransferSettings(embeddings_fixed=True)
    _, frozen = split(params, fixed, jax.random.key(0))
    assert flat(frozen).keys() == {"embedding/tokens"}
    with pytest.raises(InputError, match="embeddings_fixed says nothing where"):
        from_config(TransferSettings, {"embeddings_fixed": True, "frozen_layers": 1})


def dora_by_hand(kernel_DF, place, scale):
    sum_DF = kernel_DF + scale * np.asarray(place["a"]) @ np.asarray(place["b"])
    return sum_DF * np.asarray(place["magnitude"]) / np.linalg.norm(sum_DF, axis=0)


def test_dora_by_hand(params, moved):
    settings = TransferSettings(method="dora", rank=2, alpha=3.0, targets=".*/up")
    moving, frozen = moved(settings)
    place, path = moving["layers"]["1"]["mlp"]["up"], "layers/1/mlp/up"
    own = params["layers"]["1"]["mlp"]["up"]
    x = draw(1, 5, 16)
    y = x @ own["kernel"] + own["bias"]
    found = compose(moving, frozen, settings).adapter(path, jnp.asarray(x), y)
    by_hand = x @ dora_by_hand(own["kernel"], place, 1.5) + own["bias"]
    np.testing.assert_allclose(found, by_hand, **CLOSE)
    start = split(params, settings, jax.random.key(1))[0]["layers"]["1"]["mlp"]["up"]
    lengths = np.linalg.norm(own["kernel"], axis=0)
    np.testing.assert_allclose(start["magnitude"], lengths, rtol=1e-6)


def test_dora_s_lengths_are_constants_of_its_gradients(params, moved):
    settings = TransferSettings(method="dora", rank=2, alpha=3.0, targets=".*/up")
    moving, frozen = moved(settings)
    own = params["layers"]["0"]["mlp"]["up"]
    x, g = draw(1, 5, 16), draw(1, 5, 24)

    def loss(moving):
        adapter = compose(moving, frozen, settings).adapter
        y = jnp.asarray(x @ own["kernel"] + own["bias"])
        return (adapter("layers/0/mlp/up", jnp.asarray(x), y) * g).sum()

    found = jax.grad(loss)(moving)["layers"]["0"]["mlp"]["up"]
    place = moving["layers"]["0"]["mlp"]["up"]
    a, b = np.asarray(place["a"]), np.asarray(place["b"])
    sum_DF = own["kernel"] + 1.5 * a @ b
    lengths = np.linalg.norm(sum_DF, axis=0)
    gradient_DF = x[0].T @ (g[0] * (np.asarray(place["magnitude"]) / lengths))
    np.testing.assert_allclose(found["a"], 1.5 * gradient_DF @ b.T, **CLOSE)
    np.testing.assert_allclose(found["b"], 1.5 * a.T @ gradient_DF, **CLOSE)
    magnitude_F = ((x[0] @ sum_DF) * g[0]).sum(0) / lengths
    np.testing.assert_allclose(found["magnitude"], magnitude_F, **CLOSE)


@pytest.mark.parametrize("placement", ["serial", "parallel"])
def test_bottleneck_by_hand(moved, placement):
    settings = TransferSettings(method="bottleneck", width=3, placement=placement)
    moving, frozen = moved(settings)
    adapter = compose(moving, frozen, settings).adapter
    x, y = draw(1, 5, 16), draw(1, 5, 16) * 0.5
    for branch in ("attention", "mlp"):
        net = {k: np.asarray(v) for k, v in moving["layers"]["0"][branch].items()}
        taken = y if placement == "serial" else x
        inner = taken @ net["narrow"] + net["narrow_bias"]
        cubed = np.sqrt(2 / np.pi) * (inner + 0.044715 * inner**3)
        inner = 0.5 * inner * (1 + np.tanh(cubed))
        by_hand = y + inner @ net["widen"] + net["widen_bias"]
        found = adapter(f"layers/0/{branch}", jnp.asarray(x), jnp.asarray(y))
        np.testing.assert_allclose(found, by_hand, **CLOSE)
    assert adapter("layers/0/mlp/up", x, y) is y


def test_ia3_by_hand(params, moved):
    settings = TransferSettings(method="ia3", frozen_layers=1)
    moving, frozen = moved(settings)
    adapter = compose(moving, frozen, settings).adapter
    layer, added = params["layers"]["1"], moving["layers"]["1"]
    assert "0" not in moving["layers"]
    scale_F = np.asarray(added["mlp"]["down"]["ia3"])
    inner, down = draw(1, 5, 24), layer["mlp"]["down"]
    plain = jnp.asarray(inner @ down["kernel"] + down["bias"])
    found = adapter("layers/1/mlp/down", jnp.asarray(inner), plain)
    by_hand = (inner * scale_F) @ down["kernel"] + down["bias"]
    np.testing.assert_allclose(found, by_hand, **CLOSE)
    y, scale_E = draw(1, 5, 8), np.asarray(added["attention"]["key"]["ia3"])
    found = adapter("layers/1/attention/key", draw(1, 5, 16), jnp.asarray(y))
    np.testing.assert_allclose(found, y * scale_E, rtol=1e-6)
    query = jnp.asarray(draw(1, 5, 16))
    assert adapter("layers/1/attention/query", query, query) is query
    assert set(added["attention"]) == {"key", "value"} and set(added["mlp"]) == {"down"}


def test_a_prompt_of_tokens_is_these_tokens_before_the_text(plain_settings, params):
    plain_settings = dataclasses.replace(plain_settings, embedding_scale=3.0)
    settings = TransferSettings(method="prompt", prompt_length=2)
    moving, frozen = split(params, settings, jax.random.key(1))
    table_VD = params["embedding"]["tokens"]
    prompt_LD = np.asarray(moving["embedding"]["prompt"])
    drawn = [int(np.abs(table_VD - row).sum(axis=1).argmin()) for row in prompt_LD]
    np.testing.assert_array_equal(prompt_LD, table_VD[drawn])
    segments_BL = np.array([[1, 1, 1, 1, 2, 2, 2, 0]], np.int32)
    room = {
        "tokens_BL": np.array([[0, 0, 4, 1, 0, 0, 9, 0]], np.int32),
        "segments_BL": segments_BL,
    }
    whole, adapter = compose(moving, frozen, settings)
    found = states(plain_settings, whole, room, adapter=adapter)
    written = {
        "tokens_BL": np.array([[*drawn, 4, 1, *drawn, 9, 0]], np.int32),
        "segments_BL": segments_BL,
    }
    wanted = states(plain_settings, params, written)
    np.testing.assert_allclose(found[:, :7], wanted[:, :7], **CLOSE)
    assert np.abs(states(plain_settings, params, room) - wanted)[:, :7].max() > 0.01
