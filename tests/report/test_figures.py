"""The figures: well-formed, reproducible, one colour per arm, nothing overlapping."""

import dataclasses
import xml.etree.ElementTree as xml

import numpy as np
import pytest

from tljax.report import drawing, figures
from tljax.report.curves import Band, Reliability

ARMS = {
    "scratch": {
        "50": {"mean": 0.52, "ci95": [0.5, 0.54], "values": [0.51, 0.53]},
        "500": {"mean": 0.60, "ci95": [0.58, 0.62], "values": [0.59, 0.61]},
    },
    "transfer": {
        "50": {"mean": 0.57, "ci95": [0.55, 0.59], "values": [0.56, 0.58]},
        "500": {"mean": 0.66, "ci95": [0.64, 0.68], "values": [0.65, 0.67]},
    },
}
X = np.array([1.0, 2.0, 3.0])
BAND = Band(x=X, mean=X / 4, low=X / 4 - 0.1, high=X / 4 + 0.1, runs=2)
BINS = Reliability(
    confidence=np.array([0.6, 0.9]),
    accuracy=np.array([0.5, 0.7]),
    share=np.array([0.5, 0.5]),
    error=0.15,
)


def all_figures() -> dict[str, str]:
    both = {(arm, s): BAND for arm in ARMS for s in ("train", "validation")}
    return {
        "efficiency": figures.label_efficiency_svg(ARMS, chance=0.5),
        "learning": figures.learning_curve_svg(
            both, title="n = 50", quantity="loss_nats", unit="epochs"
        ),
        "calibration": figures.reliability_svg(
            dict.fromkeys(ARMS, BINS), title="n = 50"
        ),
    }


@pytest.mark.parametrize("name", ["efficiency", "learning", "calibration"])
def test_every_arm_has_its_one_colour_in_every_figure(name: str) -> None:
    svg = all_figures()[name].lower()
    assert drawing.arm_style("scratch").color.lower() in svg
    assert drawing.arm_style("transfer").color.lower() in svg
    assert drawing.arm_style("tfidf").color.lower() not in svg  # not among the arms


def test_arms_differ_in_colour_and_marker() -> None:
    styles = [drawing.arm_style(arm) for arm in ("scratch", "transfer", "tfidf")]
    assert len({style.color for style in styles}) == 3
    assert len({style.marker for style in styles}) == 3


def test_figures_are_svg_elements_that_load_nothing_and_share_no_id() -> None:
    seen: set[str] = set()
    for svg in all_figures().values():
        ids = set()
        for element in xml.fromstring(svg).iter():
            assert not element.tag.endswith("script")
            for key, value in element.attrib.items():
                if key.endswith("href"):
                    assert value.startswith("#")
                    assert f'id="{value[1:]}"' in svg
                if key == "id":
                    ids.add(value)
        assert ids
        assert not ids & seen
        seen |= ids


def test_the_same_numbers_give_the_same_bytes() -> None:
    assert all_figures() == all_figures()


def test_label_efficiency_draws_one_dot_per_seed() -> None:
    def dots(svg: str) -> int:
        return svg.count("fill-opacity: 0.45")

    more = {arm: dict(rows) for arm, rows in ARMS.items()}
    more["transfer"]["50"] = more["transfer"]["50"] | {"values": [0.56, 0.57, 0.58]}
    assert dots(figures.label_efficiency_svg(ARMS)) == 8
    assert dots(figures.label_efficiency_svg(more)) == 9


def test_label_efficiency_takes_a_single_size_and_an_interval_beside_its_mean() -> None:
    row = {"mean": 0.6, "ci95": [0.61, 0.63], "values": [0.6]}
    svg = figures.label_efficiency_svg({"scratch": {"100": row}})
    xml.fromstring(svg)
    assert svg.count("fill-opacity: 0.45") == 1


def test_a_lone_run_has_no_band() -> None:
    def filled(band: Band) -> bool:
        svg = figures.learning_curve_svg(
            {("scratch", "train"): band},
            title="n = 50",
            quantity="accuracy",
            unit="steps",
        )
        return "fill-opacity: 0.13" in svg

    assert filled(BAND)
    assert not filled(dataclasses.replace(BAND, runs=1))


def test_pretraining_leaves_out_step_zero_of_its_log_axis() -> None:
    def drawn(first: int) -> str:
        x, y = np.array([0.0, 10.0, 100.0])[first:], X[first:]
        band = Band(x=x, mean=y, low=y, high=y, runs=1)
        return figures.pretraining_svg({"train": band})

    assert drawn(0) == drawn(1)  # not a line from the far left


@pytest.mark.parametrize(
    ("heights", "expected"),
    [
        ([0.0, 10.0], [0.0, 10.0]),  # far apart: unmoved
        ([5.0, 5.0], [4.0, 6.0]),  # equal: to both sides
        ([0.0, 1.0, 10.0], [-0.5, 1.5, 10.0]),
        ([0.0, 1.0, 2.0], [-1.0, 1.0, 3.0]),  # the whole group about its mean
    ],
)
def test_spread_by_hand(heights: list[float], expected: list[float]) -> None:
    assert drawing.spread(heights, gap=2.0) == pytest.approx(expected)


def test_spread_keeps_order_and_gap() -> None:
    rng = np.random.default_rng(np.random.PCG64(0))
    for _ in range(50):
        moved = drawing.spread(sorted(rng.uniform(0, 5, 6).tolist()), gap=1.0)
        assert np.diff(moved).min() >= 1.0 - 1e-9


def test_readable_ticks_name_the_largest_rather_than_its_neighbour() -> None:
    assert drawing.readable_ticks([50, 100, 500]) == [50, 100, 500]
    assert drawing.readable_ticks([50, 500, 5000, 5530]) == [50, 500, 5530]
    assert drawing.readable_ticks([100]) == [100]
