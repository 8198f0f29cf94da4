"""The product's own derivative is that of x w, whatever the layout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.model import product

# relative rounding of one stored number: 2^-24 and 2^-8, times a margin for the sums
ROUNDING = {"float32": 1e-6, "bfloat16": 1e-2}


def draw(dtype, *lead):
    random = np.random.default_rng(0)
    shapes = ((6, 4), (4, 5), (6, 5))
    return [jnp.asarray(random.standard_normal((*lead, *s)), dtype) for s in shapes]


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("lead", [(), (3,)])
def test_value_and_gradients_are_the_plain_product_s(dtype, lead):
    x, w, g = draw(dtype, *lead)

    def pulled(x, w, g):
        y, pull = jax.vjp(product.product, x, w)
        return y, *pull(g)

    ours = jax.jit(jax.vmap(pulled) if lead else pulled)(x, w, g)
    x, w, g = (np.asarray(array, np.float64) for array in (x, w, g))
    for one, by_hand in zip(ours, (x @ w, g @ w.mT, x.mT @ g), strict=True):
        assert one.dtype == dtype
        error = np.abs(np.asarray(one, np.float64) - by_hand)
        assert error.max() < ROUNDING[dtype] * np.abs(by_hand).max()


@pytest.mark.parametrize("native", [True, False])
def test_auto_is_bfloat16_only_where_it_is_native(monkeypatch, native):
    monkeypatch.setattr(product, "native_bfloat16", lambda: native)
    assert product.product_dtype("auto") == ("bfloat16" if native else "float32")
    assert product.product_dtype("float32") == "float32"
    assert product.product_dtype("bfloat16") == "bfloat16"
