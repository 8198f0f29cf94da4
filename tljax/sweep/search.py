"""Which points a sweep tries, in which order: a function of space, search and seed.

    qmc     scrambled Sobol' sequence: the unit cube filled evenly
    random  independent draws
    grid    every point of a space of choices

Point i never depends on what came of others, on when, or on how often the sweep was
killed. Optuna's own samplers count what they drew, so a kill would shift them; `tpe`,
which learns from results, is Optuna's (`tljax.sweep.study`).
"""

import itertools
import math
from collections.abc import Iterator

import numpy as np
from scipy.stats import qmc

from tljax.settings import InputError
from tljax.sweep.space import Point, Space, identity

SEARCHES = ("qmc", "random", "grid", "tpe")
_TRIES = 1000  # draws in a row that may repeat points of a space of few


def points(space: Space, *, search: str, seed: int, trials: int) -> list[Point]:
    """The first points of a search; none is tried twice.

    Args:
      space: of the sweep.
      search: 'qmc', 'random' or 'grid'.
      seed: of the draws; a grid has none.
      trials: how many.

    Raises:
      InputError: there are not so many points, or a grid has more.

    Source: Sobol' with Owen's scrambling, as the Deep Learning Tuning Playbook advises
    for exploration (Godbole et al. 2023).
    """
    size = len(space.grid()) if search == "grid" else space.size  # refuses a range
    if trials > size or (search == "grid" and trials != size):
        raise InputError(
            f"--trials={trials}, but the space has {size} points; leave --trials"
            " out, or give other values"
        )
    if search == "grid":
        return space.grid()
    found: dict[str, Point] = {}
    draws = (_sobol if search == "qmc" else _uniform)(len(space.dimensions), seed)
    repeated = 0
    for shares in draws:
        point = space.point(shares)
        repeated = repeated + 1 if identity(point) in found else 0
        found.setdefault(identity(point), point)
        if len(found) == trials:
            return list(found.values())
        if repeated == _TRIES:
            break
    if space.size == math.inf:
        raise InputError(
            f"--trials={trials}: {len(found)} points were found and no other; give"
            " fewer trials, or wider ranges"
        )
    rest = [one for one in space.grid() if identity(one) not in found]
    return [*found.values(), *rest][:trials]


def _sobol(dimensions: int, seed: int) -> Iterator[np.ndarray]:
    # 64 bits would make low bits of float64 differ between platforms; 30 are plenty
    engine = qmc.Sobol(dimensions, scramble=True, rng=seed, bits=30)
    size = 64
    while True:
        yield from engine.random(size)


def _uniform(dimensions: int, seed: int) -> Iterator[np.ndarray]:
    draws = np.random.Generator(np.random.Philox(key=seed))
    for _ in itertools.count():
        yield draws.random(dimensions)
