"""Features of packed texts are those of each text alone, layer by layer."""

import dataclasses

import jax
import numpy as np
import pytest

from tljax.evaluate import features
from tljax.model import transformer

LENGTHS = [1, 7, 3, 8, 2, 2, 5]
CLOSE = {"rtol": 1e-4, "atol": 1e-5}  # float32, another order of summation


@pytest.fixture
def tokens():
    random = np.random.default_rng(0)
    return [random.integers(2, 20, length).astype(np.int32) for length in LENGTHS]


@pytest.fixture
def model(model_settings, draw_params, monkeypatch):
    """(settings, parameters) of a model whose second layer has a window."""
    monkeypatch.setattr(features, "ROW_LENGTH", 8)
    monkeypatch.setattr(features, "_BLOCK", 1)
    monkeypatch.setitem(features.STEP_TOKENS, "cpu", 16)  # several steps
    settings = dataclasses.replace(model_settings, windows=(0, 3))
    key = jax.random.key(0)
    return settings, draw_params(transformer.init_params, settings, 20, key)


def alone(model, tokens):
    """The streams after 0, 1, 2 layers and the final states of each text by itself."""
    settings, params = model

    @jax.jit
    def compute(params, tokens_BL, segments_BL):
        kept = {}
        batch = {"tokens_BL": tokens_BL, "segments_BL": segments_BL}
        last = transformer.apply(
            settings, params, batch, watch=lambda i, x: kept.update({i: x})
        )
        return [kept[0], kept[1], kept[2], last]

    found = []
    for one in tokens:
        row, segments = np.zeros((2, 1, 8), np.int32)
        row[0, : len(one)], segments[0, : len(one)] = one, 1
        streams = compute(params, row, segments)
        found.append([np.asarray(x)[0, : len(one)] for x in streams])
    return found


def test_streams_and_final_states_are_pooled_in_the_texts_order(model, tokens):
    settings, params = model
    by_hand = alone(model, tokens)
    found = features.pooled_features(
        settings, params, tokens, poolings=["mean", "last"], layers=(2, 0)
    )
    assert found.shape == (7, 2, 2, 16) and found.dtype == np.float32
    for i, streams in enumerate(by_hand):
        for place, layer in enumerate((2, 0)):
            np.testing.assert_allclose(
                found[i, place, 0], streams[layer].mean(0), **CLOSE
            )
            np.testing.assert_allclose(found[i, place, 1], streams[layer][-1], **CLOSE)
    final = features.pooled_features(settings, params, tokens, poolings=["cls"])
    for i, streams in enumerate(by_hand):
        np.testing.assert_allclose(final[i, 0, 0], streams[3][0], **CLOSE)


def test_what_lies_above_the_highest_layer_is_not_computed(model, tokens):
    settings, params = model
    poisoned = jax.tree.map(np.copy, params)
    poisoned["layers"]["1"] = jax.tree.map(
        lambda x: x * np.nan, poisoned["layers"]["1"]
    )
    given = {"poolings": ["mean"], "layers": (1,)}
    one = features.pooled_features(settings, params, tokens, **given)
    same = features.pooled_features(settings, poisoned, tokens, **given)
    np.testing.assert_array_equal(one, same)


def test_the_stream_of_every_token_text_after_text(model, tokens):
    settings, params = model
    told = []
    stream = features.token_streams(
        settings,
        params,
        tokens,
        range(7),
        below=1,
        progress=lambda *done: told.append(done),
    )
    by_hand = np.concatenate([streams[1] for streams in alone(model, tokens)])
    np.testing.assert_allclose(stream, by_hand, **CLOSE)
    assert told[-1] == (7, sum(LENGTHS)) and len(told) > 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_texts_stream_is_the_same_to_the_bit_whatever_else_is_wanted(
    model, tokens, dtype, monkeypatch
):
    monkeypatch.setattr(features, "ROW_LENGTH", 48)  # three texts a row
    settings, params = model
    settings = dataclasses.replace(settings, dtype=dtype)
    ends = np.cumsum(LENGTHS)
    stream = features.token_streams(settings, params, tokens, range(7), below=2)
    for wanted in ([0], [2, 5], [1, 3, 4, 6]):
        told = []
        some = features.token_streams(
            settings, params, tokens, wanted, below=2,
            progress=lambda *done, told=told: told.append(done),
        )  # fmt: skip
        assert told[-1][0] == len(wanted)
        same = [stream[ends[i] - LENGTHS[i] : ends[i]] for i in wanted]
        np.testing.assert_array_equal(some, np.concatenate(same))
