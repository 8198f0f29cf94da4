"""How far apart are runs that differ in chance alone, and where does it come from?

One score a seed: whether it spreads less (Brown-Forsythe), how often it is no better
than the most frequent class (Fisher), what share of it comes from the first weights and
what from the data order (a grid of both), what the best of k runs is worth.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from tljax.report.statistics import Interval


def spread_test(calm_S: np.ndarray, wild_S: np.ndarray) -> float:
    """One-sided p-value of "the calm scores spread no less than the wild ones".

    Levene's F of |score - median of its group| is, for two groups, the square of a t:
    half its p where the calm ones lie nearer to their median, else the other side.

    Args:
      calm_S: scores, one a seed, that are claimed to spread less.
      wild_S: the others; not paired, they may be more or fewer.

    Returns:
      p in [0, 1]; 1 where neither group varies.

    Raises:
      ValueError: fewer than three scores in a group, or one that is not finite.

    Source: Brown and Forsythe 1974, by scipy.stats.levene.
    """
    _check_scores(calm_S, wild_S, least=3)
    near_S, far_S = (np.abs(one_S - np.median(one_S)) for one_S in (calm_S, wild_S))
    nearer = near_S.mean() < far_S.mean()
    if near_S.std() == far_S.std() == 0:  # F would divide by them
        return 0.0 if nearer else 1.0
    p = float(stats.levene(calm_S, wild_S, center="median").pvalue)
    return p / 2 if nearer else 1 - p / 2


def spread_ratio(
    calm_S: np.ndarray, wild_S: np.ndarray, *, confidence: float = 0.95
) -> Interval:
    """SD(calm) / SD(wild), with an interval that does not ask for normal scores.

        ln ratio  +-  t sqrt(sum over groups of (k - (S - 3) / S) / (S - 1)) / 2

    with k the kurtosis of both groups together, about their trimmed means, so that a
    few lost runs do not pull the centre along. On the safe side where the spreads
    differ much or the scores fall in two heaps: 97 to 99 % (docs/statistics.md).

    Args:
      calm_S, wild_S: scores, one a seed.
      confidence: share of repetitions in which the interval holds the true ratio.

    Raises:
      ValueError: fewer than six scores in a group, one that is not finite, or a group
        that does not vary.

    Source: Bonett 2006, Applied Psychological Measurement 30(5), with Student's
    quantile in place of the normal one.
    """
    _check_scores(calm_S, wild_S, least=6)
    groups = (calm_S, wild_S)
    variances = np.array([scores_S.var(ddof=1) for scores_S in groups])
    if not variances.all():
        raise ValueError("scores that do not vary have no ratio of spreads")
    sizes = np.array([len(scores_S) for scores_S in groups])
    fourth = sum(
        ((one_S - stats.trim_mean(one_S, 0.5 / np.sqrt(len(one_S) - 4))) ** 4).sum()
        for one_S in groups
    )
    kurtosis = sizes.sum() * fourth / ((sizes - 1) * variances).sum() ** 2
    error = np.sqrt(((kurtosis - (sizes - 3) / sizes) / (sizes - 1)).sum())
    wide = special.stdtrit(sizes.sum() - 2, 0.5 + confidence / 2) * error
    log_ratio = np.log(variances[0] / variances[1])
    return Interval(*map(float, np.exp((log_ratio + np.array([0, -wide, wide])) / 2)))


def failure_threshold(most_frequent: float, items: int) -> float:
    """The score up to which a run has failed: not above the most frequent class.

    Args:
      most_frequent: share of the most frequent class among the items.
      items: scored.

    Returns:
      That share and two standard errors of it.
    """
    return most_frequent + 2 * (most_frequent * (1 - most_frequent) / items) ** 0.5


def failure_test(fewer: int, of: int, more: int, of_more: int) -> float:
    """One-sided p-value of "the first group fails no less often than the second".

    Args:
      fewer, of: failures and runs of the group that is claimed to fail less.
      more, of_more: of the other.

    Returns:
      Exact p; 1 where nothing failed in either.

    Source: Fisher 1935, by scipy.stats.fisher_exact.
    """
    table = [[fewer, of - fewer], [more, of_more - more]]
    return float(stats.fisher_exact(table, alternative="less").pvalue)


def failure_difference(fewer: int, of: int, more: int, of_more: int) -> Interval:
    """Difference of two failure rates, first - second, with its 95 % interval.

    Args:
      fewer, of, more, of_more: as in failure_test.

    Source: Newcombe 1998, method 10, from Wilson's intervals of each rate.
    """
    one, other = fewer / of, more / of_more
    first, second = (
        stats.binomtest(hits, runs).proportion_ci(method="wilson")
        for hits, runs in ((fewer, of), (more, of_more))
    )
    low = np.hypot(one - first.low, second.high - other)
    high = np.hypot(first.high - one, other - second.low)
    gap = one - other
    return Interval(gap, float(gap - low), float(gap + high))


@dataclass(frozen=True)
class Shares:
    """Where the variance of a grid comes from; the three shares sum to 1.

    `rest` is what neither explains alone: their interaction and everything else.
    `difference` is init - order.
    """

    init: Interval
    order: Interval
    rest: Interval
    difference: Interval


def variance_shares(
    scores_WO: np.ndarray, *, draws: int, seed: int, confidence: float = 0.95
) -> Shares:
    """Shares of variance of first weights (rows) and data order (columns).

        score_wo = mean + init_w + order_o + rest_wo,   all three drawn at random
        var_init = (MS_init - MS_rest) / O,  var_order = (MS_order - MS_rest) / W,
        var_rest = MS_rest,  each at least 0

    Intervals: each mean square is a variance times chi-square / its degrees of freedom;
    so draws of MS x df / chi-square, put into the same formulas, are draws of the
    shares. Resampling rows and columns instead gives intervals up to half as wide
    again that sometimes cover too seldom (docs/statistics.md).

    Args:
      scores_WO: one run for each of W first weights and O data orders.
      draws: of chi-squares.
      seed: of the draws.
      confidence: share of repetitions in which an interval holds the true share.

    Raises:
      ValueError: fewer than two rows or columns, a score that is not finite, or scores
        that do not vary.

    Source: Searle, Casella and McCulloch 1992 (ANOVA estimators); Burdick, Borror and
    Montgomery 2005 (generalized intervals of the same model); Dodge et al. 2020 asked.
    """
    seen, likely = _draw_shares(scores_WO, draws, seed)

    def interval(values, of_draws):
        tail = (1 - confidence) / 2
        low, high = np.quantile(of_draws, [tail, 1 - tail])
        return Interval(float(values[0]), float(low), float(high))

    parts = [interval(seen[:, i], likely[:, i]) for i in range(3)]
    gaps = [shares[:, 0] - shares[:, 1] for shares in (seen, likely)]
    return Shares(*parts, interval(*gaps))


def shares_alike(
    scores_WO: np.ndarray, *, margin: float, draws: int, seed: int
) -> float:
    """p-value of "the shares of init and order differ by `margin` or more".

    The larger part of the draws that lie beyond one end of (-margin, margin): both
    one-sided tests must reject, as in `statistics.equivalence_test`.

    Args:
      scores_WO, draws, seed: as in variance_shares.
      margin: between 0 and 1; to be fixed before looking.

    Raises:
      ValueError: as variance_shares, or margin not above 0.
    """
    if not margin > 0:
        raise ValueError(f"margin is {margin}; it must be above 0")
    _, likely = _draw_shares(scores_WO, draws, seed)
    gaps = likely[:, 0] - likely[:, 1]
    return float(max((gaps >= margin).mean(), (gaps <= -margin).mean()))


def _draw_shares(scores_WO, draws, seed) -> tuple[np.ndarray, np.ndarray]:
    """Shares of init, order and rest, [1, 3] as seen and [draws, 3] as drawn."""
    rows, columns = scores_WO.shape
    if rows < 2 or columns < 2:
        raise ValueError(f"{rows} x {columns} runs: shares need two rows and columns")
    _check_scores(scores_WO.ravel(), least=4)
    if scores_WO.std() == 0:
        raise ValueError("scores that do not vary have no shares")
    freedom = np.array([rows - 1, columns - 1, (rows - 1) * (columns - 1)])
    row_W, column_O = scores_WO.mean(1), scores_WO.mean(0)
    rest_WO = scores_WO - row_W[:, None] - column_O + scores_WO.mean()
    squares = np.array([row_W.var(), column_O.var(), rest_WO.var()]) * scores_WO.size
    drawn = np.random.default_rng(seed).chisquare(freedom, size=(draws, 3))
    return tuple(_shares(squares / by, rows, columns) for by in (freedom[None], drawn))


def _shares(mean_squares: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Mean squares of init, order and rest -> shares; both [draws, 3]."""
    init, order, rest = mean_squares.T
    parts = [np.maximum(0, (init - rest) / columns),
             np.maximum(0, (order - rest) / rows), rest]  # fmt: skip
    variances = np.stack(parts, axis=1)
    return variances / variances.sum(1, keepdims=True)


