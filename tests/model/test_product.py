"""The product's own derivative is that of x w, whatever the layout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.model import product

# relative rounding of one stored number: 2^-24 and 2^-8, times a margin for the sums
ROUNDING = {"float32": 1e-6, "bfloat16": 1e-2}


def draw(dtype, *lead, width=5, rows=6):
    random = np.random.default_rng(0)
    shapes = ((rows, 4), (4, width), (rows, width))
    return [jnp.asarray(random.standard_normal((*lead, *s)), dtype) for s in shapes]


def pulled(x, w, g):
    y, pull = jax.vjp(product.product, x, w)
    return y, *pull(g)


def exact(x):
    return np.asarray(x, np.float64)


@pytest.fixture(params=[True, False], ids=["onednn", "own"])
def onednn(request, monkeypatch):
    """Products as they are written for oneDNN, or for XLA's own; any computes both."""
    monkeypatch.setattr(product, "by_onednn", lambda: request.param)
    return request.param


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("lead", [(), (3,)])
@pytest.mark.parametrize("width", [5, 3])  # the product widens or narrows
@pytest.mark.parametrize("rows", [6, 7])  # an even number has halves
def test_value_and_gradients_are_the_plain_product_s(onednn, dtype, lead, width, rows):
    x, w, g = draw(dtype, *lead, width=width, rows=rows)
    ours = jax.jit(jax.vmap(pulled) if lead else pulled)(x, w, g)
    x, w, g = map(exact, (x, w, g))
    for one, by_hand in zip(ours, (x @ w, g @ w.mT, x.mT @ g), strict=True):
        assert one.dtype == dtype
        error = np.abs(exact(one) - by_hand)
        assert error.max() < ROUNDING[dtype] * np.abs(by_hand).max()


@pytest.mark.parametrize("dtype", ROUNDING)
def test_products_that_are_large_enough_for_a_library(onednn, dtype):
    random = np.random.default_rng(0)
    shapes = ((512, 128), (128, 160), (512, 160))  # 2 x 10^7 FLOPs each
    x, w, g = (jnp.asarray(random.standard_normal(s), dtype) for s in shapes)
    w = w.astype(jnp.float32)
    ours = jax.jit(pulled)(x, w, g)
    assert [one.dtype for one in ours] == [dtype, dtype, "float32"]
    w = exact(w.astype(dtype))
    for one, by_hand in zip(ours, (x @ w, g @ w.T, x.T @ g), strict=True):
        error = np.abs(exact(one) - exact(by_hand))
        assert error.max() < ROUNDING[dtype] * np.abs(by_hand).max()


@pytest.mark.parametrize("rows", [6, 7])
def test_sums_of_weights_gradients_are_rounded_once_at_most(onednn, rows):
    """By oneDNN each half is, to its own size; by XLA's own products none."""
    x, w, g = draw("bfloat16", rows=rows)
    y, pull_x, pull_w = jax.jit(pulled)(x, w.astype(jnp.float32), g)
    assert (y.dtype, pull_x.dtype, pull_w.dtype) == ("bfloat16", "bfloat16", "float32")
    by_hand, largest = exact(x).T @ exact(g), np.abs(exact(x)).T @ np.abs(exact(g))
    allowed = 2**-8 * largest if onednn else 1e-5 * np.abs(by_hand)
    assert (np.abs(pull_w - by_hand) <= allowed).all()


def test_a_wide_product_is_not_folded_with_what_follows(monkeypatch):
    """Into one whose left side is transposed: for that XLA has no such kernel."""
    monkeypatch.setattr(product, "by_onednn", lambda: False)
    x, w, _ = draw("bfloat16")

    def follow(x, w):
        return product.transposed(product.wide_product(x, w), always=True)

    program = jax.jit(follow).lower(x, w).compile()
    assert "lhs_contracting_dims={1}, rhs_contracting_dims={0}" in program.as_text()
    found = program(x, w)
    assert found.dtype == "float32"
    np.testing.assert_allclose(found, (exact(x) @ exact(w)).T, rtol=1e-5)


