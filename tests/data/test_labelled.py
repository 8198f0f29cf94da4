"""Labelled sets: what is read, what is refused, and balanced nested subsets."""

import dataclasses

import numpy as np
import pytest

from tljax.data.labelled import load_labelled, nested_subset, permutation
from tljax.data.tokenizer import END_ID
from tljax.data.tokenizer_training import train_tokenizer
from tljax.settings import InputError


@dataclasses.dataclass(frozen=True)
class FakeExample:
    id: str
    text: str
    label: str | None


class FakeSource:
    uri = "fake:reviews"

    def __init__(self, **splits):
        self._splits = splits

    def examples(self, split):
        return [
            FakeExample(id=f"{split}-{i}", text=text, label=label)
            for i, (text, label) in enumerate(self._splits.get(split, ()))
        ]


ROWS = [("a fine film", "pos"), ("", "neg"), ("dull and long", "neg")]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(
        [text for text, _ in ROWS], vocab_size=260, normalization="lower"
    )


def test_room_before_the_tokens_counts_in_the_length(tokenizer):
    labelled = load_labelled(FakeSource(train=ROWS), "train", tokenizer, length=5)
    assert labelled.behind(0, 7, 5) is labelled
    shifted = labelled.behind(2, 7, 5)
    for one, theirs in zip(shifted.tokens, labelled.tokens, strict=True):
        assert one.dtype == np.int32
        assert one.tolist() == [7, 7, *theirs.tolist()][:5]


def test_items_keep_source_order_and_are_cut(tokenizer):
    labelled = load_labelled(FakeSource(train=ROWS), "train", tokenizer, length=5)
    assert labelled.ids == ("train-0", "train-1", "train-2")
    assert labelled.classes == ("neg", "pos")
    assert labelled.labels.tolist() == [1, 0, 0]
    assert labelled.texts == tuple(text for text, _ in ROWS)
    expected = [tokenizer.encode([text])[0][:5].tolist() for text, _ in ROWS]
    expected[1] = [END_ID]
    assert [one.tolist() for one in labelled.tokens] == expected
    assert labelled.lengths.tolist() == [5, 1, 5]


def test_items_takes_the_first_and_given_classes_hold(tokenizer):
    source = FakeSource(validation=ROWS)
    labelled = load_labelled(
        source, "validation", tokenizer, length=9, classes=("pos", "neg"), items=1
    )
    assert labelled.ids == ("validation-0",)
    assert labelled.classes == ("neg", "pos")
    assert labelled.labels.tolist() == [1]


def test_refusals_say_what_is_wrong(tokenizer):
    source = FakeSource(train=ROWS[1:], test=[("x", "pos"), ("y", None)])
    with pytest.raises(InputError, match="only the class 'neg'"):
        load_labelled(source, "train", tokenizer, length=9)
    with pytest.raises(InputError, match="1 of 2 items have no label"):
        load_labelled(source, "test", tokenizer, length=9)
    with pytest.raises(InputError, match="label 'neg'.*bad, nega; did you mean 'nega'"):
        load_labelled(source, "train", tokenizer, length=9, classes=("nega", "bad"))
    with pytest.raises(InputError, match="'validation' has no items"):
        load_labelled(source, "validation", tokenizer, length=9)


LABELS = np.array([0] * 50 + [1] * 30 + [2] * 4)[permutation(84, 1)]
CLASSES = ("a", "b", "c")


@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_subsets_are_prefixes_without_repetition(seed):
    whole = nested_subset(LABELS, len(LABELS), seed, CLASSES)
    assert sorted(whole.tolist()) == list(range(len(LABELS)))
    assert np.array_equal(nested_subset(LABELS, 0, seed, CLASSES), whole)
    for n in range(1, len(LABELS)):
        assert np.array_equal(nested_subset(LABELS, n, seed, CLASSES), whole[:n])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_classes_are_balanced_as_long_as_they_last(seed):
    whole = nested_subset(LABELS, 0, seed, CLASSES)
    for n in range(1, len(LABELS) + 1):
        counts = np.bincount(LABELS[whole[:n]], minlength=3)
        left = counts < np.bincount(LABELS)
        if left.any():
            assert counts.max() - counts[left].min() <= 1


def test_seeds_choose_differently_and_no_class_always_comes_first():
    firsts = [nested_subset(LABELS, 1, seed, CLASSES)[0] for seed in range(60)]
    assert set(LABELS[firsts].tolist()) == {0, 1, 2}
    assert len(set(firsts)) > 15


def test_more_than_there_is_says_what_there_is():
    with pytest.raises(InputError, match=r"only 84 .*\(a 50, b 30, c 4\).* 1 to 84"):
        nested_subset(LABELS, 85, 0, CLASSES)


def test_permutation_depends_on_every_part_of_its_key():
    assert sorted(permutation(100, 1, 2).tolist()) == list(range(100))
    assert np.array_equal(permutation(100, 1, 2), permutation(100, 1, 2))
    for other in [(1, 3), (2, 2), (1,), (1, 2, 0), (2 * 2**32 + 1,)]:
        assert not np.array_equal(permutation(100, 1, 2), permutation(100, *other))
    assert np.array_equal(
        permutation(100, np.int64(1), np.int32(2)), permutation(100, 1, 2)
    )
    assert permutation(0, 1).tolist() == []
    # Golden: a change here changes every subset and order ever published.
    assert permutation(8, 7, 3).tolist() == [6, 0, 3, 5, 1, 4, 7, 2]
