"""Unlabelled text for next-word prediction: training rows and scoring windows.

  documents, laid end to end   E a b c E d e E ...     (E = <|end|>, see token_store)
  rows of 5                   |E a b c E|d e E ...
Order is a pure function of (seed, epoch, place); training rows hold no padding.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from tljax.data.packing import pack_rows
from tljax.data.token_store import TokenStore


class TrainingIterator(Iterator[dict[str, np.ndarray]]):
    """Endless batches of whole rows, cut from documents laid end to end.

    Documents E a b c, E d e, … in rows of 5 (segments start at 1 in every row):
      tokens    E a b c E    targets   a b c E d    segments  1 1 1 1 2
                d e E …                e E …                  1 1 2
    A row that continues a document does not see its earlier part. The state is the
    place of the next token: two integers, whatever the size of the corpus.
    """

    def __init__(
        self, store: TokenStore, order: Sequence[int], *, batch: int, length: int
    ):
        """Args: order: of document numbers, without end; the rest as below."""
        self._store, self._order = store, order
        self._batch, self._length = batch, length
        self._place, self._token = 0, 0
        self._looked_up = (-1, -1)

    def __next__(self) -> dict[str, np.ndarray]:
        size, filled = self._batch * self._length, 0
        tokens, targets = np.empty(size, np.int32), np.empty(size, np.int32)
        places = np.empty(size, np.int64)
        while filled < size:
            document = self._document()
            start, stop = self._store.offsets[document : document + 2]
            start = start + self._token
            part = min(int(stop - start), size - filled)
            here = slice(filled, filled + part)
            tokens[here], targets[here] = self._store.read(start, start + part)
            places[here] = self._place
            filled += part
            self._token += part
            if start + part == stop:
                self._place, self._token = self._place + 1, 0
        places_BL = places.reshape(self._batch, self._length)
        return {
            "tokens_BL": tokens.reshape(places_BL.shape),
            "targets_BL": targets.reshape(places_BL.shape),
            "segments_BL": (places_BL - places_BL[:, :1] + 1).astype(np.int32),
        }

    def _document(self) -> int:
        """The document at the current place, looked up once while it lasts.

        grain needs 15 microseconds for it, but milliseconds if there are only a few
        documents: long files would pay that for every batch.
        """
        if self._looked_up[0] != self._place:
            self._looked_up = (self._place, int(self._order[self._place]))
        return self._looked_up[1]

    def get_state(self) -> dict[str, int]:
        """Returns where the next batch begins; JSON can hold it."""
        return {"place": self._place, "token": self._token}

    def set_state(self, state: dict[str, int]) -> None:
        """Goes to a place that get_state returned, of the same store and seed."""
        self._place, self._token = int(state["place"]), int(state["token"])


def training_iterator(
    store: TokenStore, *, batch: int, length: int, seed: int
) -> TrainingIterator:
    """Batches for next-word prediction: every token once an epoch, without end.

    Args:
      store: the training split.
      batch: rows of one batch, B.
      length: tokens of one row, L.
      seed: of the order of the documents, drawn anew for each epoch.

    Returns:
      An iterator over {"tokens_BL", "targets_BL", "segments_BL"}, int32, with
      get_state() and set_state(). Every position has a target.
    """
    import grain  # late: a second, Orbax being part of it; only training rows need it

    # grain shuffles epoch e of seed s as epoch e - 1 of seed s + 1: neighbouring seeds
    # would share their orders, so the seed is spread over 32 bits first.
    spread = int(np.random.SeedSequence(seed).generate_state(1)[0])
    order = grain.MapDataset.range(len(store)).shuffle(seed=spread).repeat()
    return TrainingIterator(store, order, batch=batch, length=length)


def scoring_windows(
    store: TokenStore, *, documents: int, length: int, stride: int, batch: int
) -> Iterator[dict[str, np.ndarray]]:
    """Batches in which every target of every document is scored exactly once.

    A document of 8 tokens, length 4, stride 2 (x = scored, . = only context):
      window 0   x x x x
      window 1       . . x x
      window 2           . . x x
    Short windows share rows, as segments; the last batch is filled with empty rows.

    Args:
      store: a held-out split.
      documents: the first so many are scored; 0 = all.
      length: tokens of one window and of one row, L.
      stride: new tokens of a window, in [1, length]; each scored token has the
        length - stride before it as context, as far as they exist.
      batch: rows of one batch, B.

    Yields:
      {"tokens_BL", "targets_BL", "segments_BL", "documents_BL"}, int32: targets are
      -1 where nothing is scored, documents (their numbers) -1 on padding.

    Raises:
      ValueError: stride outside [1, length].
    """
    if not 1 <= stride <= length:
        raise ValueError(f"stride is {stride}; it must be in [1, {length}]")
    number = min(documents, len(store)) if documents else len(store)
    windows = [
        window
        for document in range(number)
        for window in _windows(store, document, length=length, stride=stride)
    ]
    rows = pack_rows(
        [window.stop - window.start for window in windows],
        row_length=length,
        slots=length,
    )
    for some in itertools.batched(rows, batch):
        yield _scoring_batch(store, windows, some, batch=batch, length=length)


@dataclasses.dataclass(frozen=True)
class _Window:
    """flat[start:stop] of one document; targets count from scored_start on."""

    document: int
    start: int
    stop: int
    scored_start: int


def _windows(
    store: TokenStore, document: int, *, length: int, stride: int
) -> Iterator[_Window]:
    start, end = (int(one) for one in store.offsets[document : document + 2])
    scored_start = start
    while scored_start < end:
        stop = min(start + length, end)
        yield _Window(document, start, stop, scored_start)
        start, scored_start = start + stride, stop


def _scoring_batch(
    store: TokenStore,
    windows: list[_Window],
    rows: tuple[list[int], ...],
    *,
    batch: int,
    length: int,
) -> dict[str, np.ndarray]:
    """One batch of packed windows; rows that are missing stay empty."""
    fill = {"tokens_BL": 0, "targets_BL": -1, "segments_BL": 0, "documents_BL": -1}
    filled = {
        name: np.full((batch, length), value, np.int32) for name, value in fill.items()
    }
    for row, members in enumerate(rows):
        column = 0
        for segment, member in enumerate(members, start=1):
            window = windows[member]
            here = slice(column, column + window.stop - window.start)
            context = slice(column, column + window.scored_start - window.start)
            tokens, targets = store.read(window.start, window.stop)
            filled["tokens_BL"][row, here] = tokens
            filled["targets_BL"][row, here] = targets
            filled["targets_BL"][row, context] = -1
            filled["segments_BL"][row, here] = segment
            filled["documents_BL"][row, here] = window.document
            column = here.stop
    return filled
