"""The task's texts and labels, without the tokens that only a model's own arm needs."""

from collections.abc import Sequence

from tljax.data.labelled import LabelledSet, load_labelled
from tljax.data.sources import Source
from tljax.settings import InputError


def load_texts(
    source: Source, split: str, classes: Sequence[str] | None = None
) -> LabelledSet:
    """A split whose tokens nobody reads; refused as `load_labelled` refuses."""
    return load_labelled(source, split, _NoTokenizer(), length=1, classes=classes)


def read_labels(
    source: Source, split: str, classes: Sequence[str] | None = None
) -> LabelledSet:
    """As `load_texts`; an empty label is refused too: every arm can use the split."""
    found = load_texts(source, split, classes)
    if "" in found.classes:
        count = int((found.labels == found.classes.index("")).sum())
        raise InputError(
            f"{source.uri}, split {split!r}: {count} of {len(found)} items have an"
            " empty label; fill it in or delete the rows"
        )
    return found


class _NoTokenizer:
    """In place of a tokenizer where only texts and labels are looked at."""

    end_id = 0

    def encode(self, texts: Sequence[str], **_: object) -> list[tuple]:
        return [()] * len(texts)
