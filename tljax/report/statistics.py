"""Is the difference real, how large, and what could have been seen at all?

Arms are paired by seed (same labelled subset, initialisation and order), and all seeds
answer the same test items: differences_S per seed, values_SI per seed and item.
Tests are exact over seeds; intervals resample seeds and items; families pay by Holm.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from tljax.settings import InputError

EXACT_SEEDS = 20  # all 2^20 sign patterns are enumerated; beyond, a random sample
MONTE_CARLO_DRAWS = 200_000
CHUNK = 256  # resamples held at once: 256 x 4,000 items x 8 bytes = 8 MB


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval."""

    mean: float
    low: float
    high: float


def sign_flip_test(
    differences_S: np.ndarray, *, alternative: str = "two-sided", seed: int
) -> float:
    """p-value of "differences are symmetric about 0", by flipping their signs.

    p is the share of all 2^S sign patterns whose mean is at least as extreme as the one
    seen, which is itself one of them: p is never below 2 / 2^S (two-sided; 1 / 2^S
    one-sided). Exact up to 20 seeds; beyond, (1 + hits) / (1 + draws) over
    random patterns.

    Args:
      differences_S: paired differences, one per seed.
      alternative: 'two-sided', or 'greater' (the mean is above 0).
      seed: of the random patterns; without effect up to 20 seeds.

    Raises:
      ValueError: no differences, one that is not finite, or an unknown alternative.

    Source: Fisher 1935, The Design of Experiments; Phipson and Smyth 2010 for the 1 +.
    """
    if alternative not in ("two-sided", "greater"):
        raise ValueError(f"alternative {alternative!r}: 'two-sided' or 'greater'")
    if not len(differences_S) or not np.isfinite(differences_S).all():
        raise ValueError(f"differences must be finite numbers, got {differences_S}")
    seen = differences_S.sum()
    exact = len(differences_S) <= EXACT_SEEDS
    if exact:
        sums = np.zeros(1)
        for difference in differences_S:
            sums = np.concatenate([sums + difference, sums - difference])
    else:
        rng = np.random.default_rng(seed)
        shape = (MONTE_CARLO_DRAWS, len(differences_S))
        sums = rng.choice(np.array([-1.0, 1.0]), size=shape) @ differences_S
    # Equal sums reached by other orders of addition must count as equal.
    tolerance = 1e-9 * np.abs(differences_S).sum()
    if alternative == "two-sided":
        hits = np.abs(sums) >= np.abs(seen) - tolerance
    else:
        hits = sums >= seen - tolerance
    return float(hits.mean() if exact else (1 + hits.sum()) / (1 + len(hits)))


def student_interval(values_S: np.ndarray, *, confidence: float = 0.95) -> Interval:
    """Interval for the mean over seeds alone: mean ± t x sd / sqrt(S), S - 1 degrees.

    Args:
      values_S: a score, or a paired difference of two, one per seed.
      confidence: share of repetitions in which the interval holds the true mean.

    Raises:
      ValueError: fewer than two seeds, or a value that is not finite.

    Source: Student 1908.
    """
    seeds = len(values_S)
    if seeds < 2 or not np.isfinite(values_S).all():
        raise ValueError(f"an interval needs two or more finite values, got {values_S}")
    quantile = special.stdtrit(seeds - 1, 0.5 + confidence / 2)
    half = float(quantile * values_S.std(ddof=1) / np.sqrt(seeds))
    mean = float(values_S.mean())
    return Interval(mean, mean - half, mean + half)


def hierarchical_bootstrap(
    values_SI: np.ndarray, *, resamples: int, seed: int, confidence: float = 0.95
) -> Interval:
    """Interval for the mean over seeds and test items, both being samples.

    One resample draws seeds, then items, with replacement; as all seeds answer the same
    items, one draw of items serves all of them:

        mean* = sum_S sum_I  w_S v_I values_SI,   w, v multinomial, each of sum 1

    Taken as they are, the percentiles of mean* are too narrow with few seeds (8 seeds:
    89 % where 95 % is said) and too wide where seeds and items interact (counted three
    times). So they are read at tail probability Phi(-t sqrt(V / V*)) instead of
    (1 - confidence) / 2, with V* the variance of mean*, V the two-way variance
    estimate V_seeds + V_items - V_interaction, and t the Student quantile at its
    Satterthwaite degrees of freedom. Where seeds alone vary, simulated coverage is
    then 94 % with 8 seeds, 92 % with 5, 75 % with 3, as no resample reaches beyond the
    seeds seen; about 95 % where items vary (docs/statistics.md).

    Args:
      values_SI: per seed and item, e.g. 1 = correct (an arm's accuracy), or the
        difference of two arms, in [-1, 1] (a paired difference of accuracies).
      resamples: bootstrap draws.
      seed: of the draws.
      confidence: share of repetitions in which the interval holds the true mean.

    Raises:
      ValueError: fewer than two seeds or items.

    Source: Owen 2007 (pigeonhole bootstrap); Hesterberg 2015 (expanded percentiles,
    there for one-way data); Cameron, Gelbach and Miller 2011 for V.
    """
    seeds, items = values_SI.shape
    if seeds < 2 or items < 2:
        raise ValueError(
            f"{seeds} seeds x {items} items: an interval needs two of each"
        )
    mean = float(values_SI.mean())
    rng = np.random.default_rng(seed)
    means_J = np.concatenate(
        [
            _resampled_means(values_SI, rng, min(CHUNK, resamples - done))
            for done in range(0, resamples, CHUNK)
        ]
    )
    variance, freedom = _two_way_variance(values_SI)
    if means_J.var() == 0:
        return Interval(mean, mean, mean)
    quantile = special.stdtrit(freedom, 0.5 + confidence / 2)
    tail = special.ndtr(-quantile * np.sqrt(variance / means_J.var()))
    low, high = np.quantile(means_J, [tail, 1 - tail])
    return Interval(mean, float(low), float(high))


