"""Which labelled item stands where in which step: index plans, nothing random kept.

Items 0 1 2 of lengths 3 2 2, flat tokens a a a b b c c (on the device, once):
  gather    0 1 2 5 6 -1      segments  1 1 1 2 2 0      items  0  2     step 0, row 0
            3 4 -1 ...                  1 1 0 ...               1 -1     step 0, row 1
A step's batch is flat_tokens[gather]; step t is a function of (seed, t) alone.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from tljax.data.labelled import LabelledSet, permutation
from tljax.data.packing import pack_rows

# Keeps the draws of this file apart from labelled's of the same seed.
_ORDER_STREAM = 2


@dataclasses.dataclass(frozen=True)
class PackedPlan:
    """T steps of B rows of L positions and M slots; slot m of a row is segment m + 1.

    Attributes:
      gather_TBL: int32 index into flat_tokens(labelled); -1 = padding.
      segments_TBL: int32, 0 = padding, else slot + 1.
      labels_TBM: int32 class of the item in the slot; 0 in an empty one.
      weights_TBM: float32, 1 = an item, 0 = an empty slot.
      items_TBM: int32 index of the item in the labelled set; -1 = an empty slot.
    """

    gather_TBL: np.ndarray
    segments_TBL: np.ndarray
    labels_TBM: np.ndarray
    weights_TBM: np.ndarray
    items_TBM: np.ndarray

    @property
    def steps(self) -> int:
        """T, the number of steps."""
        return len(self.gather_TBL)


def flat_tokens(labelled: LabelledSet) -> np.ndarray:
    """Returns all tokens of the set, item after item, int32: what gather points into.

    It holds the whole set, so runs on different subsets of it share one array.
    """
    return np.concatenate(labelled.tokens, dtype=np.int32)


def training_plan(
    labelled: LabelledSet,
    indices: np.ndarray,
    *,
    batch: int,
    epochs: float,
    rows: int,
    row_length: int,
    slots: int,
    seed: int,
) -> PackedPlan:
    """Plans the steps that show the chosen items `epochs` times.

    The items of all epochs form one stream, each epoch in its own order. A step takes
    from it until it holds `batch` items, or as many as were chosen if those are fewer,
    or until the next item fits into none of its rows: then it is a little smaller, as
    rows for the longest batch would leave most others padded. No item is left out.

    Args:
      labelled: the set.
      indices: int [n], the items to learn from, e.g. of nested_subset.
      batch: most items of a step.
      epochs: passes over the items; the last may be partial (rounded to items).
      rows: rows of a step, B; see choose_rows.
      row_length: L; longer items are cut.
      slots: most items of a row, M; see choose_slots.
      seed: of the orders.
    """
    stream = _stream(indices, total=round(epochs * len(indices)), seed=seed)
    steps = _fill_steps(
        stream,
        labelled.lengths.tolist(),
        most=min(batch, len(indices)),
        rows=rows,
        row_length=row_length,
        slots=slots,
    )
    return _plan(labelled, steps, rows=rows, row_length=row_length, slots=slots)


def scoring_plan(
    labelled: LabelledSet, *, rows: int, row_length: int, slots: int
) -> PackedPlan:
    """Plans steps in which every item of the set stands exactly once.

    Longest first, for tight packing; items_TBM leads back to the set's order. The
    last step is filled with empty rows.

    Args:
      labelled: the set.
      rows: rows of a step, B.
      row_length: L; longer items are cut.
      slots: most items of a row, M.
    """
    by_length = np.argsort(-labelled.lengths, kind="stable")
    lengths = labelled.lengths[by_length]
    packed = pack_rows(lengths.tolist(), row_length=row_length, slots=slots)
    items = [[int(by_length[place]) for place in row] for row in packed]
    steps = [items[start : start + rows] for start in range(0, len(items), rows)]
    return _plan(labelled, steps, rows=rows, row_length=row_length, slots=slots)


def choose_rows(lengths: Sequence[int], *, batch: int, row_length: int) -> int:
    """Returns the fewest rows in which a step holds 9 of 10 of `batch` on average.

    Enough rows for every batch in full would leave a quarter of the usual one padded.
    Tried on 64 batches, filled as training_plan does.

    Args:
      lengths: tokens of the items that batches are drawn from.
      batch: items of a step.
      row_length: L.
    """
    lengths = np.minimum(np.asarray(lengths), row_length).tolist()
    most = min(batch, len(lengths))
    items = list(_stream(np.arange(len(lengths)), total=64 * most, seed=0))
    tokens_per_step = sum(lengths[item] for item in items) / 64
    rows = max(1, math.floor(0.9 * tokens_per_step / row_length))
    while rows < most:
        steps = _fill_steps(
            items,
            lengths,
            most=most,
            rows=rows,
            row_length=row_length,
            slots=choose_slots(lengths, row_length=row_length),
        )
        whole = steps[:-1]  # the stream's end cut the last one short
        held = sum(len(row) for step in whole for row in step)
        if held >= 0.9 * most * len(whole):
            break
        rows += 1
    return rows


def choose_slots(lengths: Sequence[int], *, row_length: int) -> int:
    """Returns how many items a row should have room for, so that slots seldom bind.

    Twice what a row of mean items holds: heads cost memory and time per slot, and the
    shortest items alone in one row are rare.

    Args:
      lengths: tokens of the items.
      row_length: L.
    """
    mean = float(np.minimum(np.asarray(lengths), row_length).mean())
    return min(row_length, max(1, math.ceil(2 * row_length / mean)))


def _stream(indices: np.ndarray, *, total: int, seed: int) -> Iterator[int]:
    """The first `total` items of epoch after epoch, each a permutation of its own."""
    for epoch in range(math.ceil(total / max(1, len(indices)))):
        order = permutation(len(indices), seed, _ORDER_STREAM, epoch)
        left = total - epoch * len(indices)
        yield from (int(indices[place]) for place in order[:left])


def _fill_steps(
    items: Iterable[int],
    lengths: Sequence[int],
    *,
    most: int,
    rows: int,
    row_length: int,
    slots: int,
) -> list[list[list[int]]]:
    """Items of each row of each step: first-fit, a new step where one does not fit."""
    steps: list[list[list[int]]] = []
    room: list[int] = []
    held = most
    for item in items:
        length = min(lengths[item], row_length)
        fitting = (
            row
            for row, free in enumerate(room)
            if free >= length and len(steps[-1][row]) < slots
        )
        row = None if held == most else next(fitting, None)
        if row is None:
            steps.append([[] for _ in range(rows)])
            room = [row_length] * rows
            held, row = 0, 0
        steps[-1][row].append(item)
        room[row] -= length
        held += 1
    return steps


def _plan(
    labelled: LabelledSet,
    steps: list[list[list[int]]],
    *,
    rows: int,
    row_length: int,
    slots: int,
) -> PackedPlan:
    """Writes down where the items of each row of each step stand."""
    starts = np.concatenate([[0], np.cumsum(labelled.lengths)])
    gather_TBL = np.full((len(steps), rows, row_length), -1, dtype=np.int32)
    segments_TBL = np.zeros(gather_TBL.shape, dtype=np.int32)
    items_TBM = np.full((len(steps), rows, slots), -1, dtype=np.int32)
    for step, packed in enumerate(steps):
        for row, items in enumerate(packed):
            column = 0
            for slot, item in enumerate(items):
                length = min(len(labelled.tokens[item]), row_length)
                here = slice(column, column + length)
                gather_TBL[step, row, here] = starts[item] + np.arange(length)
                segments_TBL[step, row, here] = slot + 1
                items_TBM[step, row, slot] = item
                column += length
    real_TBM = items_TBM >= 0
    return PackedPlan(
        gather_TBL=gather_TBL,
        segments_TBL=segments_TBL,
        labels_TBM=np.where(real_TBM, labelled.labels[items_TBM], 0).astype(np.int32),
        weights_TBM=real_TBM.astype(np.float32),
        items_TBM=items_TBM,
    )
