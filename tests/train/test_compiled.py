"""The compiled gradient is that of the operations one at a time.

XLA hands groups of operations to libraries, and has handed on wrong ones: a fault that
an equality of two compiled programs can miss.
"""

import dataclasses

import jax
import numpy as np
import pytest

from tljax.model import heads, product, transformer
from tljax.objective.classification import labelled_loss
from tljax.objective.next_token import language_loss
from tljax.settings import TransferSettings

ROWS, LENGTH, WORDS = 4, 32, 64  # activations of 4,096 numbers: XLA leaves less alone
TOKENS_BL = np.random.default_rng(0).integers(0, WORDS, (ROWS, LENGTH), np.int32)
BATCH = {
    "tokens_BL": TOKENS_BL,
    "segments_BL": np.repeat([[1] * 17 + [2] * 11 + [0] * 4], ROWS, 0).astype(np.int32),
    "targets_BL": np.roll(TOKENS_BL, -1, axis=1),
    "labels_BM": np.array([[2, 0], [1, 1], [0, 2], [2, 2]]),
    "weights_BM": np.ones((ROWS, 2), np.float32),
    "frozen": {},
}
KINDS = {
    "decoder": {"mlp": "swiglu", "kv_heads": 2, "bias": "none", "windows": (8,)},
    "encoder": {"mlp": "gelu", "causal": False, "norm": "layer", "bias": "all"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_compiled_gradients_are_those_of_single_operations(
    kind, model_settings, draw_params
):
    sizes = {"width": 32, "heads": 4, "mlp_width": 64, "depth": 1}
    model = dataclasses.replace(model_settings, **sizes, **KINDS[kind])
    params = draw_params(transformer.init_params, model, WORDS, jax.random.key(0))
    loss = language_loss(model)
    if kind == "encoder":
        loss = labelled_loss(model, "mean", TransferSettings())
        head = draw_params(heads.init_classifier, model.width, 3, jax.random.key(1))
        params = {**params, "head": head}
    gradient = jax.value_and_grad(lambda one: loss(one, BATCH, jax.random.key(0))[0])
    compiled = jax.jit(gradient)(params)
    with jax.disable_jit():
        plain = gradient(params)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(plain[1]))
    assert largest > 0.1
    np.testing.assert_allclose(compiled[0], plain[0], rtol=1e-5)

    def same(path, a, b):
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * largest, err_msg=name)

    jax.tree_util.tree_map_with_path(same, compiled[1], plain[1])


@pytest.mark.parametrize(("dtype", "rounding"), [("float32", 1e-5), ("bfloat16", 3e-2)])
def test_a_program_by_onednn_is_that_by_xla_s_own_products(
    monkeypatch, model_settings, draw_params, dtype, rounding
):
    """Of sizes that XLA hands on: from 2^24 FLOPs on, attention's from 2^19."""
    sizes = {"width": 128, "heads": 4, "kv_heads": 4, "mlp_width": 160, "depth": 1}
    model = dataclasses.replace(model_settings, **sizes, dtype=dtype)
    params = draw_params(transformer.init_params, model, WORDS, jax.random.key(0))
    batch = {name: np.tile(BATCH[name], (2, 4)) for name in BATCH if name[-2:] == "BL"}
    loss = language_loss(model)

    def gradient(params):
        return jax.value_and_grad(lambda one: loss(one, batch, None)[0])(params)

    own = jax.jit(gradient)(params)
    monkeypatch.setattr(product, "onednn_is_faster", lambda: True)
    told = product.lower_by_onednn(gradient, params)()(params)
    np.testing.assert_allclose(told[0], own[0], rtol=rounding)

    def same(path, a, b):
        a, b = (np.asarray(leaf, np.float32) for leaf in (a, b))
        error = np.linalg.norm(a - b) / np.linalg.norm(b)
        assert error < rounding, f"{jax.tree_util.keystr(path)}: {error}"

    jax.tree_util.tree_map_with_path(same, told[1], own[1])
