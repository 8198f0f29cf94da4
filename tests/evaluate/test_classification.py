"""A split scored in packed rows is every item scored alone, in the set's order."""

import dataclasses

import jax
import numpy as np
import pytest

from tljax.data.labelled import LabelledSet
from tljax.evaluate import classification
from tljax.model import heads, transformer
from tljax.objective.classification import logits
from tljax.train import population

LENGTHS = [1, 7, 3, 8, 2, 2, 5, 1, 6, 3, 4]


@pytest.fixture
def labelled():
    random = np.random.default_rng(0)
    return LabelledSet(
        ids=tuple(map(str, range(11))),
        tokens=tuple(random.integers(2, 20, length) for length in LENGTHS),
        labels=random.integers(0, 3, 11, dtype=np.int32),
        classes=("a", "b", "c"),
        texts=("",) * 11,
    )


@pytest.mark.parametrize(("most", "rows"), [(3, 3), (4, 3), (7, 6), (20, 10)])
def test_steps_are_filled_by_the_smallest_set(
    model_settings, labelled, monkeypatch, most, rows
):
    # a row an item: 6 rows, and 11
    few = labelled.take(np.arange(6))
    few = dataclasses.replace(few, tokens=tuple(np.arange(8) for _ in range(6)))
    more = dataclasses.replace(labelled, tokens=tuple(np.arange(8) for _ in range(11)))
    monkeypatch.setattr(classification, "SCORING_TOKENS", 8 * most)
    scorer = classification.Scorer(model_settings, "last", 8, [more, few])
    for one in (few, more):
        assert scorer.plan(one)[1].gather_TBL.shape[1:] == (rows, 8)


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_packed_scores_are_those_of_every_item_alone(
    model_settings, draw_params, labelled, monkeypatch, pooling
):
    def init(key):
        params = transformer.init_params(model_settings, 20, key)
        return params | {"head": heads.init_classifier(16, 3, key)}

    params = draw_params(init, jax.random.key(0))
    monkeypatch.setattr(classification, "SCORING_TOKENS", 16)  # several steps
    scorer = classification.Scorer(model_settings, pooling, 8, [labelled])
    planned = scorer.plan(labelled)
    assert planned[1].steps > 2
    found = scorer.probabilities(params, planned, len(labelled))
    alone = np.zeros((11, 8), np.int32), np.zeros((11, 8), np.int32)
    for i, tokens in enumerate(labelled.tokens):
        alone[0][i, : len(tokens)], alone[1][i, : len(tokens)] = tokens, 1
    batch = {"tokens_BL": alone[0], "segments_BL": alone[1],
             "labels_BM": np.zeros((11, 1), np.int32)}  # fmt: skip
    each = jax.jit(lambda params: logits(model_settings, pooling, params, batch))
    odds = np.exp(np.asarray(each(params), np.float64)[:, 0])
    # float32 through two layers, in rows that start elsewhere
    np.testing.assert_allclose(found, odds / odds.sum(axis=1, keepdims=True), rtol=1e-4)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-12)
    # members together: each as it is alone
    other = jax.tree.map(lambda leaf: 0.5 * leaf, params)
    stacked = population.stack([other, params])
    both = scorer.of_members(stacked, planned, len(labelled))
    np.testing.assert_allclose(both[1], found, rtol=1e-5)
    lone = scorer.probabilities(other, planned, len(labelled))
    assert np.abs(lone - found).max() > 0.01
    np.testing.assert_allclose(both[0], lone, rtol=1e-5)


def test_slots_suit_the_set_that_needs_most(labelled):
    short = LabelledSet(**{**vars(labelled), "tokens": (np.array([2]),) * 11})
    assert classification.scoring_slots([labelled], 8) == 5  # 2 x 8 / 3.8
    assert classification.scoring_slots([labelled, short], 8) == 8


PROBABILITIES = np.array([[0.5, 0.5], [0.2, 0.8], [0.9, 0.1], [1.0, 0.0]])
LABELS = np.array([1, 1, 0, 1])


def test_a_validation_record_by_hand():
    record = classification.validation_record(LABELS, PROBABILITIES)
    nats = -np.log([0.5, 0.8, 0.9, 1e-12])  # a certain error is not infinite
    assert record == {
        "loss_nats": pytest.approx(nats.mean()),
        "loss_se": pytest.approx(nats.std() / 2),
        "accuracy": 0.5,
        "n": 4,
    }
    one = classification.validation_record(LABELS[1:2], PROBABILITIES[1:2])
    assert (one["loss_se"], one["accuracy"], one["n"]) == (0.0, 1.0, 1)
