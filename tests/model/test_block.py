"""One layer: the identity when fresh, by hand when not, open to an adapter."""

import dataclasses
import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.model import attention, block, transformer

CLOSE = {"rtol": 2e-5, "atol": 2e-5}  # float32 sums of up to 24 terms
ROUNDED = {"rtol": 0.02, "atol": 0.02}  # of bfloat16
X_BLD = np.random.default_rng(0).standard_normal((2, 6, 16), np.float32)
SEGMENTS_BL = np.array([[1, 1, 1, 2, 2, 0], [1, 1, 1, 1, 1, 1]])


@pytest.fixture
def make(model_settings, draw_params):
    """make(key=value, ...) -> (random parameters, compiled layer) of such a model."""

    def made(**changes):
        settings = dataclasses.replace(model_settings, **changes)
        layer = block.Block(settings)
        look = transformer.look_within(settings, 0, jnp.asarray(SEGMENTS_BL))
        params = draw_params(layer.init, jax.random.key(0), X_BLD, look)
        run = jax.jit(
            lambda x, params, *rest: layer.apply({"params": params}, x, look, *rest),
            static_argnums=(3, 4),
        )

        def awaited(*args):  # tests change params in place: nothing may still read them
            return np.asarray(run(X_BLD, *args))

        return params["params"], awaited

    return made


def normed(x, scale=1.0):
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6) * scale


def test_norms_by_hand(model_settings):
    x = jnp.array([[3.0, 4.0], [0.0, 0.0]])
    params = {"scale": jnp.array([1.0, 10.0]), "bias": jnp.array([0.5, 0.0])}
    rms = np.array([[3 / 12.5**0.5, 4 / 12.5**0.5], [0.0, 0.0]]) * [1, 10]
    out = block.normalize(model_settings, params, x)
    np.testing.assert_allclose(out, rms, rtol=1e-6)
    # 3 and 4 lie half below and above their mean; epsilon .75 makes the divisor 1
    settings = dataclasses.replace(model_settings, norm="layer", norm_epsilon=0.75)
    layer = [[-0.5 + 0.5, 5.0], [0.5, 0.0]]
    out = block.normalize(settings, params, x)
    np.testing.assert_allclose(out, layer, rtol=1e-6)


@pytest.mark.parametrize("norm", ["rms", "layer"])
@pytest.mark.parametrize("norm_place", ["before", "both"])
def test_a_fresh_layer_is_the_identity(model_settings, norm, norm_place):
    settings = dataclasses.replace(
        model_settings, bias="all", norm=norm, norm_place=norm_place
    )
    look = transformer.look_within(settings, 0, jnp.asarray(SEGMENTS_BL))
    layer = block.Block(settings)
    init = jax.jit(lambda key, x: layer.init_with_output(key, x, look))
    out, _ = init(jax.random.key(0), X_BLD)
    np.testing.assert_array_equal(out, X_BLD)


def test_norms_stand_where_the_settings_say(make):
    """Every norm but one has scale 0: what is left tells where that one stands."""
    params, run = make(norm_place="both")
    for name in ("attention_post_norm", "mlp_post_norm"):
        params[name]["scale"] *= 0
    np.testing.assert_array_equal(run(params), X_BLD)
    params, run = make(norm_place="after")
    params["mlp_norm"]["scale"] = np.full(16, 3.0, np.float32)
    out = run(params)
    np.testing.assert_allclose(out, normed(out) * 3, **CLOSE)
    assert set(params) == {"attention", "attention_norm", "mlp", "mlp_norm"}


def linear(params, x):
    return x @ params["kernel"] + params["bias"]


def gelu(x):
    return x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2


def gelu_exact(x):
    return x * (1 + np.vectorize(math.erf)(x / np.sqrt(2))) / 2


ACTIVATIONS = {
    "swiglu": lambda up, gate: up * gate / (1 + np.exp(-gate)),
    "geglu": lambda up, gate: up * gelu(gate),
    "gelu": lambda up, gate: gelu(up),
    "gelu_exact": lambda up, gate: gelu_exact(up),
    "relu2": lambda up, gate: np.maximum(up, 0) ** 2,
}


