"""The space of a sweep, as users write it and as draws mean it."""

import math

import pytest

from tljax.settings import InputError
from tljax.sweep.space import from_rows, parse_space, to_rows

TYPES = {"rank": int, "method": str, "layers": int}


def read(key, text):
    """Text as the value of a key; all others are numbers."""
    try:
        return TYPES.get(key, float)(text)
    except ValueError as error:
        raise InputError(f"{key}={text} is not a number") from error


def space(*overs):
    return parse_space(overs, read=read)


def test_a_draw_means_a_place_on_each_scale():
    found = space("lr=log(1e-4,1e-2)", "drop=uniform(0,0.4)", "method=full,lora")
    assert found.point([0.5, 0.25, 0.6]) == {
        "lr": 0.001, "drop": 0.1, "method": "lora",
    }  # fmt: skip
    assert found.point([0, 0, 0]) == {"lr": 1e-4, "drop": 0.0, "method": "full"}


def test_whole_numbers_have_equal_shares_both_ends_included():
    layers = space("layers=uniform(0,3)")
    drawn = [layers.point([i / 8])["layers"] for i in range(8)]
    assert drawn == [0, 0, 1, 1, 2, 2, 3, 3]
    ranks = space("rank=log(1,8)")
    assert {ranks.point([i / 64])["rank"] for i in range(64)} == set(range(1, 9))
    assert ranks.point([math.log(4) / math.log(9) + 1e-9])["rank"] == 4


def test_a_key_with_a_condition_is_there_only_where_it_holds():
    found = space("method=full,lora,dora", "rank=4,8 if method=lora,dora")
    assert found.point([0.0, 0.9]) == {"method": "full"}
    assert found.point([0.9, 0.9]) == {"method": "dora", "rank": 8}
    assert found.grid() == [
        {"method": "full"},
        {"method": "lora", "rank": 4},
        {"method": "lora", "rank": 8},
        {"method": "dora", "rank": 4},
        {"method": "dora", "rank": 8},
    ]
    assert found.size == 5
    assert space("lr=log(1,2)").size == math.inf


def test_values_with_commas_are_written_as_json():
    assert space('method=["a,b", "c"]').dimensions[0].choices == ("a,b", "c")


def test_a_dimension_says_of_itself_what_can_be_read_again():
    overs = ["lr=log(1e-05,0.1234567)", "layers=uniform(0,3)", 'method=["a,b", "c"]',
             "rank=4,8 if method=c"]  # fmt: skip
    read_in = space(*overs)
    assert space(*(f"{one.key}={one}" for one in read_in.dimensions)) == read_in


def test_a_space_is_the_same_after_json():
    found = space("lr=log(1e-4,1e-2)", "method=a,b", "rank=log(1,8) if method=b")
    assert from_rows(to_rows(found)) == found


@pytest.mark.parametrize(
    ("overs", "said"),
    [
        ([], "needs --over"),
        (["lr"], "of no form"),
        (["lr="], "of no form"),
        (["lr=log(1e-5,1e-2"], "lacks its"),
        (["lr=log(1e-2,1e-5)"], "reversed"),
        (["lr=log(1,1)"], "empty"),
        (["lr=log(0,1)"], "no logarithm"),
        (["lr=cube(0,1)"], "no range"),
        (["lr=log(1,2,3)"], "no range"),
        (["lr=fast"], "not a number"),
        (["lr=1,,2"], "empty value"),
        (["lr=1,1.0"], "twice"),
        (["lr=1,2", "lr=3,4"], "swept already"),
        (["method=log(a,b)"], "not a number"),
        (["rank=1,2 if method=lora"], "must be swept"),
        (["method=full,lora", "rank=1,2 if method=dora"], "is never 'dora'"),
    ],
)
def test_what_is_no_space_is_refused(overs, said):
    with pytest.raises(InputError, match=said):
        parse_space(overs, read=read)
