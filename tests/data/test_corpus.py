"""Training rows and scoring windows: drawn examples, nothing lost, exact resumption."""

import itertools
import json

import numpy as np
import pytest

from tljax.data.corpus import scoring_windows, training_iterator
from tljax.data.token_store import TokenStore
from tljax.data.tokenizer import END_ID


def make_store(lengths):
    """Documents whose tokens are all different, so that each can be found again."""
    offsets = np.cumsum([0, *(length + 1 for length in lengths)])
    flat = np.arange(10, 10 + offsets[-1] + 1, dtype=np.uint16)
    flat[offsets] = END_ID
    return TokenStore(flat=flat, offsets=offsets)


LENGTHS = (3, 0, 17, 1, 40, 8, 2, 5)


def documents_of(store):
    return [
        store.flat[start : stop + 1].tolist()
        for start, stop in itertools.pairwise(store.offsets)
    ]


def assert_equal_batches(left, right):
    assert left.keys() == right.keys()
    for name in left:
        assert np.array_equal(left[name], right[name]), name


def test_rows_are_the_drawn_ones():
    store = make_store([3, 2])
    seeds = range(20)
    first = [
        next(training_iterator(store, batch=1, length=5, seed=seed)) for seed in seeds
    ]
    # flat: E 11 12 13 E 15 16 E; whichever document came first, only two rows exist.
    rows = {
        (
            tuple(one["tokens_BL"][0].tolist()),
            tuple(one["targets_BL"][0].tolist()),
            tuple(one["segments_BL"][0].tolist()),
        )
        for one in first
    }
    assert rows == {
        ((1, 11, 12, 13, 1), (11, 12, 13, 1, 15), (1, 1, 1, 1, 2)),
        ((1, 15, 16, 1, 11), (15, 16, 1, 11, 12), (1, 1, 1, 2, 2)),
    }


def test_each_epoch_sees_every_token_once_in_a_new_order():
    store = make_store(LENGTHS)
    iterator = training_iterator(store, batch=1, length=1, seed=3)
    orders = []
    for _ in range(3):
        pairs = [
            (int(one["tokens_BL"][0, 0]), int(one["targets_BL"][0, 0]))
            for one in itertools.islice(iterator, store.token_count)
        ]
        expected = [
            pair for one in documents_of(store) for pair in itertools.pairwise(one)
        ]
        assert sorted(pairs) == sorted(expected)
        orders.append(pairs)
    assert orders[0] != orders[1] != orders[2]


def test_large_rows_hold_the_same_stream_as_single_tokens():
    store = make_store(LENGTHS)
    single = training_iterator(store, batch=1, length=1, seed=3)
    wide = training_iterator(store, batch=3, length=16, seed=3)
    for one in itertools.islice(wide, 5):
        steps = list(itertools.islice(single, 48))
        for name in ("tokens_BL", "targets_BL"):
            stream = [int(step[name][0, 0]) for step in steps]
            assert one[name].ravel().tolist() == stream


def test_segments_change_exactly_where_a_document_opens():
    iterator = training_iterator(make_store(LENGTHS), batch=4, length=16, seed=1)
    for one in itertools.islice(iterator, 10):
        opens_BL = one["tokens_BL"] == END_ID
        opens_BL[:, 0] = True
        assert np.array_equal(one["segments_BL"], np.cumsum(opens_BL, axis=1))


@pytest.mark.parametrize("consumed", [0, 1, 2, 3, 7])
def test_resumed_equals_unbroken_across_epochs(consumed):
    # 84 tokens an epoch, 32 a batch: the third and the sixth batch cross a border.
    store = make_store(LENGTHS)
    settings = {"batch": 2, "length": 16, "seed": 5}
    unbroken = training_iterator(store, **settings)
    for _ in range(consumed):
        next(unbroken)
    state = json.loads(json.dumps(unbroken.get_state()))
    resumed = training_iterator(store, **settings)
    next(resumed)
    resumed.set_state(state)
    for _ in range(6):
        assert_equal_batches(next(resumed), next(unbroken))
        assert resumed.get_state() == unbroken.get_state()
    assert len(json.dumps(state)) < 100


def test_seeds_have_their_own_orders():
    store = make_store([5] * 40)
    settings = {"batch": 1, "length": store.token_count}
    one = training_iterator(store, seed=7, **settings)
    next(one)
    second_epoch = next(one)["tokens_BL"]
    # grain itself would make epoch 1 of a seed equal epoch 0 of the next seed.
    neighbour = next(training_iterator(store, seed=8, **settings))["tokens_BL"]
    assert not np.array_equal(second_epoch, neighbour)
    large = next(training_iterator(store, seed=2**40, **settings))["tokens_BL"]
    assert not np.array_equal(large, neighbour)


def test_windows_are_the_drawn_ones():
    (one,) = scoring_windows(make_store([7]), documents=0, length=4, stride=2, batch=3)
    assert one["tokens_BL"].tolist() == [
        [1, 11, 12, 13],
        [12, 13, 14, 15],
        [14, 15, 16, 17],
    ]
    assert one["targets_BL"].tolist() == [
        [11, 12, 13, 14],
        [-1, -1, 15, 16],
        [-1, -1, 17, 1],
    ]
    assert (one["segments_BL"] == 1).all()


@pytest.mark.parametrize(("length", "stride"), [(8, 8), (8, 3), (16, 1), (64, 32)])
@pytest.mark.parametrize("batch", [1, 3, 64])
def test_every_target_is_scored_once_with_its_context(length, stride, batch):
    store = make_store(LENGTHS)
    documents = documents_of(store)
    scored = [[] for _ in documents]
    for one in scoring_windows(
        store, documents=0, length=length, stride=stride, batch=batch
    ):
        assert all(array.shape == (batch, length) for array in one.values())
        padding_BL = one["segments_BL"] == 0
        assert np.array_equal(padding_BL, one["documents_BL"] == -1)
        assert (one["targets_BL"][padding_BL] == -1).all()
        for row, column in np.argwhere(one["targets_BL"] >= 0):
            segment = one["segments_BL"][row] == one["segments_BL"][row, column]
            seen = one["tokens_BL"][row, : column + 1][segment[: column + 1]].tolist()
            document = documents[one["documents_BL"][row, column]]
            place = document.index(seen[-1]) if seen[-1] != END_ID else 0
            assert len(seen) > min(length - stride, place)
            assert document[place + 1 - len(seen) : place + 1] == seen
            assert document[place + 1] == one["targets_BL"][row, column]
            scored[one["documents_BL"][row, column]].append(place)
    for document, places in zip(documents, scored, strict=True):
        assert sorted(places) == list(range(len(document) - 1))


def test_scoring_stops_at_the_documents_asked_for_and_packs_tightly():
    store = make_store([3] * 100)
    batches = list(scoring_windows(store, documents=40, length=16, stride=8, batch=5))
    seen = {int(one) for batch in batches for one in np.unique(batch["documents_BL"])}
    assert seen == set(range(40))
    total = sum(int((one["targets_BL"] >= 0).sum()) for one in batches)
    assert total == 40 * 4
    assert len(batches) == 2  # 10 full rows of four documents


def test_a_stride_beyond_the_window_is_refused():
    with pytest.raises(ValueError, match=r"must be in \[1, 4\]"):
        next(scoring_windows(make_store([7]), documents=0, length=4, stride=5, batch=1))
