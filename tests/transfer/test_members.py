"""Members that share a frozen base: each is its lone run, bit for bit.

A lone run is compiled for one method (its dropout is drawn, too); for the others the
population's own program runs with the other member masked.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.model import heads, transformer
from tljax.objective.classification import labelled_loss
from tljax.settings import TransferSettings
from tljax.train import optimizer, population, step
from tljax.transfer.method import split
from tljax.transfer.transplant import flat

METHODS = {
    "dora": TransferSettings(method="dora", rank=2, dropout=0.1),
    "bottleneck": TransferSettings(method="bottleneck", width=3),
    "ia3": TransferSettings(method="ia3"),
    "prompt": TransferSettings(method="prompt", prompt_length=2),
    "prefix": TransferSettings(method="prefix", prefix_length=2),
}
STEPS = 3


@pytest.fixture
def base(model_settings, draw_params):
    def init(key):
        params = transformer.init_params(model_settings, 20, key)
        return params | {"head": heads.init_classifier(16, 3, key)}

    model_settings = dataclasses.replace(model_settings, depth=1)
    return model_settings, draw_params(init, jax.random.key(0))


def take(data, plan, index):
    start = plan + index
    tokens_L = jax.lax.dynamic_slice_in_dim(data["tokens"], start, 8)
    return {
        "tokens_BL": tokens_L[None],
        "segments_BL": jnp.ones((1, 8), jnp.int32),
        "labels_BM": start[None, None] % 3,
        "weights_BM": jnp.ones((1, 1)),
        "frozen": data["frozen"],
    }


@pytest.mark.parametrize("name", METHODS)
def test_a_member_in_turn_is_the_lone_run_bit_for_bit(base, optim_settings, name):
    model, params = base
    transfer, members = METHODS[name], []
    for seed in range(2):
        moving, frozen = split(params, transfer, jax.random.key(seed))
        optim = dataclasses.replace(optim_settings, lr_peak=0.01 * (seed + 1))
        members.append(
            (
                step.init_state(moving, optim),
                jnp.int32(4 * seed),
                optimizer.hyperparameters(optim, STEPS, seed),
                jnp.int32(STEPS),
            )
        )
    data = {"frozen": frozen, "tokens": jnp.arange(20) % 11}
    loss = labelled_loss(model, "mean", transfer)
    rounds = population.make_train_rounds(
        step.make_train_step(loss, optim_settings), take
    )
    advance = jax.jit(population.lift(rounds, "turn", shared=1))
    together, _ = advance(data, *population.stack(members))
    for i, member in enumerate(members):
        if name == "dora":
            lone, _ = advance(data, *population.stack([member]))
            alone = flat(population.member(lone.params, 0))
        else:
            masked = [(*one[:3], one[3] * (one is member)) for one in members]
            lone, _ = advance(data, *population.stack(masked))
            alone = flat(population.member(lone.params, i))
        mine = flat(population.member(together.params, i))
        for path, leaf in alone.items():
            np.testing.assert_array_equal(mine[path], leaf)
        first = flat(member[0].params)
        # what feeds a product that begins as zero moves from the second step on
        assert all((np.asarray(mine[path]) != first[path]).any() for path in first)
