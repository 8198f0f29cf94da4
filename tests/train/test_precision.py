"""What stays in float32 where products are in bfloat16."""

import dataclasses

import jax
import numpy as np
import pytest

from tljax.model import heads, transformer
from tljax.objective.classification import labelled_loss
from tljax.objective.next_token import language_loss
from tljax.settings import TransferSettings
from tljax.train import optimizer, step

# of softmax, SiLU and norms; the largest of some numbers is exact in their own dtype
WIDE = {"exp", "log", "tanh", "rsqrt"}
BATCH = {
    "tokens_BL": np.arange(16, dtype=np.int32).reshape(2, 8),
    "segments_BL": np.ones((2, 8), np.int32),
    "targets_BL": np.arange(1, 17, dtype=np.int32).reshape(2, 8),
    "labels_BM": np.array([[2], [0]]),
    "weights_BM": np.ones((2, 1), np.float32),
    "frozen": {},
}


@pytest.fixture(params=["next word", "labels"])
def work(request, model_settings):
    """(loss, its parameters' shapes) of products in bfloat16."""
    model = dataclasses.replace(model_settings, dtype="bfloat16")

    def init(key):
        params = transformer.init_params(model, 40, key)
        return {**params, "head": heads.init_classifier(model.width, 3, key)}

    params = jax.eval_shape(init, jax.random.key(0))
    if request.param == "next word":
        return language_loss(model), {k: v for k, v in params.items() if k != "head"}
    return labelled_loss(model, "mean", TransferSettings()), params


def equations(jaxpr):
    """All equations, those of inner programs too."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(
            equation.params, is_leaf=lambda one: hasattr(one, "eqns")
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_weights_moments_and_sums_are_float32(work, optim_settings, name):
    loss, params = work
    settings = dataclasses.replace(optim_settings, name=name)
    hparams = optimizer.hyperparameters(settings, 10, 0)
    state = jax.eval_shape(lambda one: step.init_state(one, settings), params)
    train_step = step.make_train_step(loss, settings)
    state, sums = jax.eval_shape(train_step, state, BATCH, hparams)
    found = jax.tree.leaves((state.params, state.optimizer, sums))
    assert {str(one.dtype) for one in found} == {"float32", "int32"}


def test_softmax_and_loss_are_computed_in_float32(work):
    """And products are not: else this would hold of any program."""
    loss, params = work
    program = jax.make_jaxpr(
        jax.value_and_grad(lambda params: loss(params, BATCH, jax.random.key(0))[0])
    )(params)
    kinds = {
        (equation.primitive.name, str(one.aval.dtype))
        for equation in equations(program.jaxpr)
        for one in equation.invars
    }
    assert {dtype for name, dtype in kinds if name in WIDE} == {"float32"}
    assert {name for name, _ in kinds} >= WIDE
    assert ("dot_general", "bfloat16") in kinds
