"""Stop strings, drawn as streams: what is fed, and what is shown of it."""

import itertools

import pytest

from tljax.generate.stop import StopStrings
from tljax.settings import InputError


def shown(strings, pieces):
    """The pieces shown for those fed, '|' between, '#' at the stop, flushed at last."""
    stop = StopStrings(strings)
    out = []
    for piece in pieces.split("|"):
        text, stopped = stop.feed(piece)
        out.append(text + "#" * stopped)
    return "|".join(out) + "|" + stop.flush()


@pytest.mark.parametrize(
    ("strings", "fed", "out"),
    [
        ([], "ab|c", "ab|c|"),
        (["END"], "ab|c", "ab|c|"),
        (["END"], "aENDb", "a#|"),
        (["END"], "aE|N|xE|N|D|more", "a||ENx||#|#|"),
        (["END"], "aEN", "a|EN"),  # the text is over: what waited is text
        (["END"], "EE|END", "E|E#|"),
        (["\n\n", "User:"], "hi\n|there\nUs|er|:", "hi|\nthere\n||#|"),
        (["aab"], "aa|a|b", "|a|#|"),  # the first a can no longer be of it
        (["abc", "b"], "xabc", "xa#|"),  # b is complete first
        (["abc", "bc"], "xa|bc", "x|#|"),  # both at once: the longer
        (["abcd", "bc"], "abd|bc", "abd|#|"),
        (["ab"], "é|aé|ab", "é|aé|#|"),
    ],
)
def test_streams_by_hand(strings, fed, out):
    assert shown(strings, fed) == out


@pytest.mark.parametrize(
    ("strings", "text"),
    [
        (["abab"], "aababab"),
        (["abc", "bd", "b"], "aabdabc"),
        (["caab", "aa"], "bcaab"),
        (["ba", "aab", "baab"], "bbaabaa"),
        (["ab", "abc"], "aacaabc"),
        (["xyz", "aa"], "xyxyxya"),
    ],
)
def test_the_borders_of_what_is_fed_change_nothing(strings, text):
    ends = {
        end: min(text.index(one) for one in strings if text[:end].endswith(one))
        for end in range(len(text) + 1)
        if any(text[:end].endswith(one) for one in strings)
    }
    expected = text[: ends[min(ends)]] if ends else text
    for cuts in itertools.product("|-", repeat=len(text) - 1):
        fed = "".join(
            a + ("|" if b == "|" else "")
            for a, b in itertools.zip_longest(text, cuts, fillvalue="-")
        )
        out = shown(strings, fed)
        assert out.replace("|", "").replace("#", "") == expected, fed
        assert ("#" in out) == bool(ends), fed


def test_an_empty_stop_string_is_refused():
    with pytest.raises(InputError, match="a stop string is ''"):
        StopStrings(["END", ""])
