"""Classification by hand; two small batches are one large one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.model import heads, transformer
from tljax.objective import classification
from tljax.settings import TransferSettings


def test_the_loss_by_hand():
    odds = jnp.array([[[1.0, 3.0], [1.0, 1.0], [2.0, 8.0]]])
    labels, weights = jnp.array([[1, 0, -1]]), jnp.array([[1.0, 2.0, 0.0]])
    nats, weight = classification.classification_loss(jnp.log(odds), labels, weights)
    np.testing.assert_allclose(nats, np.log(4 / 3) + 2 * np.log(2), rtol=1e-6)
    assert weight == 3.0


def test_smoothed_labels_by_hand():
    p = np.float32([[[0.7, 0.2, 0.1]]])
    found, weight = classification.classification_loss(
        jnp.log(p), jnp.array([[1]]), jnp.array([[2.0]]), jnp.float32(0.3)
    )
    wanted = np.array([0.1, 0.8, 0.1])  # 0.7 of the label, 0.3 / 3 of every class
    np.testing.assert_allclose(found, -2 * (wanted * np.log(p)).sum(), rtol=1e-6)
    assert weight == 2.0


def test_an_empty_slot_pulls_at_nothing():
    def loss(logits):
        labels, weights = jnp.array([[1, 0]]), jnp.array([[1.0, 0.0]])
        return classification.classification_loss(logits, labels, weights)[0]

    pull = jax.grad(loss)(jnp.zeros((1, 2, 2)))
    np.testing.assert_allclose(pull, [[[0.5, -0.5], [0, 0]]])


def test_gathering_by_hand():
    tokens = jnp.array([7, 8, 9])
    found = classification.gather(tokens, jnp.array([[2, 0, -1], [1, -1, -1]]))
    np.testing.assert_array_equal(found, [[9, 7, 0], [8, 0, 0]])
    streams = jnp.array([[7.0, 1.0], [8.0, 2.0], [9.0, 3.0]])
    found = classification.gather(streams, jnp.array([[2, -1]]))
    np.testing.assert_array_equal(found, [[[9, 3], [0, 0]]])


ALL = TransferSettings()  # all weights move
BATCH = {
    "tokens_BL": np.array([[3, 4, 5, 6, 0], [7, 8, 9, 2, 2], [4, 4, 0, 0, 0]]),
    "segments_BL": np.array([[1, 1, 2, 2, 0], [1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]),
    "labels_BM": np.array([[2, 0], [1, 0], [2, 0]]),
    "weights_BM": np.float32([[1, 1], [1, 0], [1, 0]]),
}


@pytest.fixture
def params(model_settings, draw_params):
    def init(key):
        params = transformer.init_params(model_settings, 10, key)
        return params | {"head": heads.init_classifier(16, 3, key)}

    return draw_params(init, jax.random.key(0))


def test_correct_items_are_counted_by_weight(model_settings, params):
    @jax.jit
    def both(params, labels_BM):
        batch = BATCH | {"labels_BM": labels_BM}
        loss = classification.labelled_loss(model_settings, "mean", ALL)
        logits = classification.logits(model_settings, "mean", params, batch)
        return logits, loss(params, batch | {"frozen": {}}, None)

    real, labels_BM = BATCH["weights_BM"] > 0, BATCH["labels_BM"]
    logits_BMC, _ = both(params, labels_BM)
    assert logits_BMC.shape == (3, 2, 3)
    # what stands in an empty slot would be right, and must not count
    labels_BM = np.where(real, labels_BM, logits_BMC.argmax(axis=-1))
    _, (nats, sums) = both(params, labels_BM)
    right = (logits_BMC.argmax(axis=-1) == labels_BM)[real]
    assert sums["correct"] == right.sum() and sums["weight"] == 4
    odds = np.exp(np.asarray(logits_BMC, np.float64))[real]
    p = odds[np.arange(4), labels_BM[real]] / odds.sum(axis=1)
    np.testing.assert_allclose(nats, -np.log(p).sum(), rtol=1e-5)


def test_sums_of_small_batches_are_the_large_batch_s(model_settings, params):
    loss = classification.labelled_loss(model_settings, "last", ALL)

    @jax.jit
    def total(params, batch):
        batch = batch | {"frozen": {}}
        return jax.value_and_grad(loss, has_aux=True)(params, batch, None)

    whole = total(params, BATCH)
    empty = {name: rows * 0 for name, rows in BATCH.items()}
    parts = [
        total(params, {k: np.where([[i == n] for i in range(3)], rows, empty[k])
                       for k, rows in BATCH.items()})
        for n in range(3)
    ]  # fmt: skip
    added = jax.tree.map(lambda *leaves: sum(leaves), *parts)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        added,
        whole,
    )