@pytest.mark.parametrize("mlp", ACTIVATIONS)
def test_a_layer_by_hand(make, mlp):
    params, run = make(mlp=mlp, bias="all")
    out = run(params)
    gated = mlp in ("swiglu", "geglu")
    assert ("gate" in params["mlp"]) == gated
    own = params["attention"]
    x = normed(X_BLD, params["attention_norm"]["scale"])
    heads = {
        name: linear(own[name], x).reshape(2, 6, -1, 4)
        for name in ("query", "key", "value")
    }
    assert [h.shape[2] for h in heads.values()] == [4, 2, 2]
    q, k = (
        attention.rotate(
            jnp.asarray(normed(heads[name], own[f"{name}_norm"]["scale"])),
            np.float32([1.0, 0.1]),
        )
        for name in ("query", "key")
    )
    reach = attention.Reach(causal=True, window=0, scale=0.5)
    mixed = attention.attend(
        q, k, heads["value"], jnp.asarray(SEGMENTS_BL), reach=reach
    )
    x = X_BLD + linear(own["output"], np.asarray(mixed).reshape(2, 6, 16))
    own = params["mlp"]
    inner = normed(x, params["mlp_norm"]["scale"])
    gate = linear(own["gate"], inner) if gated else None
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
    params, run = make(bias="all")
    seen, given = {}, {}

    def look(path, x, y):
        if path.endswith("/prefix"):  # none is there
            assert (path, y) == ("layers/0/attention/prefix", None)
            return y
        seen[path] = (x.shape[-1], y.shape[-1])
        given[path] = x
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
    for branch, product in (("attention", "query"), ("mlp", "up")):
        assert given[f"layers/0/{branch}"] is given[f"layers/0/{branch}/{product}"]


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


@pytest.mark.parametrize("kind", ["swiglu", "geglu", "relu2", "gelu", "gelu_exact"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_computed_again_has_the_same_gradient(kind, dtype):
    x, gate = jnp.asarray(np.stack([X_BLD, X_BLD[::-1]]) * 2, dtype)
    gate = gate if kind in ("swiglu", "geglu") else None
    plain = block.activate.__wrapped__
    np.testing.assert_array_equal(*check_gradient(block.activate, plain, kind, x, gate))


@pytest.mark.parametrize("norm", ["rms", "layer"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_norms_have_the_plain_gradient(
    model_settings, monkeypatch, norm, dtype, backend
):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    settings = dataclasses.replace(model_settings, norm=norm)
    params = {"scale": jnp.linspace(0.5, 2, 16)}
    if norm == "layer":
        params["bias"] = jnp.ones(16)
    x = jnp.asarray(X_BLD * 2, dtype)
    values = check_gradient(block.normalize, plain_norm, settings, params, x)
    chex.assert_trees_all_close(*values, **(CLOSE if dtype == "float32" else ROUNDED))


def plain_norm(settings, params, x):
    wide = x.astype(jnp.float32)
    if settings.norm == "layer":
        wide = wide - wide.mean(axis=-1, keepdims=True)
    square = (wide**2).mean(axis=-1, keepdims=True) + settings.norm_epsilon
    y = wide / jnp.sqrt(square) * params["scale"][None, None]
    if "bias" in params:
        y += params["bias"][None, None]
    return y.astype(x.dtype)


def check_gradient(function, plain, kind, *args):
    """Gradients are the plain function's, and little is kept; returns both values."""
    out, pull = jax.vjp(functools.partial(function, kind), *args)
    expected, pull_plain = jax.vjp(functools.partial(plain, kind), *args)
    close = CLOSE if out.dtype == "float32" else ROUNDED
    chex.assert_trees_all_close(pull(out), pull_plain(out), **close)
    kept = [leaf for leaf in jax.tree.leaves(pull) if leaf.size == out.size]
    assert len(kept) <= 2 and all(leaf.dtype == out.dtype for leaf in kept)
    return out, expected
