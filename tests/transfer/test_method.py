"""Nothing changes at the start; what is frozen stays; merged is unmerged."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.model import heads, transformer
from tljax.settings import InputError, TransferSettings, from_config
from tljax.transfer.lora import scale_of
from tljax.transfer.method import compose, merge, split
from tljax.transfer.transplant import flat

BATCH = {
    "tokens_BL": np.array([[3, 1, 4, 1, 5, 9]], np.int32),
    "segments_BL": np.array([[1, 1, 1, 1, 2, 2]], np.int32),
}
CLOSE = {"rtol": 1e-4, "atol": 1e-5}  # float32, another order of summation
METHODS = {
    "full": TransferSettings(),
    "half": TransferSettings(frozen_layers=1),
    "head": TransferSettings(method="head"),
    "lora": TransferSettings(method="lora", rank=2, alpha=3.0),
    "top lora": TransferSettings(method="lora", rank=2, frozen_layers=1),
    "query lora": TransferSettings(method="lora", rank=3, targets=r".*/query"),
    "fixed": TransferSettings(embeddings_fixed=True),
    "norms": TransferSettings(method="norms"),
    "rule": TransferSettings(method="rule", targets=r".*/(query|key)/kernel"),
    "top dora": TransferSettings(method="dora", rank=2, frozen_layers=1),
    "ia3": TransferSettings(method="ia3"),
    "parallel": TransferSettings(method="bottleneck", width=3, placement="parallel"),
}


@pytest.fixture
def params(model_settings, draw_params):
    key = jax.random.key(0)
    tree = draw_params(transformer.init_params, model_settings, 12, key)
    return tree | {"head": draw_params(heads.init_classifier, 16, 3, key)}


# compiled once for all tests that give no adapter
apply = jax.jit(transformer.apply, static_argnums=0, static_argnames="adapter")


def states(model_settings, params, adapter=None):
    return apply(model_settings, params, BATCH, adapter=adapter)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_changes_nothing_at_its_start(model_settings, params, name):
    moving, frozen = split(params, METHODS[name], jax.random.key(1))
    composed = compose(moving, frozen, METHODS[name])
    kept = flat(composed.params)
    assert kept.keys() == flat(params).keys()
    assert all(kept[path] is leaf for path, leaf in flat(params).items())
    plain = states(model_settings, params)
    np.testing.assert_allclose(states(model_settings, *composed), plain, **CLOSE)


@pytest.mark.parametrize(
    ("name", "moves"),
    [
        ("full", {"embedding", "layers/0", "layers/1", "final_norm", "head"}),
        ("half", {"layers/1", "final_norm", "head"}),
        ("head", {"head"}),
        ("lora", {"layers/0", "layers/1", "head"}),
        ("top lora", {"layers/1", "head"}),
        ("fixed", {"layers/0", "layers/1", "final_norm", "head"}),
        ("norms", {"layers/0", "layers/1", "final_norm", "head"}),
        ("rule", {"layers/0", "layers/1", "head"}),
    ],
)
def test_only_what_the_method_names_moves(params, name, moves):
    moving, frozen = split(params, METHODS[name], jax.random.key(1))
    roots = {"/".join(path.split("/")[: 1 + path.startswith("layers")])
             for path in flat(moving)}  # fmt: skip
    assert roots == moves
    factors = {path for path in flat(moving) if path.endswith(("/a", "/b"))}
    assert bool(factors) == ("lora" in name)
    whole = (flat(moving).keys() - factors) | flat(frozen).keys()
    assert whole == flat(params).keys()
    assert not flat(moving).keys() & flat(frozen).keys()


@pytest.mark.parametrize(
    "name", ["lora", "top lora", "query lora", "half", "rule", "top dora", "ia3"]
)
def test_merged_is_unmerged(model_settings, params, name):
    moving, frozen = split(params, METHODS[name], jax.random.key(1))
    random = np.random.default_rng(5)
    moving = jax.tree.map(
        lambda x: x + 0.3 * random.standard_normal(x.shape, np.float32), moving
    )
    composed = states(model_settings, *compose(moving, frozen, METHODS[name]))
    merged = merge(moving, frozen, METHODS[name])
    assert flat(merged).keys() == flat(params).keys()
    plain = states(model_settings, merged)
    np.testing.assert_allclose(composed, plain, rtol=1e-3, atol=1e-4)
    before = states(model_settings, params)
    assert np.abs(plain - before).max() > 1e-2


def test_low_rank_by_hand(params):
    settings = METHODS["query lora"]
    moving, frozen = split(params, settings, jax.random.key(1))
    place = moving["layers"]["1"]["attention"]["query"]
    assert place["a"].shape == (16, 3)
    assert np.abs(place["a"]).max() <= 0.25  # 1 / sqrt(16)
    assert not place["b"].any()
    place["b"] = jnp.ones((3, 16))
    adapter = compose(moving, frozen, settings).adapter
    x = jnp.ones((1, 2, 16))
    y = adapter("layers/1/attention/query", x, jnp.zeros((1, 2, 16)))
    np.testing.assert_allclose(
        y, jnp.full((1, 2, 16), place["a"].sum() * 16 / 3), **CLOSE
    )
    assert adapter("layers/1/attention/key", x, x) is x


def test_scales():
    lora = TransferSettings(method="lora", rank=4, alpha=8.0)
    assert scale_of(lora) == 2.0
    stable = dataclasses.replace(lora, scaling="rank_stabilized")
    assert scale_of(stable) == 4.0


def test_dropout_of_its_inputs_is_the_keys(params):
    settings = TransferSettings(method="lora", rank=2, dropout=0.5)
    moving, frozen = split(params, settings, jax.random.key(1))
    moving = jax.tree.map(lambda x: x + 1.0, moving)
    x, path = jnp.ones((1, 50, 16)), "layers/0/mlp/up"

    def added(key):
        adapter = compose(moving, frozen, settings, key).adapter
        return np.asarray(adapter(path, x, jnp.zeros((1, 50, 24))))

    one, same, other = (added(jax.random.key(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    whole = added(None)
    assert np.ptp(whole) < 1e-3 < np.ptp(one)
    # 800 inputs kept with probability 1/2, doubled
    assert abs(one.mean() / whole.mean() - 1) < 0.15


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"method": "lora", "targets": "layers/x"}, "matches no matrix .*there are, e"),
        ({"method": "lora", "rank": 10**9}, "rank=10{9} is more .*; take at most 16"),
        ({"frozen_layers": 3}, "frozen_layers=3, but the model has 2 layers"),
        ({"method": "lora", "frozen_layers": 2}, "frozen_layers=2 leaves no layer to"),
        ({"method": "bitfit"}, "the model has none .* take 'norms', 'ia3' or 'lora'"),
        ({"method": "rule"}, "matches no weight that may move; there are, e.g. .*/"),
        ({"method": "ia3", "frozen_layers": 2}, "no layer that ia3 could scale"),
        ({"method": "bottleneck", "frozen_layers": 2}, "no layer to which a bottlen"),
    ],
)
def test_what_cannot_be_split(params, config, said):
    settings = from_config(TransferSettings, config)
    with pytest.raises(InputError, match=said):
        split(params, settings, jax.random.key(0))


def test_a_key_of_lora_elsewhere_is_refused():
    said = "rank=4 is not read with config.method='full', only with 'lora', 'dora';"
    with pytest.raises(InputError, match=said):
        from_config(TransferSettings, {"method": "full", "rank": 4})


def test_above_frozen_layers_the_kept_stream_is_enough(model_settings, params):
    kept = {}
    whole = transformer.apply(
        model_settings, params, BATCH, watch=lambda i, x: kept.update({i: x})
    )
    assert sorted(kept) == [0, 1, 2]
    batch = {"segments_BL": BATCH["segments_BL"], "stream_BLD": kept[1]}
    above = transformer.apply(model_settings, params, batch, below=1)
    np.testing.assert_allclose(above, whole, **CLOSE)
