"""Do the tests reject, and the intervals cover, as often as they say?

    python -m scripts.simulate_statistics        some minutes; writes docs/statistics.md

Data with a known truth are drawn, judged by tljax/report/{statistics,spread}.py, and
counted. Fixed seeds: the same table every time. Rows marked "control" are what is not
used, and why: they must miss.
"""

import dataclasses
import itertools
import math
import pathlib
import re
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from tljax.report import spread, statistics

DOCUMENT = pathlib.Path(__file__).parents[1] / "docs" / "statistics.md"
LEVEL, COVER = 0.05, 0.95
RESAMPLES = 600

Trial = Callable[[np.random.Generator], bool]


@dataclasses.dataclass(frozen=True)
class Scenario:
    """One line of the table.

    Attributes:
      procedure, drawn: what is judged, and what was generated.
      nominal: the rate that is promised.
      trial: one simulation -> rejected (of a test), covered (of an interval).
      repeats: simulations.
      promise: the rate 'is' the nominal one, 'at most' or 'at least' it, or 'falls
        short of' it, which docs/statistics.md tells; a 'control' must miss it.
    """

    procedure: str
    drawn: str
    nominal: float
    trial: Trial
    repeats: int
    promise: str = "is"


@dataclasses.dataclass(frozen=True)
class Rate:
    """How often, with its standard error."""

    value: float
    error: float

    def keeps(self, scenario: Scenario) -> bool:
        """Whether the promise holds within four standard errors."""
        away = (self.value - scenario.nominal) / self.error if self.error else 0.0
        return {
            "is": abs(away) <= 4,
            "at most": away <= 4,
            "at least": away >= -4,
            "falls short of": away < 0,
            "control": abs(away) > 4,
        }[scenario.promise]


def simulate(scenario: Scenario, repeats: int | None = None) -> Rate:
    """Runs a scenario's trials from a seed of its own."""
    seed = sum((scenario.procedure + scenario.drawn).encode())
    rng, repeats = np.random.default_rng(seed), repeats or scenario.repeats
    value = sum(scenario.trial(rng) for _ in range(repeats)) / repeats
    error = math.sqrt(scenario.nominal * (1 - scenario.nominal) / repeats)
    return Rate(value, error)


def crossed(rng, *, seeds, items, by_seed, by_item, both, mean=0.0):
    """values_SI = mean + seed's effect + item's effect + their interaction."""
    return (
        mean
        + by_seed * rng.normal(size=(seeds, 1))
        + by_item * rng.normal(size=(1, items))
        + both * rng.normal(size=(seeds, items))
    )


def answers(rng, *, seeds, items, spread_of_seeds):
    """Right or wrong: items of unlike difficulty, seeds of unlike skill."""
    logits_SI = rng.normal(size=(1, items)) * 1.5
    logits_SI = logits_SI + spread_of_seeds * rng.normal(size=(seeds, 1))
    return (rng.random((seeds, items)) < 1 / (1 + np.exp(-logits_SI))) * 1.0


def heaps(rng, runs, scale):
    """Scores in two heaps: three runs in ten are lost, 3 standard deviations below."""
    lost = rng.random(runs) < 0.3
    return scale * np.where(
        lost, -3 + 0.3 * rng.normal(size=runs), rng.normal(size=runs)
    )


def flips(rng, *, seeds, level, draw):
    return statistics.sign_flip_test(draw(rng, seeds), seed=0) <= level


def family(rng, *, seeds, claims):
    ps = [statistics.sign_flip_test(rng.normal(size=seeds), seed=0)
          for _ in range(claims)]  # fmt: skip
    return min(statistics.holm(ps)) < LEVEL


def at_margin(rng, *, seeds, margin=1.0):
    differences_S = margin + 0.5 * rng.normal(size=seeds)
    return statistics.equivalence_test(differences_S, margin=margin, seed=0) <= LEVEL


def bootstrap(rng, *, draw, truth):
    found = statistics.hierarchical_bootstrap(
        draw(rng), resamples=RESAMPLES, seed=int(rng.integers(2**31))
    )
    return found.low <= truth <= found.high


def plain_percentiles(rng, *, seeds):
    values_S = rng.normal(size=seeds)
    means_J = values_S[rng.integers(seeds, size=(RESAMPLES, seeds))].mean(1)
    low, high = np.quantile(means_J, [0.025, 0.975])
    return low <= 0 <= high


