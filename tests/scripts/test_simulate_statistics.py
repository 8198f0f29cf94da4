"""The simulation of the statistics, in small: promises are kept, a control misses."""

import pytest

from scripts import simulate_statistics as simulation

SCENARIOS = list(simulation.scenarios())


def scenario(start, drawn=""):
    (found,) = [
        one
        for one in SCENARIOS
        if one.procedure.startswith(start) and drawn in one.drawn
    ]
    return found


@pytest.mark.parametrize(
    "name",
    [
        ("Holm",),
        ("equivalence (TOST), 6",),
        ("sign-flip test, 6",),
        ("Brown-Forsythe", "normal"),
        ("Fisher", "0.5"),
        ("shares alike",),
    ],
)
def test_true_nulls_are_rejected_no_more_often_than_promised(name):
    one = scenario(*name)
    assert one.promise in ("is", "at most")
    assert simulation.simulate(one, 400).keeps(one)


def test_plain_percentiles_of_eight_seeds_cover_too_seldom():
    """What shows that the check can fail; it does, too, when told that they cover."""
    one = scenario("plain percentiles of resampled seeds, 8")
    rate = simulation.simulate(one, 1500)
    assert one.promise == "control" and rate.keeps(one)
    told = simulation.Scenario(one.procedure, one.drawn, one.nominal, one.trial, 1)
    assert not rate.keeps(told)


def test_a_test_that_rejects_too_often_is_found_out():
    """Taken for tests of level 1 %, those of level 5 % break their promise."""
    strict = simulation.Scenario(
        "p <= .05", "p uniform", 0.01, lambda rng: rng.random() <= 0.05, 1, "at most"
    )
    assert not simulation.simulate(strict, 1000).keeps(strict)


def test_the_table_goes_between_the_marks(tmp_path):
    document = tmp_path / "statistics.md"
    document.write_text("before\n<!-- simulated -->\nold\n<!-- end -->\nafter\n")
    simulation.write_table(document, "| new |")
    assert document.read_text() == (
        "before\n<!-- simulated -->\n| new |\n<!-- end -->\nafter\n"
    )


def test_every_scenario_is_in_the_document():
    text = simulation.DOCUMENT.read_text("utf-8")
    for one in SCENARIOS:
        assert f"| {one.procedure} | {one.drawn} |" in text
