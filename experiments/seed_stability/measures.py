"""What claims about seeds are made of: spread, failures, sources of variance.

Unpaired, but for accuracy: each arm's test accuracies are a sample of their own.

statistic   estimate                                          p, one-sided
spread      log2 of SD / SD: +1 is twice the spread           Brown-Forsythe
failures    difference of failure rates                       Fisher
sources     share of first weights - share of data order      draws of shares, as TOST
"""

import numpy as np

from experiments.ablation.claims import STATISTICS as ABLATION
from experiments.ablation.claims import Evidence, Finding, Statistic
from experiments.ablation.settings import Claim
from tljax.report import records, spread
from tljax.report.summary import SEED

DRAWS = 20_000
SIDES = ("first weights", "data order")
UNKNOWN = 10.0  # doublings: the ratio to an arm whose seeds do not differ at all


def scores(evidence: Evidence, arm: str) -> np.ndarray:
    """[S], test accuracy of every seed."""
    answers = evidence.answers("test")
    return np.array([answers[run].correct_I.mean() for run in evidence.arms[arm]])


def threshold(evidence: Evidence) -> float:
    """The test accuracy up to which a run has failed."""
    labels_I = next(iter(evidence.answers("test").values())).labels_I
    most_frequent = np.bincount(labels_I).max() / len(labels_I)
    return spread.failure_threshold(most_frequent, len(labels_I))


def failed(evidence: Evidence, arm: str) -> int:
    """How many of an arm's runs have failed."""
    return int((scores(evidence, arm) <= threshold(evidence)).sum())


def grid_scores(evidence: Evidence, orders: int) -> np.ndarray:
    """[W, O], test accuracy of every first weights with every data order."""
    answers = evidence.answers("test")
    found = [answers[run].correct_I.mean() for run in evidence.grid]
    return np.array(found).reshape(-1, orders)


def orders_of(evidence: Evidence) -> int:
    """How many data orders the grid has, read off its runs."""
    seeds = [
        records.load_json(run.folder / "config.json")["seeds"] for run in evidence.grid
    ]
    return len({one["order"] for one in seeds})


def _spread(evidence: Evidence, claim: Claim, alpha: float) -> Finding:
    wild_S, calm_S = (scores(evidence, arm) for arm in (claim.arm, claim.against))
    middle, low, high, p = 0.0, -UNKNOWN, UNKNOWN, 1.0
    if np.ptp(wild_S) > 0 and np.ptp(calm_S) > 0:
        found = spread.spread_ratio(wild_S, calm_S)
        middle, low, high = np.log2([found.mean, found.low, found.high])
        p = spread.spread_test(calm_S, wild_S)
    return Finding(
        means=(float(wild_S.std(ddof=1)), float(calm_S.std(ddof=1))),
        estimate=float(middle),
        ci95=(float(low), float(high)),
        p=p,
        smallest_detectable=None,
        in_favour=None,
        one_sided=True,
        sides=(f"SD of {claim.arm}", f"SD of {claim.against}"),
    )


def _failures(evidence: Evidence, claim: Claim, alpha: float) -> Finding:
    more, fewer = (failed(evidence, arm) for arm in (claim.arm, claim.against))
    of_more, of = (len(evidence.arms[arm]) for arm in (claim.arm, claim.against))
    found = spread.failure_difference(more, of_more, fewer, of)
    return Finding(
        means=(more / of_more, fewer / of),
        estimate=found.mean,
        ci95=(found.low, found.high),
        p=spread.failure_test(fewer, of, more, of_more),
        smallest_detectable=None,
        in_favour=None,
        one_sided=True,
    )


def _sources(evidence: Evidence, claim: Claim, alpha: float) -> Finding:
    scores_WO = grid_scores(evidence, orders_of(evidence))
    if np.ptp(scores_WO) == 0:
        return Finding((0.0, 0.0), 0.0, (-1.0, 1.0), 1.0, None, None, True, SIDES)
    found = spread.variance_shares(scores_WO, draws=DRAWS, seed=SEED)
    p = spread.shares_alike(scores_WO, margin=claim.margin, draws=DRAWS, seed=SEED)
    return Finding(
        means=(found.init.mean, found.order.mean),
        estimate=found.difference.mean,
        ci95=(found.difference.low, found.difference.high),
        p=p,
        smallest_detectable=None,
        in_favour=None,
        one_sided=True,
        sides=SIDES,
    )


STATISTICS = {
    "accuracy": ABLATION["accuracy"],
    "train_loss": ABLATION["train_loss"],
    "spread": Statistic(
        "SD between seeds", "doublings", _spread, rules=("more",),
        test="Brown-Forsythe, one-sided",
    ),
    "failures": Statistic(
        "Failed runs", "points", _failures, rules=("more",),
        test="Fisher's exact test, one-sided",
    ),
    "sources": Statistic(
        "Share of variance", "points", _sources, rules=("same",), grid=True,
        test="draws of the shares of a grid",
    ),
}  # fmt: skip
