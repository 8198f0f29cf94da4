"""From rows to train, validation and test, the same on every machine and every day.

rows -> drop duplicate texts -> order by SHA-256 of the text -> cut
        test | validation | train    (the first texts of that order are the test split)

A split therefore is in an order without meaning: its first n rows are a fair sample.
Of a row the digest is kept, not the text: that is read again when it is asked for.
"""

import array
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Self

import numpy as np

SPLITS = ("train", "validation", "test")
_CHUNK = 1024  # examples read at a time: half the time of reading one by one


@dataclasses.dataclass(frozen=True)
class Example:
    """One text, its label (None: not labelled) and its id: see `text_id`."""

    id: str
    text: str
    label: str | None

    @classmethod
    def of(cls, text: str, label: str | None) -> Self:
        """The example of a row."""
        return cls(text_id(text), text, label)


class StoredExamples(Sequence[Example]):
    """Examples that are read when asked for; a slice is a view, nothing is read."""

    def __init__(
        self, read: Callable[[Sequence], Iterable[Example]], places: np.ndarray
    ):
        """Args: read: gives the examples at these places; places: [examples, ...]."""
        self._read, self._places = read, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self.take(index)
        [example] = self._read([self._places[index]])
        return example

    def take(self, numbers: np.ndarray | slice) -> Self:
        """These examples, in the order given; nothing is read."""
        return type(self)(self._read, self._places[numbers])

    def __iter__(self) -> Iterator[Example]:
        for start in range(0, len(self), _CHUNK):
            yield from self._read(self._places[start : start + _CHUNK])


@dataclasses.dataclass(frozen=True)
class Dropped:
    """What `distinct` left out: repeated texts; of them, those with another label."""

    duplicates: int
    conflicts: int


def text_id(text: str) -> str:
    """The first 16 hex digits of the SHA-256 of the text's UTF-8 bytes."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def distinct(rows: Iterable[tuple[str, str | None]]) -> tuple[np.ndarray, Dropped]:
    """Finds the first row of every text, in the order of the texts' SHA-256.

    Args:
      rows: (text, label) pairs; read once, 40 bytes of each are kept.

    Returns:
      int64 [texts], the numbers of these rows; and what was left out.
    """
    digests, labels = bytearray(), array.array("q")
    number_of: dict[str | None, int] = {}
    for text, label in rows:
        digests += hashlib.sha256(text.encode("utf-8")).digest()
        labels.append(number_of.setdefault(label, len(number_of)))
    # Four big-endian words compare as the digest's 32 bytes do.
    words = np.frombuffer(digests, ">u8").reshape(-1, 4)
    order = np.lexsort(words.T[::-1])  # stable: equal texts stay in the rows' order
    words, labels = words[order], np.array(labels)[order]
    first = np.ones(len(order), bool)
    first[1:] = (words[1:] != words[:-1]).any(axis=1)
    first_of = np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))
    conflicts = (labels != labels[first_of]).sum()
    return order[first], Dropped(int((~first).sum()), int(conflicts))


def cut(
    examples: Sequence[Example], *, validation_items: int, test_items: int
) -> dict[str, Sequence[Example]]:
    """Cuts ordered examples into test, validation and, with what is left, train."""
    held_out = test_items + validation_items
    return {
        "train": examples[held_out:],
        "validation": examples[test_items:held_out],
        "test": examples[:test_items],
    }


def cut_by_share(examples: Sequence[Example]) -> dict[str, Sequence[Example]]:
    """70 % train, 10 % validation, 20 % test; of 3 examples or more each gets one."""
    count = len(examples)
    return cut(
        examples,
        validation_items=max(1, round(0.1 * count)),
        test_items=max(1, round(0.2 * count)),
    )


def split_hash(examples: Iterable[Example]) -> str:
    """Hex SHA-256 over one JSON line [id, text, label] per row, in order."""
    total = hashlib.sha256()
    for example in examples:
        row = [example.id, example.text, example.label]
        total.update(json.dumps(row, ensure_ascii=False).encode("utf-8") + b"\n")
    return total.hexdigest()
