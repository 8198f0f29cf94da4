"""What was claimed before any run, and how a claim is judged; never changed afterwards.

Verdict of a claim "arm beats against at n (by at least `at_least`)":
  PASS          Holm p < alpha, estimate > 0, and estimate >= at_least
  FAIL          Holm p < alpha and estimate < 0, or ci95 lies wholly below at_least
  INCONCLUSIVE  anything else; see smallest_detectable for what could have been seen
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tljax.report import statistics
from tljax.settings import InputError


@dataclass(frozen=True)
class Claim:
    """`arm` has a higher test accuracy than `against` with n labels."""

    name: str
    arm: str
    against: str
    n: int
    at_least: float | None = None


@dataclass(frozen=True)
class Plan:
    """What was fixed before any run: labels per run, seeds, level, family of claims."""

    sizes: tuple[int, ...]
    seeds: int
    alpha: float
    claims: tuple[Claim, ...]


def read_plan(config: Mapping[str, Any], where: str) -> Plan:
    """The "plan" of an experiment's config. Raises: InputError naming the bad key."""
    try:
        plan = config["plan"]
        claims = tuple(Claim(**claim) for claim in plan["claims"])
        found = Plan(tuple(plan["sizes"]), plan["seeds"], plan["alpha"], claims)
    except KeyError as error:
        raise InputError(
            f"{where} lacks {error}; a plan has sizes, seeds, alpha and claims"
        ) from None
    except TypeError as error:
        raise InputError(
            f"{where}: plan.claims are objects of name, arm, against, n and, if wanted,"
            f" at_least ({error})"
        ) from None
    for n in (*found.sizes, *(claim.n for claim in claims)):
        if n < 1 or n not in found.sizes:
            raise InputError(
                f"{where}: plan.sizes is {list(found.sizes)}; it must hold numbers"
                " above 0 (for all labels, how many they are), with those of the"
                f" claims among them: {n} does not fit"
            )
    names = [(claim.name, claim.n) for claim in claims]
    if len(set(names)) < len(names) or not found.sizes:
        raise InputError(f"{where}: plan.sizes is empty, or two claims are the same")
    statistics.check_plan(found.seeds, found.claims, found.alpha)
    return found


def verdict(
    *,
    estimate: float,
    ci95: tuple[float, float],
    p_holm: float,
    alpha: float,
    at_least: float | None,
) -> str:
    """PASS, FAIL or INCONCLUSIVE by the rule at the head of this file.

    `at_least` None or 0 claims a direction only; with None an interval below 0 alone,
    without the Holm-adjusted test, does not make a FAIL.
    """
    significant = p_holm < alpha
    if significant and estimate > 0 and (at_least is None or estimate >= at_least):
        return "PASS"
    if significant and estimate < 0:
        return "FAIL"
    if at_least is not None and ci95[1] < at_least:
        return "FAIL"
    return "INCONCLUSIVE"


def told(claims: Sequence[Mapping[str, Any]]) -> str:
    """A summary's judged claims in one line: 'PASS: a; b. INCONCLUSIVE: c.'"""
    lines = []
    for word in ("PASS", "FAIL", "INCONCLUSIVE"):
        names = [claim["name"] for claim in claims if claim["verdict"] == word]
        if names:
            lines.append(f"{word}: {'; '.join(names)}.")
    return " ".join(lines) or "No claim was declared before the runs."
