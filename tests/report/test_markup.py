"""Numbers as they are printed, by hand."""

import pytest

from tljax.report import markup


def plain(text: str) -> str:
    return text.replace(markup.THIN, " ").replace(markup.HARD, " ")


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(9.12, "9.1 s"), (59.97, "60.0 s"), (301.2, "5 min 1 s"), (7260.0, "2 h 1 min")],
)
def test_duration(seconds: float, expected: str) -> None:
    assert plain(markup.duration(seconds)) == expected


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (2_600_000, "", "2.6 M"),
        (4.1e13, "FLOP", "41 TFLOP"),
        (999_999, "", "1 M"),
        (12, "", "12"),
        (0, "FLOP", "0 FLOP"),
    ],
)
def test_quantity(value: float, unit: str, expected: str) -> None:
    assert plain(markup.quantity(value, unit)) == expected


def test_p_and_points() -> None:
    assert markup.p_value(0.0234) == ".023"
    assert markup.p_value(1.0) == "1.000"
    assert plain(markup.p_phrase(0.0002)) == "p < .001"
    assert markup.points(0.0612) == "+6.1"
    assert markup.points(-0.0612) == "\N{MINUS SIGN}6.1"
    assert markup.points(-0.0001) == "0.0"


def test_listing() -> None:
    assert markup.listing(["a"]) == "a"
    assert markup.listing(["a", "b", "c"]) == "a, b and c"


def test_escape_leaves_no_markup() -> None:
    assert markup.escape('<a href="x">\'&') == "&lt;a href=&quot;x&quot;&gt;&#x27;&amp;"
