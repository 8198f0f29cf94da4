"""Dropping duplicates, ordering and cutting, on rows drawn by hand."""

import hashlib

import pytest

from tljax.data.splits import (
    Dropped,
    Example,
    cut,
    cut_by_share,
    distinct,
    split_hash,
    text_id,
)

# SHA-256 of b"abc", FIPS 180-2 appendix B.1.
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_the_id_is_the_head_of_the_published_digest():
    assert text_id("abc") == ABC[:16]


def test_duplicates_go_and_the_first_label_stays():
    rows = [("a", "x"), ("b", "y"), ("a", "x"), ("a", "z"), ("c", None)]
    kept, dropped = distinct(rows)
    assert dropped == Dropped(duplicates=2, conflicts=1)
    assert sorted(kept) == [0, 1, 4]


def test_the_order_is_that_of_the_digests_whatever_came_first():
    rows = [(str(i), None) for i in range(50)]
    kept, _ = distinct(rows)
    digests = [hashlib.sha256(rows[i][0].encode()).hexdigest() for i in kept]
    assert len(digests) == 50 and digests == sorted(digests)
    assert (49 - distinct(reversed(rows))[0]).tolist() == kept.tolist()


def test_a_cut_is_test_then_validation_then_train():
    parts = cut("abcdefg", validation_items=2, test_items=3)
    assert parts == {"test": "abc", "validation": "de", "train": "fg"}


@pytest.mark.parametrize(
    ("count", "sizes"), [(3, [1, 1, 1]), (10, [7, 1, 2]), (100, [70, 10, 20])]
)
def test_shares_are_70_10_20_and_none_is_empty(count, sizes):
    parts = cut_by_share(range(count))
    assert [len(parts[name]) for name in ("train", "validation", "test")] == sizes
    assert sorted(i for part in parts.values() for i in part) == list(range(count))


def test_the_hash_sees_every_field_and_the_order():
    rows = [Example("1", "é", "x"), Example("2", "b", None)]
    by_hand = '["1", "é", "x"]\n["2", "b", null]\n'.encode()
    assert split_hash(rows) == hashlib.sha256(by_hand).hexdigest()
    assert split_hash(rows[::-1]) != split_hash(rows)