def _resampled_means(
    values_SI: np.ndarray, rng: np.random.Generator, resamples: int
) -> np.ndarray:
    """One chunk of bootstrap means, [J]."""
    seeds, items = values_SI.shape
    weights_JS = rng.multinomial(seeds, np.full(seeds, 1 / seeds), resamples) / seeds
    drawn_JI = rng.integers(items, size=(resamples, items))
    # Counting draws is ten times as fast as numpy's multinomial of many categories.
    drawn_JI += items * np.arange(resamples)[:, None]
    counts = np.bincount(drawn_JI.ravel(), minlength=resamples * items)
    counts_JI = counts.reshape(resamples, items)
    return ((weights_JS @ values_SI) * counts_JI).sum(1) / items


def _two_way_variance(values_SI: np.ndarray) -> tuple[float, float]:
    """Variance of the grand mean of crossed seeds x items, and its degrees of freedom.

    Rows' means vary by seed and interaction, columns' by item and interaction; added,
    the interaction is in twice, so it is taken out once.
    """
    seeds, items = values_SI.shape
    rows_S, columns_I = values_SI.mean(1), values_SI.mean(0)
    rest_SI = values_SI - rows_S[:, None] - columns_I + values_SI.mean()
    by_seed = rows_S.var(ddof=1) / seeds
    by_item = columns_I.var(ddof=1) / items
    both = (rest_SI**2).sum() / ((seeds - 1) * (items - 1)) / (seeds * items)
    variance = max(by_seed + by_item - both, by_seed, by_item)
    pieces = by_seed**2 / (seeds - 1) + by_item**2 / (items - 1)
    freedom = (by_seed + by_item) ** 2 / pieces if pieces else seeds - 1.0
    return float(variance), float(freedom)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm-adjusted p-values, in the order given: below alpha = rejected in the family.

    Sorted ascending, p_(i) becomes max over j <= i of min(1, (m - j + 1) p_(j)).

    Source: Holm 1979.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def equivalence_test(differences_S: np.ndarray, *, margin: float, seed: int) -> float:
    """TOST: p-value of "the mean difference lies outside (-margin, margin)".

    Small p: as good as, within margin. It is the larger p of two one-sided sign-flip
    tests, of difference + margin and of margin - difference.

    Args:
      differences_S: paired differences, one per seed.
      margin: in their unit, above 0; to be fixed before looking.
      seed: as in sign_flip_test.

    Raises:
      ValueError: margin not above 0, or differences unusable.

    Source: Schuirmann 1987, with sign flips in place of his t tests.
    """
    if not margin > 0:
        raise ValueError(f"margin is {margin}; it must be above 0")
    return max(
        sign_flip_test(margin + differences_S, alternative="greater", seed=seed),
        sign_flip_test(margin - differences_S, alternative="greater", seed=seed),
    )


def smallest_detectable(
    differences_S: np.ndarray, *, alpha: float, power: float = 0.8
) -> float:
    """The true mean difference that this design would have found with `power`.

        (t_{1 - alpha/2} + t_{power}) x sd / sqrt(S),   t at S - 1 degrees of freedom

    with sd the observed standard deviation (ddof 1) of the paired differences. It is
    the paired t test's, which the sign-flip test nears as S grows.

    Raises:
      ValueError: fewer than two differences.
    """
    seeds = len(differences_S)
    if seeds < 2:
        raise ValueError(f"{seeds} difference: a standard deviation needs two")
    quantiles = special.stdtrit(seeds - 1, [1 - alpha / 2, power])
    return float(quantiles.sum() * differences_S.std(ddof=1) / np.sqrt(seeds))


def check_plan(seeds: int, claims: Collection, alpha: float) -> None:
    """Refuses a plan that could not pass whatever the outcome.

    With S seeds no exact two-sided sign-flip p is below 2 / 2^S, so in a family of m
    claims no Holm-adjusted one is below m x 2 / 2^S, which must itself be below alpha.

    Args:
      seeds: paired seeds per arm.
      claims: the family; only how many there are matters (none: nothing to refuse).
      alpha: level of the family, in (0, 1).

    Raises:
      InputError: too few seeds (says how many are needed; two at least, for an
        interval), or alpha out of range.
    """
    if seeds < 2:
        raise InputError(f"plan.seeds is {seeds}; set it to 2 or more: seeds must vary")
    if not 0 < alpha < 1:
        raise InputError(f"plan.alpha is {alpha!r}; it must be between 0 and 1")
    if claims and len(claims) * smallest_p(seeds) >= alpha:
        needed = next(
            (s for s in range(2, 65) if len(claims) * smallest_p(s) < alpha), None
        )
        advice = f"set plan.seeds to {needed}" if needed else "set plan.alpha higher"
        raise InputError(
            f"plan.seeds is {seeds}: with {len(claims)} claims the smallest possible"
            f" Holm p is {min(1.0, len(claims) * smallest_p(seeds)):.3g}, not below"
            f" alpha = {alpha:g}: nothing could pass; {advice} or more, or claim less"
        )


def smallest_p(seeds: int) -> float:
    """The smallest two-sided p that sign_flip_test can give with so many seeds."""
    return 2 * 2.0**-seeds if seeds <= EXACT_SEEDS else 1 / (1 + MONTE_CARLO_DRAWS)
