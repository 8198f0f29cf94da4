"""Plans that are refused, and verdicts at the edges of their rule."""

import re

import pytest

from tljax.report.claims import Claim, Plan, read_plan, told, verdict
from tljax.settings import InputError

CLAIM = {"name": "gain", "arm": "transfer", "against": "scratch", "n": 50}
PLAN = {
    "sizes": [50, 100],
    "seeds": 8,
    "alpha": 0.05,
    "claims": [CLAIM, CLAIM | {"n": 100, "at_least": 0.04}],
}


def test_a_plan_is_read():
    assert read_plan({"plan": PLAN, "seed": 1}, "config.json") == Plan(
        sizes=(50, 100),
        seeds=8,
        alpha=0.05,
        claims=(
            Claim("gain", "transfer", "scratch", 50, None),
            Claim("gain", "transfer", "scratch", 100, 0.04),
        ),
    )


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({k: PLAN[k] for k in ("sizes", "seeds", "alpha")}, "lacks 'claims'"),
        (PLAN | {"claims": [{"name": "x"}]}, "plan.claims are objects"),
        (PLAN | {"claims": [CLAIM | {"bet": 1}]}, "'bet'"),
        (PLAN | {"sizes": [100]}, "50 does not fit"),
        (PLAN | {"sizes": [0, 50, 100]}, "0 does not fit"),
        (PLAN | {"claims": [CLAIM] * 2}, "two claims are the same"),
        (PLAN | {"seeds": 6}, "set plan.seeds to 7"),
    ],
)
def test_bad_plans_are_refused(plan, message):
    with pytest.raises(InputError, match=re.escape(message)):
        read_plan({"plan": plan}, "config.json")


@pytest.mark.parametrize(
    ("estimate", "ci95", "p_holm", "at_least", "want"),
    [
        (0.05, (0.02, 0.08), 0.01, None, "PASS"),
        (0.05, (0.02, 0.08), 0.01, 0.05, "PASS"),
        (0.05, (0.02, 0.08), 0.05, 0.0, "INCONCLUSIVE"),  # p < alpha is strict
        (0.05, (0.02, 0.08), 0.01, 0.06, "INCONCLUSIVE"),  # .06 is within reach
        (0.05, (0.02, 0.08), 0.01, 0.09, "FAIL"),  # real, but smaller than claimed
        (-0.05, (-0.08, -0.02), 0.01, None, "FAIL"),
        (-0.05, (-0.08, -0.02), 0.20, None, "INCONCLUSIVE"),
        (-0.05, (-0.08, -0.02), 0.20, 0.0, "FAIL"),
        (-0.05, (-0.12, 0.02), 0.20, 0.0, "INCONCLUSIVE"),
        (0.0, (0.0, 0.0), 1.0, 0.0, "INCONCLUSIVE"),
    ],
)
def test_verdicts(estimate, ci95, p_holm, at_least, want):
    found = verdict(
        estimate=estimate, ci95=ci95, p_holm=p_holm, alpha=0.05, at_least=at_least
    )
    assert found == want


def test_judged_claims_are_told_by_verdict_in_one_line():
    claims = [
        {"name": name, "verdict": verdict}
        for name, verdict in (("a", "FAIL"), ("b", "PASS"), ("c", "FAIL"))
    ]
    assert told(claims) == "PASS: b. FAIL: a; c."
    assert told([]) == "No claim was declared before the runs."
