"""The order of points: the same whenever asked, none twice, evenly spread."""

import pytest

from tljax.settings import InputError
from tljax.sweep.search import points
from tljax.sweep.space import identity, parse_space

RANGES = parse_space(
    ["a=uniform(0,1)", "b=uniform(0,1)"], read=lambda _, text: float(text)
)
FEW = parse_space(["a=1,2,3", "b=1,2"], read=lambda _, text: int(text))


@pytest.mark.parametrize("search", ["qmc", "random"])
def test_more_trials_begin_with_the_same_points(search):
    long = points(RANGES, search=search, seed=3, trials=100)
    assert points(RANGES, search=search, seed=3, trials=37) == long[:37]
    assert points(RANGES, search=search, seed=4, trials=37) != long[:37]


def test_quasi_random_points_fill_every_cell_of_a_net_once():
    """Sobol' in two dimensions: one of 16 points in each of 16 equal boxes."""
    found = points(RANGES, search="qmc", seed=0, trials=16)
    for across in (1, 2, 4, 8, 16):
        boxes = {(int(one["a"] * across), int(one["b"] * 16 / across)) for one in found}
        assert len(boxes) == 16


@pytest.mark.parametrize("search", ["qmc", "random", "grid"])
def test_a_small_space_is_tried_whole_and_no_point_twice(search):
    found = points(FEW, search=search, seed=0, trials=6)
    assert sorted(map(identity, found)) == sorted(map(identity, FEW.grid()))


@pytest.mark.parametrize(("search", "trials"), [("qmc", 7), ("grid", 5)])
def test_more_or_fewer_points_than_there_are_is_refused(search, trials):
    with pytest.raises(InputError, match="the space has 6 points"):
        points(FEW, search=search, seed=0, trials=trials)


def test_a_grid_of_a_range_is_refused():
    with pytest.raises(InputError, match="a is a range"):
        points(RANGES, search="grid", seed=0, trials=4)
