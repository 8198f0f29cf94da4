"""Index plans: the drawn example, packed = unpacked, each item once, purity."""

import dataclasses

import numpy as np
import pytest

from tljax.data.batches import (
    choose_rows,
    choose_slots,
    flat_tokens,
    scoring_plan,
    training_plan,
)
from tljax.data.labelled import LabelledSet, nested_subset
from tljax.data.packing import padding_share


def make_set(lengths, classes=("a", "b")):
    """Items whose tokens are all different, so that each can be found again."""
    starts = np.cumsum([0, *lengths])
    return LabelledSet(
        ids=tuple(f"id-{i}" for i in range(len(lengths))),
        tokens=tuple(
            np.arange(100 + start, 100 + start + length, dtype=np.int32)
            for start, length in zip(starts, lengths, strict=False)
        ),
        labels=np.arange(len(lengths), dtype=np.int32) % len(classes),
        classes=classes,
        texts=tuple("" for _ in lengths),
    )


LABELLED = make_set(np.random.default_rng(0).integers(1, 20, size=70).tolist())
SHAPE = {"rows": 4, "row_length": 24, "slots": 6}


def unpack(labelled, plan):
    """[(item, tokens, label)] of each step, read back from the arrays alone."""
    flat = flat_tokens(labelled)
    steps = []
    for step in range(plan.steps):
        found = []
        for row in range(plan.items_TBM.shape[1]):
            for slot, item in enumerate(plan.items_TBM[step, row].tolist()):
                gather = plan.gather_TBL[step, row]
                here = gather[plan.segments_TBL[step, row] == slot + 1]
                assert plan.weights_TBM[step, row, slot] == (item >= 0)
                assert (len(here) > 0) == (item >= 0)
                if item >= 0:
                    label = int(plan.labels_TBM[step, row, slot])
                    found.append((item, flat[here].tolist(), label))
        steps.append(found)
    return steps


def assert_same_steps(left, right, steps):
    for field in dataclasses.fields(left):
        one, other = getattr(left, field.name), getattr(right, field.name)
        assert one.dtype == other.dtype
        assert np.array_equal(one[:steps], other[:steps]), field.name


def test_the_drawn_example():
    plan = scoring_plan(make_set([3, 2, 2]), rows=2, row_length=6, slots=2)
    assert plan.gather_TBL.tolist() == [[[0, 1, 2, 3, 4, -1], [5, 6, -1, -1, -1, -1]]]
    assert plan.segments_TBL.tolist() == [[[1, 1, 1, 2, 2, 0], [1, 1, 0, 0, 0, 0]]]
    assert plan.items_TBM.tolist() == [[[0, 1], [2, -1]]]
    assert plan.labels_TBM.tolist() == [[[0, 1], [0, 0]]]
    assert plan.weights_TBM.tolist() == [[[1, 1], [1, 0]]]


@pytest.mark.parametrize("row_length", [24, 7])
def test_scoring_holds_every_item_once_and_unchanged(row_length):
    plan = scoring_plan(LABELLED, **{**SHAPE, "row_length": row_length})
    found = sorted(sum(unpack(LABELLED, plan), []))
    assert found == [
        (item, tokens[:row_length].tolist(), int(LABELLED.labels[item]))
        for item, tokens in enumerate(LABELLED.tokens)
    ]
    assert ((plan.gather_TBL == -1) == (plan.segments_TBL == 0)).all()


@pytest.mark.parametrize("epochs", [1, 3, 2.5])
@pytest.mark.parametrize("n", [70, 23, 2])
def test_training_shows_each_item_once_an_epoch(n, epochs):
    indices = nested_subset(LABELLED.labels, n, 0, LABELLED.classes)
    plan = training_plan(LABELLED, indices, batch=9, epochs=epochs, seed=4, **SHAPE)
    steps = unpack(LABELLED, plan)
    assert all(0 < len(step) <= min(9, n) for step in steps)
    for item, tokens, label in sum(steps, []):
        assert tokens == LABELLED.tokens[item].tolist()
        assert label == LABELLED.labels[item]
    counts = np.bincount([item for item, *_ in sum(steps, [])], minlength=70)
    assert counts.sum() == round(epochs * n)
    assert set(np.flatnonzero(counts)) == set(indices.tolist())
    assert counts[indices].max() - counts[indices].min() <= (epochs % 1 > 0)


def test_training_is_a_function_of_seed_and_step():
    indices = np.arange(40)
    settings = {"batch": 9, **SHAPE}
    short = training_plan(LABELLED, indices, epochs=2, seed=1, **settings)
    again = training_plan(LABELLED, indices, epochs=2, seed=1, **settings)
    longer = training_plan(LABELLED, indices, epochs=5, seed=1, **settings)
    other = training_plan(LABELLED, indices, epochs=2, seed=2, **settings)
    assert short.steps == again.steps
    assert_same_steps(short, again, short.steps)
    assert_same_steps(short, longer, short.steps - 1)  # the last one was cut short
    assert not np.array_equal(short.items_TBM[0], other.items_TBM[0])


def test_epochs_have_orders_of_their_own():
    plan = training_plan(
        make_set([1] * 30), np.arange(30), batch=1, epochs=2, seed=1, **SHAPE
    )
    order = plan.items_TBM.max(axis=(1, 2))
    assert sorted(order[:30]) == sorted(order[30:]) == list(range(30))
    assert not np.array_equal(order[:30], order[30:])


def test_a_step_ends_where_the_next_item_does_not_fit():
    plan = training_plan(
        make_set([5] * 10),
        np.arange(10),
        batch=10,
        epochs=1,
        seed=0,
        rows=2,
        row_length=8,
        slots=4,
    )
    # One item of 5 tokens a row of 8: two a step, though ten were allowed.
    assert plan.weights_TBM.sum(axis=(1, 2)).tolist() == [2.0] * 5


def test_slots_bind():
    settings = {"batch": 10, "epochs": 1, "seed": 0, "rows": 2, "row_length": 8}
    plan = training_plan(make_set([1] * 10), np.arange(10), slots=3, **settings)
    assert plan.weights_TBM.sum(axis=(1, 2)).tolist() == [6.0, 4.0]


def test_no_epochs_are_no_steps():
    plan = training_plan(LABELLED, np.arange(9), batch=4, epochs=0.0, seed=0, **SHAPE)
    assert plan.steps == 0
    assert plan.gather_TBL.shape == (0, 4, 24)


def test_chosen_rows_and_slots_hold_nearly_full_batches_with_little_padding():
    lengths = np.random.default_rng(1).lognormal(3.3, 0.5, size=800).astype(int) + 1
    labelled = make_set(lengths.tolist())
    rows = choose_rows(lengths, batch=32, row_length=128)
    slots = choose_slots(lengths, row_length=128)
    plan = training_plan(
        labelled,
        np.arange(800),
        batch=32,
        epochs=4,
        seed=0,
        rows=rows,
        row_length=128,
        slots=slots,
    )
    assert plan.weights_TBM.sum() / plan.steps > 0.88 * 32
    assert padding_share(plan.segments_TBL) < 0.2


def test_rows_of_whole_items_by_hand():
    assert choose_rows([5] * 50, batch=10, row_length=10) == 5
    assert choose_rows([6] * 50, batch=10, row_length=10) == 9  # of 10
    assert choose_rows([99] * 50, batch=10, row_length=10) == 9
    assert choose_rows([1], batch=10, row_length=10) == 1
    assert choose_slots([5] * 50, row_length=10) == 4
    assert choose_slots([99] * 50, row_length=10) == 2
