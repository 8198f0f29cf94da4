"""One layer: the identity when fresh, by hand when not, open to an adapter."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.model import attention, block

CLOSE = {"rtol": 2e-5, "atol": 2e-5}  # float32 sums of up to 24 terms
X_BLD = np.random.default_rng(0).standard_normal((2, 6, 16), np.float32)
SEGMENTS_BL = np.array([[1, 1, 1, 2, 2, 0], [1, 1, 1, 1, 1, 1]])


@pytest.fixture
def make(model_settings, draw_params):
    """make(key=value, ...) -> (random parameters, compiled layer) of such a model."""

    def made(**changes):
        settings = dataclasses.replace(model_settings, **changes)
        layer = block.Block(settings)
        params = draw_params(layer.init, jax.random.key(0), X_BLD, SEGMENTS_BL)
        run = jax.jit(
            lambda x, segments, params, *rest: layer.apply(
                {"params": params}, x, segments, *rest
            ),
            static_argnums=(4, 5),
        )

        def awaited(*args):  # tests change params in place: nothing may still read them
            return np.asarray(run(X_BLD, SEGMENTS_BL, *args))

        return params["params"], awaited

    return made


def normed(x, scale=1.0):
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6) * scale


def test_root_mean_square_by_hand():
    x = jnp.array([[3.0, 4.0], [0.0, 0.0]])
    by_hand = [[3 / 12.5**0.5, 4 / 12.5**0.5], [0.0, 0.0]]
    np.testing.assert_allclose(block.rms_norm(x), by_hand, rtol=1e-6)
    scaled = block.rms_norm(x, jnp.array([1.0, 10.0]))
    np.testing.assert_allclose(scaled, np.array(by_hand) * [1, 10], rtol=1e-6)


def test_a_fresh_layer_is_the_identity(model_settings):
    layer = block.Block(dataclasses.replace(model_settings, bias=True))
    out, _ = jax.jit(layer.init_with_output)(jax.random.key(0), X_BLD, SEGMENTS_BL)
    np.testing.assert_array_equal(out, X_BLD)


def linear(params, x):
    return x @ params["kernel"] + params["bias"]


ACTIVATIONS = {
    "swiglu": lambda up, gate: up * gate / (1 + np.exp(-gate)),
    "gelu": lambda up, gate: (
        up * (1 + np.tanh(np.sqrt(2 / np.pi) * (up + 0.044715 * up**3))) / 2
    ),
    "relu2": lambda up, gate: np.maximum(up, 0) ** 2,
}


@pytest.mark.parametrize("mlp", ACTIVATIONS)
def test_a_layer_by_hand(make, mlp):
    params, run = make(mlp=mlp, bias=True)
    out = run(params)
    assert ("gate" in params["mlp"]) == (mlp == "swiglu")
    own = params["attention"]
    x = normed(X_BLD, params["attention_norm"]["scale"])
    heads = {
        name: linear(own[name], x).reshape(2, 6, -1, 4)
        for name in ("query", "key", "value")
    }
    assert [h.shape[2] for h in heads.values()] == [4, 2, 2]
    q, k = (
        attention.rotate(
            jnp.asarray(normed(heads[name], own[f"{name}_norm"]["scale"])), 100.0
        )
        for name in ("query", "key")
    )
    mixed = attention.attend(
        q, k, heads["value"], jnp.asarray(SEGMENTS_BL), causal=True
    )
    x = X_BLD + linear(own["output"], np.asarray(mixed).reshape(2, 6, 16))
    own = params["mlp"]
    inner = normed(x, params["mlp_norm"]["scale"])
    gate = linear(own["gate"], inner) if mlp == "swiglu" else None
    inner = ACTIVATIONS[mlp](linear(own["up"], inner), gate)
    np.testing.assert_allclose(out, x + linear(own["down"], inner), **CLOSE)


def test_grouped_heads_are_heads_that_share_their_keys_and_values(make):
    params, run = make(kv_heads=2)
    _, run_each_its_own = make(kv_heads=4)
    repeated = jax.tree.map(np.copy, params)
    for name in ("key", "value"):
        kernel = repeated["attention"][name]["kernel"].reshape(16, 2, 4)
        repeated["attention"][name]["kernel"] = kernel[:, [0, 0, 1, 1]].reshape(16, 16)
    np.testing.assert_allclose(run(params), run_each_its_own(repeated), **CLOSE)


@pytest.mark.parametrize("qk_norm", [True, False])
def test_with_qk_norm_the_size_of_a_query_says_nothing(make, qk_norm):
    params, run = make(qk_norm=qk_norm)
    before = run(params)
    params["attention"]["query"]["kernel"] *= 7.0
    differ = np.abs(before - run(params)).max()
    assert differ < 1e-4 if qk_norm else differ > 1e-2


def test_dropout_drops_its_share_and_scales_up_the_rest(make):
    params, run = make(dropout=0.25)
    params["mlp"]["down"]["kernel"] *= 0  # leaves the attention's output alone
    added = np.asarray(run(params)) - X_BLD
    key = jax.random.key(1)
    dropped = np.asarray(run(params, key)) - X_BLD
    gone = np.isclose(dropped, 0, atol=1e-6)
    np.testing.assert_allclose(dropped[~gone], added[~gone] / 0.75, **CLOSE)
    assert 0.15 < gone.mean() < 0.35  # 192 draws at .25: standard error .03
    np.testing.assert_array_equal(run(params, key), run(params, key))
    assert (run(params, key) != run(params, jax.random.key(2))).any()


def test_an_adapter_sees_every_product_and_block_output(make):
    params, run = make(bias=True)
    seen = {}

    def look(path, x, y):
        seen[path] = (x.shape[-1], y.shape[-1])
        return y

    plain = run(params)
    np.testing.assert_array_equal(run(params, None, "layers/0", look), plain)
    inner = {"query": (16, 16), "key": (16, 8), "value": (16, 8), "output": (16, 16)}
    assert seen == {
        **{f"layers/0/attention/{name}": sizes for name, sizes in inner.items()},
        "layers/0/attention": (16, 16),
        "layers/0/mlp/up": (16, 24),
        "layers/0/mlp/gate": (16, 24),
        "layers/0/mlp/down": (24, 16),
        "layers/0/mlp": (16, 16),
    }


def test_what_an_adapter_returns_is_used(make):
    params, run = make()

    def silence(path, x, y):
        return y * 0 if path.count("/") == 2 else y

    out = run(params, None, "layers/0", silence)
    np.testing.assert_array_equal(out, X_BLD)

    def lower(path, x, y):
        """A low-rank addition to the value product, unmerged."""
        return y + 0.5 * (x @ a) @ b if path.endswith("/value") else y

    a, b = jnp.ones((16, 1)), jnp.arange(8.0)[None]
    adapted = run(params, None, "layers/0", lower)
    params["attention"]["value"]["kernel"] += 0.5 * a @ b
    np.testing.assert_allclose(adapted, run(params), **CLOSE)
