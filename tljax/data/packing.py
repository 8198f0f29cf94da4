"""Several short texts in one row of tokens, so that little of a batch is padding.

Lengths 3 4 2 1 into rows of 6, first-fit in the order given (0 = padding):
  row 0:  a a a c c d     segments 1 1 1 2 2 3
  row 1:  b b b b . .     segments 1 1 1 1 0 0
Attention never crosses segments; nothing here reorders, drops or repeats an item.
"""

from collections.abc import Sequence

import numpy as np


def pack_rows(
    lengths: Sequence[int], *, row_length: int, slots: int
) -> list[list[int]]:
    """Puts every item into exactly one row: the first with room, else a new one.

    Args:
      lengths: tokens of each item, at least 1; more than row_length count as
        row_length (the caller cuts them).
      row_length: tokens of one row, L.
      slots: most items of one row, M.

    Returns:
      The items of each row, in the order given within a row.

    Raises:
      ValueError: row_length, slots or a length below 1.

    Source: first-fit bin packing. A tree of the free room of the rows finds the first
    fitting row in log2(rows) steps, so that a whole split can be packed at once.
    """
    if row_length < 1 or slots < 1 or any(length < 1 for length in lengths):
        raise ValueError("pack_rows needs row_length, slots and lengths of at least 1")
    leaves = 1
    while leaves < len(lengths):
        leaves *= 2
    # free[1] is the root; free[leaves + r] the room of row r, untouched rows included.
    free = [row_length] * (2 * leaves)
    rows: list[list[int]] = []
    for item, length in enumerate(lengths):
        wanted = min(int(length), row_length)
        node = 1
        while node < leaves:
            node *= 2
            if free[node] < wanted:
                node += 1
        row = node - leaves
        if row == len(rows):
            rows.append([])
        rows[row].append(item)
        free[node] = free[node] - wanted if len(rows[row]) < slots else 0
        while node > 1:
            node //= 2
            free[node] = max(free[2 * node], free[2 * node + 1])
    return rows


def padding_share(segments: np.ndarray) -> float:
    """Returns the share of positions that are padding (segment 0), in [0, 1].

    Args:
      segments: int32 of any shape, 0 = padding.
    """
    return float(np.mean(segments == 0)) if segments.size else 0.0
