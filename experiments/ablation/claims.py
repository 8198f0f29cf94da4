"""Claims of papers, measured on our runs and judged by the rule fixed beforehand.

records of two arms -> differences_SI -> estimate, interval, p of the rule -> verdict

rule      room that must be above 0   test over seeds
more      difference                  exact sign flips, two-sided
no_worse  difference + margin         the same, one-sided
same      margin - |difference|       TOST
The verdict is that of tljax/report/claims.py on the room: INCONCLUSIVE is no FAIL.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from experiments.ablation.settings import RULES, Claim
from tljax.report import records, statistics
from tljax.report.claims import verdict
from tljax.report.summary import RESAMPLES, SEED
from tljax.settings import InputError


class Evidence:
    """The records of all arms' runs, and of the grid's, each read once."""

    def __init__(
        self,
        arms: Mapping[str, tuple[records.Run, ...]],
        grid: tuple[records.Run, ...] = (),
    ):
        self.arms, self.grid = arms, grid
        self._answers: dict[str, dict[records.Run, records.Predictions]] = {}
        self._metrics: dict[records.Run, list[dict[str, Any]]] = {}

    @property
    def runs(self) -> list[records.Run]:
        """Every run, the grid's last."""
        return [*(run for found in self.arms.values() for run in found), *self.grid]

    def answers(self, split: str) -> dict[records.Run, records.Predictions]:
        """What every run says of a split's items, in one order."""
        if split not in self._answers:
            self._answers[split] = records.load_aligned(self.runs, split)
        return self._answers[split]

    def metrics(self, run: records.Run) -> list[dict[str, Any]]:
        """A run's records while it trained."""
        if run not in self._metrics:
            self._metrics[run] = records.load_metrics(run.folder)
        return self._metrics[run]

    def is_lost(self, run: records.Run) -> bool:
        """Whether its loss was not finite: it counts as knowing nothing."""
        stopped = self.metrics(run)[-1].get("stopped", {})
        return stopped.get("reason") == "not finite"

    def chance(self) -> float:
        """Accuracy of a run that was lost: every class equally."""
        return 1 / len(next(iter(self.answers("test").values())).classes)


# A measure gives float64 [S, I]: of every seed and item, or [S, 1] of every seed.
Measure = Callable[[Evidence, str, str], np.ndarray]


def accuracy(evidence: Evidence, arm: str, split: str) -> np.ndarray:
    """[S, I], 1 where the run's prediction is the item's label."""
    answers = evidence.answers(split)
    return np.stack([answers[run].correct_I for run in evidence.arms[arm]])


def train_loss(evidence: Evidence, arm: str, split: str) -> np.ndarray:
    """[S, 1], nats an item: mean of the last round of training, before each step."""

    def last(run):
        if evidence.is_lost(run):
            return -np.log(evidence.chance())
        return _curve(evidence, run, "train", "loss_nats")[-1]

    return np.array([[last(run)] for run in evidence.arms[arm]])


def late_degradation(evidence: Evidence, arm: str, split: str) -> np.ndarray:
    """[S, 1], shares of the validation items: error at the end - error at its best."""

    def lost(run):
        found = _curve(evidence, run, "validation", "accuracy")
        end = evidence.chance() if evidence.is_lost(run) else found[-1]
        return max([*found, end]) - end

    return np.array([[lost(run)] for run in evidence.arms[arm]])


def _curve(evidence: Evidence, run: records.Run, split: str, key: str) -> np.ndarray:
    values = records.curve(evidence.metrics(run), split=split, key=key)[1]
    if not len(values):
        raise InputError(
            f"{run.folder / 'metrics.jsonl'} has no {split} {key}; start the same"
            " command again"
        )
    return values


@dataclasses.dataclass(frozen=True)
class Finding:
    """What was found about one claim.

    Attributes:
      means: of the arm and of the other, over seeds and items.
      estimate: their difference, or what else the statistic is about.
      ci95: its interval.
      p: of the claim's rule, before Holm.
      smallest_detectable: true difference found 4 times in 5; None where unknown.
      in_favour: seeds whose difference has the claimed sign; None where unpaired.
      one_sided: whether p is: then the interval alone can speak against the claim.
      sides: what the two means are of; () = the two arms.
    """

    means: tuple[float, float]
    estimate: float
    ci95: tuple[float, float]
    p: float
    smallest_detectable: float | None
    in_favour: int | None
    one_sided: bool = False
    sides: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Statistic:
    """What a claim may be about.

    Attributes:
      title: of the report's column.
      unit: 'points' (shares, shown in percent) or another word, shown as it is.
      find: (evidence, claim, alpha of the smallest detectable effect) -> Finding.
      measure: of one arm, for the table of all; None where only pairs have it.
      validations: that a run must make on its way for the measure to mean something.
      rules: that a claim about it may have.
      test: what p is of.
      grid: whether it is about the grid, and no arms.
    """

    title: str
    unit: str
    find: Callable[[Evidence, Claim, float], Finding]
    measure: Measure | None = None
    validations: int = 0
    rules: tuple[str, ...] = RULES
    test: str = "exact sign flips over paired seeds"
    grid: bool = False


