"""Model soups: the average of the weights of several runs of one base.

uniform  theta = (1 / k) sum of theta_i
greedy   best first; theta_i is taken if the average with it is no worse than without
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from tljax.transfer.transplant import flat, nested


class Soup(NamedTuple):
    """An average, and the runs that are in it."""

    params: dict
    taken: tuple[str, ...]


def average(
    ranked: Sequence[str],
    load: Callable[[str], dict],
    accuracy: Callable[[dict], float] = lambda params: 0.0,
) -> Soup:
    """Averages parameters, in float64; never holds more than one run's beside the sum.

    Args:
      ranked: names of runs, the best first.
      load: a run's whole parameters, trees of the same leaves and shapes.
      accuracy: of parameters on validation items; where it is the same for all, as
        where none is given, all runs are taken: the uniform soup.

    Returns:
      The soup; its leaves are float32.

    Source: Wortsman et al. 2022 (Model soups), recipe 1. Their heads began alike; heads
    that began at random are averaged all the same.
    """
    total: dict[str, np.ndarray] = {}
    taken: tuple[str, ...] = ()
    soup, best = {}, -np.inf
    for name in ranked:
        more = {
            path: total.get(path, 0.0) + np.asarray(leaf, np.float64)
            for path, leaf in flat(load(name)).items()
        }
        count = len(taken) + 1
        tried = nested({p: (x / count).astype(np.float32) for p, x in more.items()})
        found = accuracy(tried)
        if found >= best:
            total, taken, soup, best = more, (*taken, name), tried, found
    return Soup(soup, taken)
