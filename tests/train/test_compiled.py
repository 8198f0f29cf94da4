"""The compiled gradient is that of the operations one at a time.

XLA hands groups of operations to libraries, and has handed on wrong ones: a fault that
an equality of two compiled programs can miss.
"""

import dataclasses

import jax
import numpy as np
import pytest

from tljax.model import heads, transformer
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