def paired(
    title: str, unit: str, measure: Measure, *, validations: int = 0
) -> Statistic:
    """The difference of a measure between two arms, seed by seed."""

    def find(evidence: Evidence, claim: Claim, alpha: float) -> Finding:
        more_SI, less_SI = (
            measure(evidence, arm, claim.split) for arm in (claim.arm, claim.against)
        )
        differences_SI = more_SI - less_SI
        differences_S = differences_SI.mean(1)
        return Finding(
            means=(float(more_SI.mean()), float(less_SI.mean())),
            estimate=float(differences_S.mean()),
            ci95=interval(differences_SI),
            p=_p_value(differences_S, claim),
            smallest_detectable=statistics.smallest_detectable(
                differences_S, alpha=alpha
            ),
            in_favour=int((differences_S > 0).sum()),
        )

    return Statistic(title, unit, find, measure, validations)


def interval(values_SI: np.ndarray) -> tuple[float, float]:
    """95 % of the mean: bootstrap over seeds and items; of seeds alone Student's t."""
    if values_SI.shape[1] > 1:
        found = statistics.hierarchical_bootstrap(
            values_SI, resamples=RESAMPLES, seed=SEED
        )
        return found.low, found.high
    values_S = values_SI[:, 0]
    if np.ptp(values_S) == 0:  # t would divide by 0
        return float(values_S[0]), float(values_S[0])
    found = stats.ttest_1samp(values_S, 0).confidence_interval(0.95)
    return float(found.low), float(found.high)


def _p_value(differences_S: np.ndarray, claim: Claim) -> float:
    if claim.rule == "more":
        return statistics.sign_flip_test(differences_S, seed=SEED)
    if claim.rule == "same":
        return statistics.equivalence_test(
            differences_S, margin=claim.margin, seed=SEED
        )
    return statistics.sign_flip_test(
        differences_S + claim.margin, alternative="greater", seed=SEED
    )


STATISTICS = {
    "accuracy": paired("Accuracy", "points", accuracy),
    "train_loss": paired("Last training loss", "nats", train_loss),
    "late_degradation": paired(
        "Late degradation", "points", late_degradation, validations=2
    ),
}


def judge(
    claims: Sequence[Claim],
    evidence: Evidence,
    known: Mapping[str, Statistic],
    *,
    alpha: float,
) -> list[dict[str, Any]]:
    """One row a claim for summary.json: the paper's number, ours and the verdict.

    Args:
      claims: the family, as fixed before any run.
      evidence: of all arms.
      known: the experiment's statistics.
      alpha: level of the family.
    """
    found = [
        known[claim.statistic].find(evidence, claim, alpha / len(claims))
        for claim in claims
    ]
    adjusted = statistics.holm([one.p for one in found])
    return [
        {
            **dataclasses.asdict(claim),
            "unit": known[claim.statistic].unit,
            **dataclasses.asdict(one),
            "means": list(one.means),  # as JSON has them
            "ci95": list(one.ci95),
            "sides": list(one.sides or (claim.arm, claim.against)),
            "p_holm": p_holm,
            "verdict": judgement(claim, one, p_holm=p_holm, alpha=alpha),
        }
        for claim, one, p_holm in zip(claims, found, adjusted, strict=True)
    ]


def judgement(claim: Claim, found: Finding, *, p_holm: float, alpha: float) -> str:
    """PASS, FAIL or INCONCLUSIVE by the claim's rule (head of this file)."""
    estimate, (low, high) = found.estimate, found.ci95
    at_least = claim.margin or (0.0 if found.one_sided else None)
    if claim.rule == "no_worse":
        shift = claim.margin
        estimate, low, high, at_least = estimate + shift, low + shift, high + shift, 0.0
    if claim.rule == "same":
        near = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
        far = max(abs(low), abs(high))
        estimate = claim.margin - abs(estimate)
        low, high, at_least = claim.margin - far, claim.margin - near, 0.0
    return verdict(
        estimate=estimate,
        ci95=(low, high),
        p_holm=p_holm,
        alpha=alpha,
        at_least=at_least,
    )
