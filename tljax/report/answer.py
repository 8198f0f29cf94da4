"""The answer in two sentences of plain text, for the page's head and for the terminal.

The first is about the declared claims (does pre-training help, where, by how much, how
sure); the second says how transfer stands to TF-IDF, and says it plainly when it loses.
Words follow from the numbers alone; none is left out because it is unwelcome.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tljax.report.drawing import arm_style
from tljax.report.markup import (
    HARD,
    labels,
    listing,
    p_phrase,
    p_value,
    percent,
    points,
)

IN_FULL = 3  # sizes told one by one; the tables have them all


def answer(summary: Mapping[str, Any]) -> tuple[str, str]:
    """The two sentences, from summary.json's content."""
    first = _about_claims(summary["claims"], alpha=summary["alpha"])
    return first, _about_baseline(summary)


def lost_runs(summary: Mapping[str, Any]) -> str:
    """One line on runs whose loss was not finite, from summary.json; '' without any."""
    lost = summary.get("lost_runs", [])
    if not lost:
        return ""
    return (
        f"{len(lost)} run{'s' * (len(lost) > 1)} whose loss was not finite, counted as"
        f" predicting every class equally: {', '.join(lost)}."
    )


def judgement(claim: Mapping[str, Any], *, alpha: float) -> str:
    """A verdict with its reason: 'pass', 'worse', 'too small' or 'open'."""
    if claim["verdict"] == "PASS":
        return "pass"
    if claim["verdict"] == "FAIL":
        harmed = claim["p_holm"] < alpha and claim["estimate"] < 0
        return "worse" if harmed else "too small"
    return "open"


_WORDS = {
    "pass": "{arm} beats {against} {claims}",
    "worse": "{arm} is worse than {against} {claims}",
    "too small": "{arm} does not beat {against} by as much as was claimed {claims}",
    "open": "the difference {arm} − {against} is inconclusive {claims}",
}


def _about_claims(claims: Sequence[Mapping[str, Any]], *, alpha: float) -> str:
    if not claims:
        return (
            "No claim was declared before the runs, so nothing is concluded about"
            " pre-training; the numbers below only describe."
        )
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for kind in _WORDS:
        for claim in claims:
            if judgement(claim, alpha=alpha) == kind:
                key = (kind, claim["arm"], claim["against"])
                groups.setdefault(key, []).append(claim)
    parts = [
        _WORDS[kind].format(
            arm=arm_style(arm).label,
            against=arm_style(against).label,
            claims=_where(found),
        )
        for (kind, arm, against), found in groups.items()
    ]
    return f"{_opening(claims, alpha=alpha)}: {'; '.join(parts)}."


def _opening(claims: Sequence[Mapping[str, Any]], *, alpha: float) -> str:
    """One word on 'does pre-training help?', from the claims against scratch."""
    asked = [c for c in claims if (c["arm"], c["against"]) == ("transfer", "scratch")]
    kinds = {judgement(claim, alpha=alpha) for claim in asked or claims}
    if kinds == {"pass"}:
        return "Yes"
    if "pass" in kinds:
        return "In part"
    return "Undecided" if "open" in kinds else "No"


def _where(entries: Sequence[Mapping[str, Any]]) -> str:
    """'at n = … (estimate, interval, p)' of each; of many, what holds for all of them.

    Args:
      entries: with n, estimate, ci95, p_holm; optionally "means", the two compared.
    """
    if len(entries) > IN_FULL:
        return _together(entries)
    parts = []
    for entry in entries:
        low, high = entry["ci95"]
        means = [percent(mean) for mean in entry.get("means", ())]
        inside = [
            *([" against ".join(means)] if means else []),
            f"{points(entry['estimate'])} points",
            f"95{HARD}% interval {points(low)} to {points(high)}",
            p_phrase(entry["p_holm"], "Holm p"),
        ]
        parts.append(f"at {labels(entry['n'])} ({', '.join(inside)})")
    return listing(parts)


def _together(entries: Sequence[Mapping[str, Any]]) -> str:
    """Many sizes in one bracket: the range of estimates, intervals and p."""
    sizes = listing([f"{entry['n']:,}" for entry in entries])
    estimates = [entry["estimate"] for entry in entries]
    low = min(entry["ci95"][0] for entry in entries)
    high = max(entry["ci95"][1] for entry in entries)
    ps = [entry["p_holm"] for entry in entries]
    least, most = p_value(min(ps)), p_value(max(ps))
    p_range = least if least == most else f"{least} to {most}"
    return (
        f"at n{HARD}= {sizes} ({points(min(estimates))} to {points(max(estimates))}"
        f" points, 95{HARD}% intervals within {points(low)} to {points(high)},"
        f" Holm{HARD}p{HARD}{p_range})"
    )


def _about_baseline(summary: Mapping[str, Any]) -> str:
    entries = summary.get("baseline") or []
    if not entries:
        return (
            "No TF-IDF baseline was run, so whether a cheaper way does as well is open."
        )
    groups: dict[str, list[Mapping[str, Any]]] = {"beats": [], "loses": [], "open": []}
    for entry in entries:
        low, high = entry["ci95"]
        # other test items might say otherwise where the interval holds zero
        sure = entry["p_holm"] < summary["alpha"] and low * high > 0
        kind = ("beats" if entry["estimate"] < 0 else "loses") if sure else "open"
        arms, n = summary["arms"], str(entry["n"])
        # Told from TF-IDF's side: the entry's difference is transfer − TF-IDF.
        turned = {
            "means": [arms["tfidf"][n]["mean"], arms["transfer"][n]["mean"]],
            "estimate": -entry["estimate"],
            "ci95": [-entry["ci95"][1], -entry["ci95"][0]],
        }
        groups[kind].append({**entry, **turned})
    words = {
        "beats": "beats transfer",
        "loses": "loses to transfer",
        "open": "cannot be told from transfer",
    }
    parts = [
        f"{words[kind]} {_where(found)}" for kind, found in groups.items() if found
    ]
    return f"TF-IDF with logistic regression {'; '.join(parts)}."
