"""The loss in blocks, with its own derivative, is plain log softmax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.model import transformer
from tljax.objective import next_token

# float32: rounding of sums of 11 terms; bfloat16 keeps 8 bits of each logit and p
CLOSE = {"float32": 2e-6, "bfloat16": 3e-2}
TARGETS_BL = np.random.default_rng(1).integers(-1, 11, (3, 10))
TARGETS_BL[1, :7] = -1
TARGETS_BL[2] = 4  # one word many times: its row of the gradient is a sum


def plain(hidden_BLD, output_VD, targets_BL):
    """Sum of -log softmax, left to autodiff."""
    logits_BLV = hidden_BLD.astype(jnp.float32) @ output_VD.T
    log_p_BLV = jax.nn.log_softmax(logits_BLV, axis=-1)
    chosen_BL1 = jnp.maximum(targets_BL, 0)[..., None]
    nats_BL = -jnp.take_along_axis(log_p_BLV, chosen_BL1, axis=-1)[..., 0]
    return jnp.where(targets_BL >= 0, nats_BL, 0.0).sum()


def draw(dtype):
    random = np.random.default_rng(0)
    hidden_BLD = jnp.asarray(random.standard_normal((3, 10, 8)), dtype)
    return hidden_BLD, jnp.asarray(random.standard_normal((11, 8)), jnp.float32)


# 9 tokens of 3 rows are blocks of 3, 3, 3 and 1 positions; 2 of 1 each
@pytest.mark.parametrize("tokens", [1024, 9, 2])
@pytest.mark.parametrize("words", [1024, 4])  # of 11: 4, 4 and 3
@pytest.mark.parametrize("at_once", [2**20, 0])  # 0: blocks are scanned
@pytest.mark.parametrize("dtype", CLOSE)
def test_loss_and_gradients_are_those_of_plain_log_softmax(
    monkeypatch, tokens, words, at_once, dtype
):
    monkeypatch.setattr(next_token, "_AT_ONCE", at_once)
    monkeypatch.setattr(next_token, "_block", lambda vocab, width: (tokens, words))
    hidden, output = draw(dtype)
    targets = jnp.asarray(TARGETS_BL)

    def ours(hidden, output):
        return 2.5 * next_token.next_token_loss(hidden, output, targets)[0]

    def theirs(hidden, output):
        return 2.5 * plain(hidden, output, targets)

    both = [
        jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(hidden, output)
        for loss in (ours, theirs)
    ]
    (loss, (d_hidden, d_output)), (loss_, (d_hidden_, d_output_)) = both
    assert (d_hidden.dtype, d_output.dtype) == (dtype, "float32")
    np.testing.assert_allclose(loss, loss_, rtol=CLOSE[dtype])
    for found, expected in ((d_hidden, d_hidden_), (d_output, d_output_)):
        expected = np.asarray(expected, np.float32)
        error = np.abs(np.asarray(found, np.float32) - expected).max()
        assert error < CLOSE[dtype] * np.abs(expected).max() * 3
    assert not np.asarray(d_hidden, np.float32)[TARGETS_BL < 0].any()


def test_nats_by_hand():
    hidden_BLD = jnp.array([[[1.0], [0.0], [2.0]]])
    output_VD = jnp.array([[0.0], [jnp.log(3.0)], [0.0]])  # odds 1 : 3^h : 1
    targets_BL = jnp.array([[1, 0, -1]])
    nats = next_token.token_nats(hidden_BLD, output_VD, targets_BL)
    np.testing.assert_allclose(nats, [[np.log(5 / 3), np.log(3), 0]], rtol=1e-6)
    total, weight = next_token.next_token_loss(hidden_BLD, output_VD, targets_BL)
    np.testing.assert_allclose(total, np.log(5), rtol=1e-6)
    assert weight == 2.0 and weight.dtype == jnp.float32


def test_logits_too_large_for_exp_stay_finite():
    hidden_BLD, output_VD = jnp.full((1, 1, 1), 300.0), jnp.array([[1.0], [-1.0]])
    nats = next_token.token_nats(hidden_BLD, output_VD, jnp.array([[1]]))
    np.testing.assert_allclose(nats, [[600.0]])


@pytest.mark.parametrize("tied", [True, False])
def test_the_network_s_loss_counts_its_targets(model_settings, draw_params, tied):
    settings = model_settings.__class__(**{**vars(model_settings), "tied": tied})
    params = draw_params(transformer.init_params, settings, 11, jax.random.key(0))
    batch = {
        "tokens_BL": np.array([[1, 5, 6, 1, 9, 0]]),
        "segments_BL": np.array([[1, 1, 1, 2, 2, 0]]),
        "targets_BL": np.array([[5, 6, 1, 9, 1, -1]]),
    }
    loss = next_token.language_loss(settings)

    def expected(params):
        hidden = transformer.apply(settings, params, batch)
        matrix = params["embedding"]["tokens"] if tied else params["output"]["kernel"]
        return plain(hidden, matrix, batch["targets_BL"])

    @jax.jit
    def both(params):
        ours = jax.value_and_grad(loss, has_aux=True)(params, batch, None)
        return ours, jax.value_and_grad(expected)(params)

    ((nats, sums), gradients), (nats_, gradients_) = both(params)
    assert set(sums) == {"weight"} and sums["weight"] == 5
    np.testing.assert_allclose(nats, nats_, rtol=1e-5)
    jax.tree.map(
        lambda g, g_: np.testing.assert_allclose(g, g_, rtol=1e-3, atol=1e-5),
        gradients,
        gradients_,
    )