@pytest.mark.parametrize("flags", ["", "--xla_cpu_use_onednn=true --xla_dump_to=a"])
@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_onednn_multiplies_where_xla_is_told_so(monkeypatch, flags, backend):
    monkeypatch.setenv("XLA_FLAGS", flags)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert product.by_onednn() == (backend == "cpu" and bool(flags))


def test_what_is_unrounded_has_products_in_float32(onednn):
    x, w, _ = draw("bfloat16")
    x, w = product.unrounded(x), product.unrounded(w.T)
    assert x.dtype == ("float32" if onednn else "bfloat16")
    found = jax.jit(product.times_transposed, static_argnums=2)(x, w, "float32")
    np.testing.assert_allclose(found, exact(x) @ exact(w).T, rtol=1e-5)


@pytest.mark.parametrize("result", [None, "float32"])
@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("lead", [(), (3, 2)])
def test_products_with_a_transpose(onednn, lead, dtype, result):
    a, b, found = transpose(product.times_transposed, (*lead, 6, 4), dtype, result)
    check(a, b, found, result or dtype, dtype if onednn else result or dtype)


@pytest.mark.parametrize("amx", [True, False])
@pytest.mark.parametrize("result", [None, "float32"])
@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("rows", [6, 40])  # few, and many
def test_products_that_read_their_weights_once(
    monkeypatch, onednn, rows, dtype, result, amx
):
    monkeypatch.setattr(product, "processor_has", lambda flag: amx)
    a, b, found = transpose(product.read_once, (rows, 4), dtype, result)
    check(a, b, found, result or dtype, result or dtype)


def transpose(multiply, shape, dtype, result):
    """Operands and result of one of the products with a transposed right side."""
    random = np.random.default_rng(0)
    a, b = (
        jnp.asarray(random.standard_normal((*shape[:-2], n, 4)), dtype)
        for n in (shape[-2], 5)
    )
    return a, b, jax.jit(lambda a, b: multiply(a, b, result))(a, b)


def check(a, b, found, dtype, rounded):
    """The dtype is what was asked for, the error that of what was rounded to."""
    by_hand = exact(a) @ exact(b).mT
    assert found.dtype == dtype
    error = np.abs(exact(found) - by_hand)
    assert error.max() < ROUNDING[rounded] * np.abs(by_hand).max()


@pytest.mark.parametrize("native", [True, False])
def test_auto_is_bfloat16_only_where_it_is_native(monkeypatch, native):
    monkeypatch.setattr(product, "native_bfloat16", lambda: native)
    assert product.product_dtype("auto") == ("bfloat16" if native else "float32")
    assert product.product_dtype("float32") == "float32"
    assert product.product_dtype("bfloat16") == "bfloat16"


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("axis", [0, 1])
def test_weighted_sums_by_hand(monkeypatch, backend, axis):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    x = jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    weight = jnp.array([1.0, 10.0, 100.0][: x.shape[axis]])
    by_hand = [531.0, 642.0] if axis == 0 else [21.0, 43.0, 65.0]
    np.testing.assert_array_equal(product.weighted_sum(x, weight, axis=axis), by_hand)


@pytest.mark.parametrize("axis", [0, 1])
def test_weighted_sums_are_the_same_in_vectors_of_any_width(axis):
    """A run repeats another to the bit, also where a process chose other vectors."""
    random = np.random.default_rng(0)
    x = random.standard_normal((300, 200), np.float32)
    weight = random.standard_normal(x.shape[axis], np.float32)
    program = jax.jit(lambda x, w: product.weighted_sum(x, w, axis=axis))
    sums = [
        program.lower(x, weight).compile({"xla_cpu_prefer_vector_width": width})
        for width in (256, 512)
    ]
    np.testing.assert_array_equal(*(one(x, weight) for one in sums))
