"""Bits per byte by hand, and of a model: every token once, whatever the windows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.data.corpus import scoring_windows
from tljax.data.token_store import TokenStore
from tljax.evaluate import language
from tljax.model import transformer

VOCAB = 20


def store_of(*documents):
    """E opens each document and closes the last."""
    flat = np.concatenate([[1, *document] for document in documents] + [[1]])
    lengths = [len(document) + 1 for document in documents]
    return TokenStore(flat=flat.astype(np.uint16), offsets=np.cumsum([0, *lengths]))


def windows_of(store, **changes):
    chosen = {"documents": 0, "length": 8, "stride": 4, "batch": 2}
    return scoring_windows(store, **chosen | changes)


@pytest.fixture
def store():
    random = np.random.default_rng(0)
    return store_of(*(random.integers(2, VOCAB, size) for size in (3, 21, 8, 1)))


def test_by_hand():
    windows = [
        {"targets_BL": np.array([[5, 6, -1]]), "documents_BL": np.array([[0, 1, 1]])},
        {
            "targets_BL": np.array([[7, -1, -1]]),
            "documents_BL": np.array([[1, -1, -1]]),
        },
    ]
    scores = iter([[[np.log(8), np.log(2), 99.0]], [[np.log(4), 99.0, 99.0]]])
    found = language.bits_per_byte(
        lambda params, batch: next(scores), {}, windows, np.array([2, 4])
    )
    # documents of 3 bits in 2 bytes and 1 + 2 bits in 4; residuals 3 - 2 and 3 - 4
    assert found == {
        "value": pytest.approx(6 / 6),
        "se": pytest.approx(np.sqrt((1 + 1) * 2 / 1) / 6),
        "documents": 2,
        "bytes": 6,
        "tokens": 3,
    }


def test_the_score_sees_no_bookkeeping(store):
    seen = []

    def score(params, batch):
        seen.append(set(batch))
        return np.zeros(batch["targets_BL"].shape)

    found = language.bits_per_byte(score, {}, windows_of(store), np.ones(4))
    assert seen and all(
        names == {"tokens_BL", "targets_BL", "segments_BL"} for names in seen
    )
    assert (found["value"], found["tokens"]) == (0, 37)


def test_a_model_that_knows_nothing_needs_log2_of_the_vocabulary(
    model_settings, draw_params, store
):
    params = draw_params(
        transformer.init_params, model_settings, VOCAB, jax.random.key(0)
    )
    params["final_norm"]["scale"] *= 0
    score = language.make_score(model_settings, jax.device_put)
    found = language.bits_per_byte(score, params, windows_of(store), np.full(4, 10))
    assert found["value"] == pytest.approx(37 * np.log2(VOCAB) / 40, rel=1e-5)


def test_windows_are_whole_documents_where_these_fit(
    model_settings, draw_params, store
):
    params = draw_params(
        transformer.init_params, model_settings, VOCAB, jax.random.key(0)
    )
    score = language.make_score(model_settings, jax.device_put)
    counts = np.arange(1, 5)
    packed = language.bits_per_byte(
        score, params, windows_of(store, length=24, stride=7, batch=3), counts
    )

    @jax.jit
    def log_softmax(params, tokens_BL):
        batch = {"tokens_BL": tokens_BL, "segments_BL": jnp.ones((1, 24), int)}
        states_LD = transformer.apply(model_settings, params, batch)[0]
        return jax.nn.log_softmax(states_LD @ params["embedding"]["tokens"].T)

    nats = 0.0
    for i in range(4):
        start, stop = store.offsets[i : i + 2]
        tokens, targets = store.read(start, stop)
        tokens = np.pad(tokens, (0, 24 - len(tokens)))[None]
        log_p = np.asarray(log_softmax(params, tokens))
        nats -= log_p[np.arange(stop - start), targets].sum()
    assert packed["value"] == pytest.approx(nats / np.log(2) / 10, rel=1e-5)