def spreads(rng, *, runs, draw):
    return spread.spread_test(draw(rng, runs, 1.0), draw(rng, runs, 1.0)) <= LEVEL


def ratio(rng, *, runs, draw):
    found = spread.spread_ratio(draw(rng, runs, 0.5), draw(rng, runs, 1.0))
    return found.low <= 0.5 <= found.high


def failures(rng, *, runs, rate):
    one, other = rng.binomial(runs, rate, size=2)
    return spread.failure_test(one, runs, other, runs) <= LEVEL


def failure_gap(rng, *, runs, rates):
    one, other = (int(rng.binomial(runs, rate)) for rate in rates)
    found = spread.failure_difference(one, runs, other, runs)
    return found.low <= rates[0] - rates[1] <= found.high


def grid(rng, size, variances):
    """scores_WO of first weights, orders and rest with these variances."""
    shapes = (size, 1), (1, size), (size, size)
    return sum(
        math.sqrt(variance) * rng.normal(size=shape)
        for variance, shape in zip(variances, shapes, strict=True)
    )


def shares(rng, *, size, variances, which):
    scores_WO, seed = grid(rng, size, variances), int(rng.integers(2**31))
    found = spread.variance_shares(scores_WO, draws=RESAMPLES, seed=seed)
    parts = dict(zip(("init", "order", "rest"), variances, strict=True))
    parts["difference"] = parts["init"] - parts["order"]
    truth, one = parts[which] / sum(variances), getattr(found, which)
    return one.low - 1e-9 <= truth <= one.high + 1e-9


def alike(rng, *, size, variances, margin):
    scores_WO, seed = grid(rng, size, variances), int(rng.integers(2**31))
    p = spread.shares_alike(scores_WO, margin=margin, draws=RESAMPLES, seed=seed)
    return p <= LEVEL


def normal(rng, runs, scale=1.0):
    """Scores of a bell curve."""
    return scale * rng.normal(size=runs)


def skewed(rng, runs, scale=1.0):
    """Scores of one long tail (exponential, mean 0)."""
    return scale * (rng.exponential(size=runs) - 1)


def scenarios() -> Iterator[Scenario]:
    """Every line of the table."""
    return itertools.chain(_of_differences(), _of_means(), _of_spread(), _of_shares())


def _of_differences() -> Iterator[Scenario]:
    """Tests of paired differences, where nothing is to be found."""
    for seeds in (6, 8, 12, 20):
        patterns = 2 ** (seeds - 1)  # p is a multiple of 1 / this
        level, repeats = math.floor(LEVEL * patterns) / patterns, 4000
        name = f"sign-flip test, {seeds} seeds, p <= {level:.4f}"
        trial = partial(flips, seeds=seeds, level=level, draw=normal)
        yield Scenario(
            name, "normal, mean 0", level, trial, repeats if seeds < 20 else 400
        )
    trial = partial(flips, seeds=8, level=6 / 128, draw=skewed)
    yield Scenario(
        "sign-flip test, 8 seeds, p <= .0469",
        "mean 0, but skewed: not symmetric",
        6 / 128,
        trial,
        4000,
        "control",
    )
    yield Scenario(
        "Holm, 5 claims, 9 seeds",
        "all five null: any rejected",
        LEVEL,
        partial(family, seeds=9, claims=5),
        3000,
        "at most",
    )
    for seeds in (6, 10):
        yield Scenario(
            f"equivalence (TOST), {seeds} seeds",
            "true mean at the margin",
            LEVEL,
            partial(at_margin, seeds=seeds),
            4000,
            "at most",
        )