def expected_best(scores_S: np.ndarray, budgets: Sequence[int]) -> list[float]:
    """The best score to be expected of k runs, for each budget k.

        E_k = sum over i of score_(i) C(i - 1, k - 1) / C(S, k),   score_(i) ascending

    the mean of the best over all subsets of k of the S runs: without bias, where
    drawing with replacement (Dodge et al. 2019) expects too little.

    Args:
      scores_S: one score a run, as measured on validation items.
      budgets: numbers of runs, in [1, S].

    Raises:
      ValueError: a budget outside, or a score that is not finite.

    Source: Dodge et al. 2019; without bias as Tang et al. 2020 have it.
    """
    return [best.mean for best in _draw_best(scores_S, budgets)]


def spread_of_best(scores_S: np.ndarray, budgets: Sequence[int]) -> list[float]:
    """Standard deviation of the best of k runs, over all subsets of k of the S runs.

    Args, Raises, Source: as expected_best. It is 0 at k = S, where one subset is left:
    what other runs than these would give is not in it.
    """
    return [best.deviation for best in _draw_best(scores_S, budgets)]


@dataclass(frozen=True)
class _Best:
    mean: float
    deviation: float


def _draw_best(scores_S: np.ndarray, budgets: Sequence[int]) -> Iterator[_Best]:
    _check_scores(scores_S, least=1)
    runs = len(scores_S)
    for budget in budgets:
        if not 1 <= budget <= runs:
            raise ValueError(f"a budget of {budget} runs; {runs} runs are there")
    ascending_S = np.sort(scores_S)
    below_S = np.arange(runs)
    for k in budgets:
        ways_S, of = special.comb(below_S, k - 1), special.comb(runs, k)
        mean = float(ascending_S @ ways_S / of)
        variance = (ascending_S - mean) ** 2 @ ways_S / of
        yield _Best(mean, float(np.sqrt(variance)))


def _check_scores(*groups: np.ndarray, least: int) -> None:
    for scores_S in groups:
        if len(scores_S) < least or not np.isfinite(scores_S).all():
            raise ValueError(
                f"scores must be {least} or more finite numbers, got {scores_S}"
            )
