"""The words follow the verdicts; unwelcome results are said as plainly as welcome."""

from typing import Any

import numpy as np
import pytest

from tljax.report import records
from tljax.report.answer import answer
from tljax.report.baseline import compare_baseline
from tljax.report.markup import HARD


def claim(n: int, estimate: float, p: float, verdict: str) -> dict[str, Any]:
    return {
        "name": "transfer beats scratch",
        "arm": "transfer",
        "against": "scratch",
        "n": n,
        "estimate": estimate,
        "ci95": [estimate - 0.02, estimate + 0.02],
        "p": p,
        "p_holm": p,
        "verdict": verdict,
        "at_least": None,
    }


def summary(claims: list[dict], baseline: list[dict]) -> dict[str, Any]:
    return {
        "claims": claims,
        "alpha": 0.05,
        "baseline": baseline,
        "arms": {
            "transfer": {"50": {"mean": 0.55}, "100": {"mean": 0.60}},
            "tfidf": {"50": {"mean": 0.58}, "100": {"mean": 0.59}},
        },
    }


def plain(sentence: str) -> str:
    return sentence.replace(HARD, " ").replace("\N{NARROW NO-BREAK SPACE}", " ")


@pytest.mark.parametrize(
    ("claims", "opening"),
    [
        ([claim(50, 0.05, 0.02, "PASS"), claim(100, 0.06, 0.02, "PASS")], "Yes: "),
        (
            [claim(50, 0.01, 0.4, "INCONCLUSIVE"), claim(100, 0.06, 0.02, "PASS")],
            "In part: ",
        ),
        ([claim(50, 0.01, 0.4, "INCONCLUSIVE")], "Undecided: "),
        ([claim(50, -0.05, 0.02, "FAIL")], "No: "),
        ([], "No claim was declared"),
    ],
)
def test_opening(claims: list[dict], opening: str) -> None:
    assert answer(summary(claims, []))[0].startswith(opening)


def test_inconclusive_is_said_with_interval_and_p() -> None:
    claims = [claim(50, 0.011, 0.4, "INCONCLUSIVE"), claim(100, 0.06, 0.0234, "PASS")]
    first = plain(answer(summary(claims, []))[0])
    assert first == (
        "In part: transfer beats scratch at n = 100 (+6.0 points, 95 % interval +4.0 to"
        " +8.0, Holm p = .023); the difference transfer − scratch is inconclusive at"
        " n = 50 (+1.1 points, 95 % interval −0.9 to +3.1, Holm p = .400)."
    )


def test_many_sizes_are_told_together() -> None:
    claims = [claim(n, n / 10_000, 0.01 + n / 1e5, "PASS") for n in (50, 100, 200, 400)]
    first = plain(answer(summary(claims, []))[0])
    assert first == (
        "Yes: transfer beats scratch at n = 50, 100, 200 and 400 (+0.5 to +4.0 points,"
        " 95 % intervals within −1.5 to +6.0, Holm p .011 to .014)."
    )


def test_worse_and_smaller_than_claimed_are_told_apart() -> None:
    worse = answer(summary([claim(50, -0.05, 0.02, "FAIL")], []))[0]
    small = answer(summary([claim(50, 0.01, 0.02, "FAIL")], []))[0]
    assert "transfer is worse than scratch" in worse
    assert "does not beat scratch by as much as was claimed" in small


def test_a_winning_baseline_is_said_plainly() -> None:
    baseline = [
        {"n": 50, "estimate": -0.03, "ci95": [-0.05, -0.01], "p_holm": 0.02},
        {"n": 100, "estimate": 0.01, "ci95": [-0.01, 0.03], "p_holm": 0.4},
    ]
    second = plain(answer(summary([], baseline))[1])
    assert second == (
        "TF-IDF with logistic regression beats transfer at n = 50 (58.0 % against"
        " 55.0 %, +3.0 points, 95 % interval +1.0 to +5.0, Holm p = .020); cannot be"
        " told from transfer at n = 100 (59.0 % against 60.0 %, −1.0 points, 95 %"
        " interval −3.0 to +1.0, Holm p = .400)."
    )


def test_a_small_p_over_seeds_is_not_enough_where_the_interval_holds_zero() -> None:
    baseline = [{"n": 50, "estimate": -0.01, "ci95": [-0.02, 0.001], "p_holm": 0.01}]
    second = answer(summary([], baseline))[1]
    assert "cannot be told from transfer" in second and "beats" not in second


def test_compare_baseline_is_transfer_minus_tfidf_paired_by_seed() -> None:
    def predictions(correct: list[int]) -> records.Predictions:
        return records.Predictions(
            ids=("v", "w"),
            labels_I=np.zeros(2, np.int32),
            predictions_I=1 - np.array(correct, np.int32),
            probabilities_IC=np.full((2, 2), 0.5),
            classes=("a", "b"),
        )

    answers = {}
    for seed in range(3):
        for arm, correct in (("transfer", [1, 1]), ("tfidf", [0, 1])):
            run = records.Run(f"{arm}-{seed}", arm, 50, seed, arm != "tfidf")
            answers[run] = predictions(correct)
    (entry,) = compare_baseline(answers)
    assert entry["n"] == 50
    assert entry["estimate"] == 0.5
    assert entry["p"] == entry["p_holm"] == 2 / 2**3
    alone = {run: found for run, found in answers.items() if run.arm == "transfer"}
    assert compare_baseline(alone) == []