def _of_means() -> Iterator[Scenario]:
    """Intervals of means over seeds and items."""
    for seeds in (3, 5, 8, 20):
        draw = partial(crossed, seeds=seeds, items=200, by_seed=1, by_item=0, both=0.1)
        yield Scenario(
            f"hierarchical bootstrap, {seeds} seeds x 200 items",
            "seeds alone differ",
            COVER,
            partial(bootstrap, draw=draw, truth=0),
            1500,
            "is" if seeds > 8 else "falls short of",
        )
    for by_seed, by_item, both, what in (
        (0, 1, 0.3, "items alone differ"),
        (0, 0.2, 1, "seeds and items interact"),
        (1, 3, 3, "all three"),
    ):
        draw = partial(crossed, seeds=8, items=200, by_seed=by_seed, by_item=by_item,
                    both=both)  # fmt: skip
        yield Scenario(
            "hierarchical bootstrap, 8 seeds x 200 items",
            what,
            COVER,
            partial(bootstrap, draw=draw, truth=0),
            1500,
        )
    draw = partial(answers, seeds=8, items=200, spread_of_seeds=0.3)
    yield Scenario(
        "hierarchical bootstrap, 8 seeds x 200 items",
        "right or wrong answers, as in the experiments",
        COVER,
        partial(bootstrap, draw=draw, truth=0.5),
        1500,
    )
    for seeds in (8, 20):
        yield Scenario(
            f"plain percentiles of resampled seeds, {seeds} seeds",
            "normal, mean 0",
            COVER,
            partial(plain_percentiles, seeds=seeds),
            4000,
            "control" if seeds == 8 else "falls short of",
        )


def _of_spread() -> Iterator[Scenario]:
    """Spread and failures of two arms."""
    for draw in (normal, heaps, skewed):
        yield Scenario(
            "Brown-Forsythe, 20 runs each",
            f"equal spread, {draw.__name__}",
            LEVEL,
            partial(spreads, runs=20, draw=draw),
            4000,
            "at most",
        )
    for draw, promise in (
        (normal, "at least"),
        (heaps, "at least"),
        (skewed, "falls short of"),
    ):
        yield Scenario(
            "ratio of spreads, 20 runs each",
            f"ratio 1/2, {draw.__name__}",
            COVER,
            partial(ratio, runs=20, draw=draw),
            4000,
            promise,
        )
    for rate in (0.1, 0.5):
        yield Scenario(
            "Fisher's exact test, 20 runs each",
            f"both fail at {rate:g}",
            LEVEL,
            partial(failures, runs=20, rate=rate),
            2000,
            "at most",
        )
    for rates in ((0.5, 0.1), (0.1, 0.1)):
        yield Scenario(
            "difference of failure rates, 20 runs each",
            f"rates {rates[0]:g} and {rates[1]:g}",
            COVER,
            partial(failure_gap, runs=20, rates=rates),
            3000,
            "at least",
        )


def _of_shares() -> Iterator[Scenario]:
    """Shares of the variance of a grid."""
    for variances, what in (((1, 1, 1), "equal parts"), ((3, 0, 1), "no part of order"),
                            ((0, 0, 1), "rest alone")):  # fmt: skip
        for which in ("init", "order", "rest", "difference"):
            edge = variances == (0, 0, 1)
            promise = "is" if variances == (1, 1, 1) else "at least"
            if edge and which == "rest":
                promise = "falls short of"
            yield Scenario(
                f"share of variance, 6 x 6: {which}",
                what,
                COVER,
                partial(shares, size=6, variances=variances, which=which),
                1500,
                promise,
            )
    yield Scenario(
        "shares alike within 2/3, 6 x 6",
        "shares 5/6 and 1/6: at the margin",
        LEVEL,
        partial(alike, size=6, variances=(5, 1, 0), margin=2 / 3),
        3000,
        "at most",
    )


def table() -> str:
    """The rows as Markdown; says on the way what it has done."""
    lines = ["| procedure | generated | promised | found | simulations |",
             "| --- | --- | --- | --- | --- |"]  # fmt: skip
    print(*lines, sep="\n")
    for one in scenarios():
        rate = simulate(one)
        if not rate.keeps(one):
            raise AssertionError(f"{one} has a rate of {rate}")
        promised = (
            f"{'' if one.promise == 'is' else one.promise + ' '}{one.nominal:.4g}"
        )
        found = f"{rate.value:.4f} ± {rate.error:.4f}"
        row = (one.procedure, one.drawn, promised, found, f"{one.repeats:,}")
        lines.append(f"| {' | '.join(row)} |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def write_table(document: pathlib.Path, rows: str) -> None:
    """Puts the table between the document's two marks."""
    text = document.read_text("utf-8")
    marks = r"(<!-- simulated -->\n).*(<!-- end -->)"
    made = re.sub(
        marks, lambda found: f"{found[1]}{rows}\n{found[2]}", text, flags=re.S
    )
    document.write_text(made, "utf-8")


if __name__ == "__main__":
    write_table(DOCUMENT, table())
