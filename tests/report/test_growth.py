"""Exponents by hand, what counts as above theory, and the page that shows it."""

import re

import numpy as np
import pytest

from tljax.report.growth import (
    Growth,
    build_growth_page,
    fit_growth,
    growth_svg,
    rows,
)

SIZES = np.array([1, 2, 4, 8, 16, 32, 64])


def test_a_power_is_found_exactly():
    growth = fit_growth(SIZES, 3 * SIZES**1.5, 7.0 * SIZES)
    assert growth.exponent == pytest.approx(1.5)
    assert growth.last == pytest.approx(1.5)
    assert growth.theory == pytest.approx(1.0)
    assert growth.error == pytest.approx(0, abs=1e-6)
    assert growth.above


def test_a_bend_that_theory_has_too_is_no_error():
    bent = SIZES + SIZES**2 / 16  # 12, 32, 96, 320 in the upper half
    growth = fit_growth(SIZES, 5 * bent, bent)
    assert growth.theory == pytest.approx(1.58, abs=0.005)
    assert growth.exponent == pytest.approx(growth.theory)
    assert growth.error == pytest.approx(0, abs=1e-6) and not growth.above


def test_the_lower_half_does_not_count():
    costs = np.where(SIZES < 8, 1e6, SIZES)
    assert fit_growth(SIZES, costs, SIZES).exponent == pytest.approx(1.0)


def test_the_interval_is_students_over_the_upper_half():
    """Logarithms 0 1 2 3 (base 2), costs off by a, -a, -a, a of slope 1: slope 0 of
    the rest; its variance is 4 a^2 / 2 / sum of squares 5; t of two degrees is 4.3027.
    """
    a = 0.1
    costs = SIZES * 2 ** (a * np.array([0, 0, 0, 1, -1, -1, 1]))
    growth = fit_growth(SIZES, costs, SIZES)
    assert growth.exponent == pytest.approx(1.0)
    assert growth.error == pytest.approx(4.3027 * np.sqrt(4 * a**2 / 2 / 5), rel=1e-4)


@pytest.mark.parametrize(
    ("exponent", "error", "above"),
    [(1.3, 0.2, True), (1.3, 0.4, False), (1.04, 0.0, False), (0.5, 0.1, False)],
)
def test_above_theory_is_by_more_than_the_interval_and_not_negligibly(
    exponent, error, above
):
    assert Growth(exponent, error, last=exponent, theory=1.0).above is above


def test_two_points_have_no_interval():
    with pytest.raises(ValueError, match="needs three"):
        fit_growth([1, 2], [1, 2], [1, 2])


@pytest.fixture
def record():
    points = [
        {"at": at, "seconds": at**2 / 100, "bytes": 1e6 * at, "theory_seconds": at,
         "theory_bytes": 1.0 * at}
        for at in (1, 2, 4, 8)
    ]  # fmt: skip
    growth = {
        "seconds": {"exponent": 2.0, "error": 0.01, "last": 2.0, "theory": 1.0},
        "bytes": {"exponent": 1.0, "error": 0.0, "last": 1.0, "theory": 1.0},
    }
    axis = {"name": "depth", "told": "layers <all>", "points": points, "growth": growth}
    return {"base": {"width": 1024}, "dtype": "bfloat16", "theory": "FLOPs.",
            "axes": [axis]}  # fmt: skip


def test_a_row_a_cost_says_what_is_above(record):
    time, memory = rows(record)
    assert time[:5] == ["depth", "1", "8", "time", "2.00 ± 0.01"]
    assert (time[-1], memory[-1]) == ("above", "")


def test_the_page_fetches_nothing_and_escapes_what_it_is_told(record):
    html = build_growth_page(record)
    assert html.count("<svg ") == 2 and "Layers &lt;all&gt;" in html
    assert "<all>" not in html and "src=" not in html and "<script" not in html


def test_theory_is_drawn_through_the_first_point(record):
    """Time grows as the square, theory linearly: dashed and solid lines begin as one
    and end apart; memory lies on its line all along."""

    def lines(key):
        svg = growth_svg(record["axes"][0], key)
        # theory has the quiet colour and dashes, what was measured the blue one
        found = {
            color: re.search(rf'd="M ([^"]*)"[^>]*stroke: {color}', svg, re.IGNORECASE)
            for color in ("#767676", "#0072b2")
        }
        return [
            np.array(re.findall(r"[\d.]+", one[1]), float).reshape(-1, 2)
            for one in found.values()
        ]

    theory, measured = lines("seconds")
    np.testing.assert_allclose(theory[0], measured[0])
    assert theory[-1, 1] > measured[-1, 1] + 20  # in SVG, lower is further down
    theory, measured = lines("bytes")
    np.testing.assert_allclose(theory, measured)
