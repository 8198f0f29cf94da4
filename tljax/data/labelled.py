"""A labelled split as token ids and class numbers, and nested subsets of it.

Two classes, permuted by the seed: a = a2 a0 a1, b = b1 b0. Rounds, each in its own
order of classes:  a2 b1 | b0 a0 | a1   -> subset(n) is the first n of these,
so classes stay balanced as long as they last and subset(3) lies inside subset(5).
"""

import dataclasses
import hashlib
import itertools
from collections.abc import Sequence

import numpy as np

from tljax.data.sources import Source
from tljax.data.tokenizer import Tokenizer
from tljax.settings import InputError, suggestion

# Keeps the draws of this file apart from those of batches with the same seed.
_SUBSET_STREAM = 1


@dataclasses.dataclass(frozen=True)
class LabelledSet:
    """The items of one split, in source order.

    Attributes:
      ids: of the source's rows.
      tokens: int32 [L] of each item, 1 <= L <= the task's length.
      labels: int32 [items], indices into classes.
      classes: names, sorted.
      texts: as the source gives them, whole.
    """

    ids: tuple[str, ...]
    tokens: tuple[np.ndarray, ...]
    labels: np.ndarray
    classes: tuple[str, ...]
    texts: tuple[str, ...]

    def __len__(self) -> int:
        """Number of items."""
        return len(self.ids)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each item, int64 [items]."""
        return np.array([len(one) for one in self.tokens], dtype=np.int64)

    def take(self, indices: Sequence[int]) -> "LabelledSet":
        """These items, in the order given."""
        return LabelledSet(
            ids=tuple(self.ids[i] for i in indices),
            tokens=tuple(self.tokens[i] for i in indices),
            labels=self.labels[np.asarray(indices)],
            classes=self.classes,
            texts=tuple(self.texts[i] for i in indices),
        )

    def behind(self, places: int, token: int, length: int) -> "LabelledSet":
        """The items, a token so many times before each: room that a model fills.

            x x x  ->  t t x x     2 places, a length of 4

        Args:
          places: how many; 0 = the items as they are.
          token: which.
          length: tokens kept of an item, the places counted.
        """
        if not places:
            return self
        room = np.full(places, token, np.int32)
        tokens = (np.concatenate([room, one])[:length] for one in self.tokens)
        return dataclasses.replace(self, tokens=tuple(tokens))


def load_labelled(
    source: Source,
    split: str,
    tokenizer: Tokenizer,
    *,
    length: int,
    classes: Sequence[str] | None = None,
    items: int = 0,
) -> LabelledSet:
    """Reads and tokenises one labelled split.

    Args:
      source: a labelled source.
      split: 'train', 'validation' or 'test'.
      tokenizer: the model's.
      length: tokens kept of an item, from its start; the rest is cut off. What the
        model wants around a text ([CLS], [SEP]; nothing for ours) counts. An item
        without tokens becomes [tokenizer.end_id].
      classes: names that labels may have, e.g. the training split's; None = those
        that occur.
      items: only the first so many, in source order; 0 = all.

    Raises:
      InputError: no items, an item without a label, a label not in classes, or fewer
        than two classes.
    """
    where = f"{source.uri}, split {split!r}"
    examples = source.examples(split)
    examples = list(itertools.islice(examples, items) if items else examples)
    if not examples:
        raise InputError(f"{where} has no items")
    unlabelled = sum(example.label is None for example in examples)
    if unlabelled:
        raise InputError(
            f"{where}: {unlabelled} of {len(examples)} items have no label; name the"
            " column that holds it, e.g. csv:FILE?text=review&label=stars"
        )
    found = sorted({example.label for example in examples})
    classes = tuple(found if classes is None else sorted(classes))
    for label in found:
        if label not in classes:
            raise InputError(
                f"{where} has the label {label!r}, which the training split has not;"
                f" its classes: {', '.join(classes)}{suggestion(label, classes)}"
            )
    if len(classes) < 2:
        raise InputError(
            f"{where} has only the class {classes[0]!r}; a task needs at least two"
        )
    number_of = {name: number for number, name in enumerate(classes)}
    texts = tuple(example.text for example in examples)
    empty = np.array([tokenizer.end_id], dtype=np.int32)
    return LabelledSet(
        ids=tuple(example.id for example in examples),
        tokens=tuple(
            ids if len(ids) else empty
            for ids in tokenizer.encode(texts, special=True, longest=length)
        ),
        labels=np.array([number_of[example.label] for example in examples], np.int32),
        classes=classes,
        texts=texts,
    )


def nested_subset(
    labels: np.ndarray, n: int, seed: int, classes: Sequence[str]
) -> np.ndarray:
    """Returns n items, class counts as equal as the classes allow, nested over n.

    Args:
      labels: int [items], indices into classes.
      n: items wanted; 0 = all of them, in the order of the picture above.
      seed: of the choice; subset(n) is a prefix of subset(n') for n < n'.
      classes: their names.

    Returns:
      int64 [n] indices into labels. While no class has run out, the counts of any two
      classes differ by at most 1; after that, the others go on among themselves.

    Raises:
      InputError: n is more than there is.
    """
    labels = np.asarray(labels)
    counts = np.bincount(labels, minlength=len(classes))
    if not 0 <= n <= len(labels):
        having = ", ".join(
            f"{name} {count}" for name, count in zip(classes, counts, strict=True)
        )
        raise InputError(
            f"task.n is {n}, but there are only {len(labels)} labelled training items"
            f" ({having}); allowed: 1 to {len(labels)}, or 0 for all"
        )
    rounds = int(counts.max(initial=0))
    item_of_round = np.full((rounds, len(classes)), -1, dtype=np.int64)
    for number in range(len(classes)):
        members = np.flatnonzero(labels == number)
        drawn = permutation(len(members), seed, _SUBSET_STREAM, 0, number)
        item_of_round[: len(members), number] = members[drawn]
    for place, items in enumerate(item_of_round):
        order = permutation(len(classes), seed, _SUBSET_STREAM, 1, place)
        item_of_round[place] = items[order]
    order = item_of_round[item_of_round >= 0]
    return order[:n] if n else order


def permutation(size: int, *key: int) -> np.ndarray:
    """Returns the numbers below size in an order that only the key decides.

    Sorts raw Philox words: these numpy keeps from version to version, which it does
    not promise of Generator.permutation. The key is hashed, as numpy's SeedSequence
    takes (7,) and (7, 0), or 2**32 and (0, 1), for the same.

    Args:
      size: how many numbers.
      *key: integers of any size.
    """
    name = repr([int(one) for one in key])  # int: numpy's integers print otherwise
    digest = hashlib.blake2b(name.encode(), digest_size=16).digest()
    bits = np.random.Philox(key=int.from_bytes(digest))
    return np.argsort(bits.random_raw(size), kind="stable")
