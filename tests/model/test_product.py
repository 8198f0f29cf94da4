"""The product's own derivative is that of x w, whatever the layout."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.model import product

# relative rounding of one stored number: 2^-24 and 2^-8, times a margin for the sums
ROUNDING = {"float32": 1e-6, "bfloat16": 1e-2}
AMX = "amx_tile amx_bf16"


def draw(dtype, *lead, width=5):
    random = np.random.default_rng(0)
    shapes = ((6, 4), (4, width), (6, width))
    return [jnp.asarray(random.standard_normal((*lead, *s)), dtype) for s in shapes]


def pulled(x, w, g):
    y, pull = jax.vjp(product.product, x, w)
    return y, *pull(g)


def exact(x):
    return np.asarray(x, np.float64)


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("lead", [(), (3,)])
@pytest.mark.parametrize("width", [5, 3])  # the product widens or narrows
def test_value_and_gradients_are_the_plain_product_s(onednn, dtype, lead, width):
    x, w, g = draw(dtype, *lead, width=width)
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


def test_weights_in_float32_get_gradients_that_onednn_alone_rounds(onednn):
    x, w, g = draw("bfloat16")
    y, pull_x, pull_w = jax.jit(pulled)(x, w.astype(jnp.float32), g)
    assert (y.dtype, pull_x.dtype, pull_w.dtype) == ("bfloat16", "bfloat16", "float32")
    rounding = 2**-8 if onednn else 1e-5
    np.testing.assert_allclose(pull_w, exact(x).T @ exact(g), rtol=rounding)


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


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("capable", [True, False])
@pytest.mark.parametrize("flags", ["", "--xla_cpu_use_onednn=false"])
def test_programs_are_traced_for_onednn_where_it_is_faster(
    monkeypatch, flags, capable, backend
):
    asked, seen = {}, []

    class Traced:
        def __init__(self, function, **more):
            asked.update(more)
            self.function = function

        def lower(self, *args):
            self.result = self.function(*args)
            return self

        def compile(self):
            return self.result

    monkeypatch.setenv("XLA_FLAGS", flags)
    monkeypatch.setattr(product, "processor_has", lambda flag: capable)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(jax, "jit", Traced)
    compiled = product.lower_by_onednn(
        lambda x: seen.append(product.by_onednn()) or x, 3, donate_argnums=0
    )
    assert compiled() == 3
    taken = capable and backend == "cpu" and not flags
    assert seen == [taken] and not product.by_onednn()
    assert asked.pop("compiler_options", {}).get("xla_cpu_use_onednn", False) == taken
    assert asked == {"donate_argnums": 0}


@pytest.mark.parametrize(
    ("told", "bfloat16", "few_rows", "onednn", "sums"),
    [
        ("AuthenticAMD sse4_2", False, False, False, False),
        ("AuthenticAMD avx2", False, False, False, True),
        ("AuthenticAMD avx2 avx512_bf16", True, True, False, True),
        ("AuthenticAMD avx2 avx512_bf16 avx512_fp16", True, True, False, True),
        ("GenuineIntel avx2", False, False, False, True),
        ("GenuineIntel avx2 avx512_bf16", False, True, False, True),
        ("GenuineIntel avx2 avx512_bf16 avx512_fp16", False, True, True, True),
        (f"GenuineIntel avx2 avx512_bf16 avx512_fp16 {AMX}", True, True, True, False),
    ],
)
def test_what_is_faster_hangs_on_the_processor(
    monkeypatch, told, bfloat16, few_rows, onednn, sums
):
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(product, "processor_has", lambda flag: flag in told.split())
    asked = product.bfloat16_is_faster.__wrapped__
    assert asked() == bfloat16
    assert asked(few_rows=True) == few_rows
    assert product.onednn_is_faster() == onednn
    assert product.sums_are_faster() == sums
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not product.sums_are_faster()


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 8, 9, 16])
@pytest.mark.parametrize("dtype", ROUNDING)
def test_few_rows_are_multiplied_as_sums_where_a_program_asks(summing, dtype, rows):
    random = np.random.default_rng(0)
    x = jnp.asarray(random.standard_normal((rows, 70)), dtype)
    w = jnp.asarray(random.standard_normal((33, 70)), dtype)
    expected = exact(x) @ exact(w).T
    size = np.abs(exact(x)) @ np.abs(exact(w)).T
    for given in (None, jnp.float32):
        read = functools.partial(product.read_once, dtype=given)
        program = product.jit_by_sums(read).program().lower(x, w).compile()
        assert (" dot(" not in program.as_text()) == (rows in (2, 3, 4, 8))
        y = program(x, w)
        assert y.dtype == (given or dtype)
        rounding = ROUNDING[str(y.dtype)]
        np.testing.assert_array_less(np.abs(exact(y) - expected), rounding * size)
        assert " dot(" in jax.jit(read).lower(x, w).compile().as_text()


def test_sums_read_bfloat16_weights_as_they_are_in_every_step(summing):
    x, w = jnp.ones((2, 128), "bfloat16"), jnp.ones((128, 128), "bfloat16")

    def loop(x, w):
        def step(_, x):
            return product.read_once(x, w) / 128

        return jax.lax.fori_loop(0, 3, step, x)

    program = product.jit_by_sums(loop).program().lower(x, w).compile()
    np.testing.assert_array_equal(program(x, w), x)
    copy = w.size * 4  # a float32 one, made once before all steps
    assert program.memory_analysis().temp_size_in_bytes < copy


def test_sums_beside_each_other_are_those_of_the_last_axis(summing):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((3, 4, 70)), jnp.float32)
    for axis in (0, 1):
        sums = product.jit_by_sums(functools.partial(product.sum_last, beside=axis))(x)
        np.testing.assert_allclose(sums, exact(x).sum(axis=-1), rtol=1e-5, atol=1e-5)


def test_an_error_while_a_program_is_traced_ends_it(monkeypatch):
    def fail(x):
        assert product.by_onednn()
        raise ZeroDivisionError

    monkeypatch.setattr(product, "onednn_is_faster", lambda: True)
    with pytest.raises(ZeroDivisionError):
        product.lower_by_onednn(fail, 1)
    assert not product.by_onednn()


def test_an_error_while_a_program_by_sums_is_traced_ends_it(summing):
    def fail(x):
        assert product._by_sums.get()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        product.jit_by_sums(fail)(1)
    assert not product._by_sums.get()


def test_large_products_are_onednn_s_and_programs_outlive_their_call(monkeypatch):
    x, w = jnp.ones((512, 128), "bfloat16"), jnp.ones((128, 160), "bfloat16")
    monkeypatch.setenv("XLA_FLAGS", "")
    faster = product.onednn_is_faster()
    monkeypatch.setattr(product, "onednn_is_faster", lambda: True)
    program = product.lower_by_onednn(product.product, x, w)()
    if faster:  # elsewhere nobody asks for it
        assert "__onednn_fusion" in program.as_text()
    assert program in product._kept
    np.testing.assert_array_equal(program(x, w), jnp.full((512, 160), 128))
    own = jax.jit(product.product).lower(x, w).compile()
    assert "__onednn_fusion" not in own.as_text()


def test_what_is_unrounded_has_products_in_float32(onednn):
    x, w, _ = draw("bfloat16")
    x, w = product.unrounded(x), product.unrounded(w.T)
    assert x.dtype == ("float32" if onednn else "bfloat16")
    found = jax.jit(product.times_transposed, static_argnums=2)(x, w, "float32")
    np.testing.assert_allclose(found, exact(x) @ exact(w).T, rtol=1e-5)


@pytest.mark.parametrize("amx", [True, False])
@pytest.mark.parametrize("result", [None, "float32"])
@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize(
    ("name", "shape"),
    [("times_transposed", (6, 4)), ("times_transposed", (3, 2, 6, 4)),
     ("read_once", (6, 4)), ("read_once", (40, 4))],
)  # fmt: skip
def test_products_with_a_transpose(monkeypatch, name, shape, dtype, result, amx):
    monkeypatch.setattr(product, "processor_has", lambda flag: amx)
    check_transpose(getattr(product, name), shape, dtype, result)


@pytest.mark.parametrize("result", [None, "float32"])
@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("shape", [(6, 4), (3, 2, 6, 4)])
def test_products_with_a_transpose_by_onednn(monkeypatch, shape, dtype, result):
    monkeypatch.setattr(product, "by_onednn", lambda: True)
    check_transpose(product.times_transposed, shape, dtype, result, rounded=dtype)


def check_transpose(multiply, shape, dtype, result, rounded=None):
    """The dtype is what was asked for, the error that of what was rounded to."""
    random = np.random.default_rng(0)
    a, b = (
        jnp.asarray(random.standard_normal((*shape[:-2], n, 4)), dtype)
        for n in (shape[-2], 5)
    )
    found = jax.jit(lambda a, b: multiply(a, b, result))(a, b)
    by_hand = exact(a) @ exact(b).mT
    assert found.dtype == (result or dtype)
    error = np.abs(exact(found) - by_hand)
    assert error.max() < ROUNDING[rounded or result or dtype] * np.abs(by_hand).max()


@pytest.mark.parametrize("few_rows", [True, False])
def test_auto_is_bfloat16_only_where_it_is_faster(monkeypatch, few_rows):
    monkeypatch.setattr(product, "bfloat16_is_faster", lambda *, few_rows: few_rows)

    def dtype(name):
        return product.product_dtype(name, few_rows=few_rows)

    assert dtype("auto") == ("bfloat16" if few_rows else "float32")
    assert dtype("float32") == "float32"
    assert dtype("bfloat16") == "bfloat16"


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
