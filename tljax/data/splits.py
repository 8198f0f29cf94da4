"""From rows to train, validation and test, the same on every machine and every day.

rows -> drop duplicate texts -> order by SHA-256 of the text -> cut
        test | validation | train    (the first texts of that order are the test split)

A split therefore is in an order without meaning: its first n rows are a fair sample.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Example:
    """One text, its label (None: not labelled) and its id: see `text_id`."""

    id: str
    text: str
    label: str | None


@dataclasses.dataclass(frozen=True)
class Dropped:
    """What `distinct` left out: repeated texts; of them, those with another label."""

    duplicates: int
    conflicts: int


def text_id(text: str) -> str:
    """The first 16 hex digits of the SHA-256 of the text's UTF-8 bytes."""
    return _digest(text)[:16]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def distinct(
    rows: Iterable[tuple[str, str | None]],
) -> tuple[list[Example], Dropped]:
    """Keeps the first row of every text, in the order of the texts' SHA-256.

    Args:
      rows: (text, label) pairs.
    """
    label_of: dict[str, str | None] = {}
    duplicates = conflicts = 0
    for text, label in rows:
        if text in label_of:
            duplicates += 1
            conflicts += label_of[text] != label
        else:
            label_of[text] = label
    ordered = sorted((_digest(text), text, label) for text, label in label_of.items())
    examples = [Example(digest[:16], text, label) for digest, text, label in ordered]
    return examples, Dropped(duplicates, conflicts)


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
