"""Packing: the drawn example, and first-fit done the slow way."""

import numpy as np
import pytest

from tljax.data.packing import pack_rows, padding_share


def slow_first_fit(lengths, *, row_length, slots):
    rows, room = [], []
    for item, length in enumerate(lengths):
        length = min(length, row_length)
        for row in range(len(rows)):
            if room[row] >= length and len(rows[row]) < slots:
                break
        else:
            row = len(rows)
            rows.append([])
            room.append(row_length)
        rows[row].append(item)
        room[row] -= length
    return rows


def test_the_drawn_example():
    assert pack_rows([3, 4, 2, 1], row_length=6, slots=3) == [[0, 2, 3], [1]]
    assert pack_rows([3, 4, 2, 1], row_length=6, slots=2) == [[0, 2], [1, 3]]


def test_long_items_fill_a_row_and_no_items_need_none():
    assert pack_rows([9, 1, 6], row_length=6, slots=4) == [[0], [1], [2]]
    assert pack_rows([], row_length=6, slots=4) == []


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("slots", [1, 3, 100])
def test_equals_plain_first_fit_and_holds_each_item_once(seed, slots):
    lengths = np.random.default_rng(seed).integers(1, 40, size=seed * 37 + 1).tolist()
    rows = pack_rows(lengths, row_length=32, slots=slots)
    assert rows == slow_first_fit(lengths, row_length=32, slots=slots)
    assert sorted(sum(rows, [])) == list(range(len(lengths)))
    assert all(row == sorted(row) and len(row) <= slots for row in rows)
    assert all(sum(min(lengths[i], 32) for i in row) <= 32 for row in rows)


def test_an_item_without_tokens_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        pack_rows([2, 0], row_length=6, slots=2)


def test_padding_share_counts_segment_zero():
    assert padding_share(np.array([[1, 1, 2, 0], [1, 0, 0, 0]])) == 0.5
    assert padding_share(np.zeros((0, 4), np.int32)) == 0.0
