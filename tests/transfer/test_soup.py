"""The average by hand, and which runs a greedy one takes."""

import numpy as np
import pytest

from tljax.transfer.soup import average

RUNS = {
    "a": {"head": {"bias": np.float32([1, 2])}, "layers": {"0": np.float32([[4]])}},
    "b": {"head": {"bias": np.float32([3, 6])}, "layers": {"0": np.float32([[0]])}},
    "c": {"head": {"bias": np.float32([2, 7])}, "layers": {"0": np.float32([[8]])}},
}


def test_a_uniform_soup_is_the_mean():
    soup = average("abc", RUNS.__getitem__)
    assert soup.taken == ("a", "b", "c")
    np.testing.assert_array_equal(soup.params["head"]["bias"], np.float32([2, 5]))
    np.testing.assert_array_equal(soup.params["layers"]["0"], np.float32([[4]]))
    assert soup.params["layers"]["0"].dtype == np.float32


def test_a_mean_of_many_is_summed_in_float64():
    """Of float32 sums the last thousand ones would be lost beside 2^24."""
    values = {str(i): {"x": np.float32([2**24 if i == 0 else 1])} for i in range(1001)}
    soup = average(list(values), values.__getitem__)
    np.testing.assert_array_equal(soup.params["x"], np.float32([(2**24 + 1000) / 1001]))


@pytest.mark.parametrize(
    ("accuracies", "taken", "tried"),
    [
        ([0.7, 0.6, 0.7], "ac", [4, 2, 6]),  # b makes it worse, c does no harm
        ([0.7, 0.8, 0.7], "ab", [4, 2, 4]),  # worse than with both, not than the first
        ([0.7, 0.8, 0.8], "abc", [4, 2, 4]),
        ([0.7, 0.6, 0.6], "a", [4, 2, 6]),
    ],
)
def test_a_greedy_soup_takes_what_does_no_harm(accuracies, taken, tried):
    """The layer's mean is 4 of a, 2 of a b, 6 of a c, 4 of a b c."""
    found, means = iter(accuracies), []

    def accuracy(params):
        means.append(float(params["layers"]["0"][0, 0]))
        return next(found)

    soup = average("abc", RUNS.__getitem__, accuracy)
    assert ("".join(soup.taken), means) == (taken, tried)
    mean = np.mean([RUNS[name]["layers"]["0"] for name in taken])
    assert float(soup.params["layers"]["0"][0, 0]) == mean
