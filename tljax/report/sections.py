"""What report.html says first: answer, curve, results, claims, contamination.

Each section is a function of summary.json's content and returns HTML.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tljax.report import figures
from tljax.report.answer import answer, lost_runs
from tljax.report.drawing import arm_order
from tljax.report.markup import (
    arm_html,
    duration,
    escape,
    listing,
    p_value,
    percent,
    points,
    section,
    table,
    wide_figure,
)


def answer_html(summary: Mapping[str, Any]) -> str:
    """The two sentences, and the four figures one asks for next."""
    multiplier = summary["label_multiplier"]
    facts = [
        (
            f"{_bounded(multiplier['value'], multiplier['bound'])} ×",
            f"as many labels needed from scratch to equal transfer at n ="
            f" {multiplier['n']:,} (95 % interval {_interval(multiplier)})",
        ),
        (
            f"{summary['bits_per_byte']['value']:.2f}",
            "bits per byte of held-out text after pre-training",
        ),
        (
            duration(sum(summary["phases_seconds"].values())),
            "of computing, from raw text to this page",
        ),
    ]
    boxes = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for value, name in facts
    )
    first, second = answer(summary)
    lead, colon, rest = first.partition(":")
    if colon:
        first_html = f"<strong>{escape(lead)}</strong>:{escape(rest)}"
    else:
        first_html = escape(first)
    return (
        f'<div class="answer"><p>{first_html}</p><p>{escape(second)}</p></div>'
        f'<dl class="facts">{boxes}</dl>'
    )


def _bounded(value: float, bound: str) -> str:
    sign = {"exact": "", "at least": "≥ ", "at most": "≤ "}[bound]
    return f"{sign}{value:.1f}"


def _interval(multiplier: Mapping[str, Any]) -> str:
    ends = zip(multiplier["ci95"], multiplier["ci95_bounds"], strict=True)
    return " to ".join(_bounded(value, bound) for value, bound in ends)


def efficiency_html(summary: Mapping[str, Any], *, chance: float | None) -> str:
    """The label-efficiency curve."""
    drawn = figures.label_efficiency_svg(summary["arms"], chance=chance)
    caption = (
        "Mean test accuracy over seeds with its 95 % interval (hierarchical bootstrap"
        " over seeds and test items); each pale dot is one seed. At each n the arms"
        " stand side by side so that intervals can be told apart."
    )
    return section("Accuracy for labels", wide_figure(drawn, caption))


def results_html(summary: Mapping[str, Any]) -> str:
    """Arm × n: mean, 95 % interval and standard deviation over seeds; best in bold."""
    arms = summary["arms"]
    order = arm_order(list(arms))
    rows = []
    for n in sorted({n for found in arms.values() for n in found}, key=int):
        best = max(found[n]["mean"] for found in arms.values() if n in found)
        cells = [_result(arms[arm].get(n), best=best) for arm in order]
        rows.append([f"{int(n):,}", *cells])
    seeds = sorted(
        {len(row["values"]) for found in arms.values() for row in found.values()}
    )
    lost = escape(lost_runs(summary))
    note = (
        f"Test accuracy in per cent over {' or '.join(map(str, seeds))} seeds: mean,"
        " 95 % interval, standard deviation between seeds. Best mean of a row in bold."
    )
    return section(
        "Results",
        table(["n", *map(arm_html, order)], rows),
        f'<p class="note">{" ".join(filter(None, (note, lost)))}</p>',
    )


def _result(row: Mapping[str, Any] | None, *, best: float = -1.0) -> str:
    if row is None:
        return "–"
    mean = f"{100 * row['mean']:.1f}"
    if row["mean"] == best:
        mean = f"<strong>{mean}</strong>"
    low, high = (100 * bound for bound in row["ci95"])
    cell = f'{mean} <span class="quiet">[{low:.1f}, {high:.1f}]</span>'
    if len(row.get("values", ())) > 1:
        deviation = 100 * np.std(row["values"], ddof=1)
        cell += f' <span class="quiet">sd {deviation:.1f}</span>'
    return cell


def claims_html(summary: Mapping[str, Any]) -> str:
    """The claims declared beforehand, with verdicts and the rule that gave them."""
    rows = []
    for claim in summary["claims"]:
        low, high = claim["ci95"]
        verdict = escape(claim["verdict"])
        rows.append(
            [
                escape(claim["name"]),
                f"{claim['n']:,}",
                points(claim["estimate"]),
                f"{points(low)} to {points(high)}",
                p_value(claim["p"]),
                p_value(claim["p_holm"]),
                f"{100 * claim['smallest_detectable']:.1f}",
                f'<span class="verdict {verdict.lower()}">{verdict}</span>',
            ]
        )
    head = [
        "Claim",
        "n",
        "Estimate",
        "95 % interval",
        "p",
        "Holm p",
        "Detectable",
        "Verdict",
    ]
    note = (
        f"{_rule(summary)} Estimate, interval and smallest detectable effect are in"
        " percentage points of test accuracy."
    )
    return section(
        "Claims declared beforehand", table(head, rows), f'<p class="note">{note}</p>'
    )


def _rule(summary: Mapping[str, Any]) -> str:
    claims, alpha = summary["claims"], f"{summary['alpha']:g}"
    least = [claim["at_least"] for claim in claims if claim["at_least"] is not None]
    rule = (
        f"The rule was fixed before any run: an exact two-sided sign-flip test over the"
        f" {summary['seeds']} seeds, paired, for each claim; p-values adjusted by Holm"
        f" over the family of {len(claims)}. PASS: Holm p below {alpha} and a positive"
        " difference"
    )
    if least:
        rule += ", at least as large as claimed"
    rule += f". FAIL: Holm p below {alpha} and a negative one"
    if least:
        rule += ", or an interval wholly below what was claimed"
    return (
        f"{rule}. INCONCLUSIVE: anything else; “detectable” is the true difference that"
        f" this design would have found four times in five at level {alpha} /"
        f" {len(claims)}."
    )


def contamination_html(found: Mapping[str, Any]) -> str:
    """How much of the test set also stands in the pre-training text, and what then."""
    seen = found["test_items"] - found["clean_items"]
    first = (
        f"{seen:,} of {found['test_items']:,} test items ({percent(found['share'])})"
        f" hold a run of {found['ngram']} words that also stands in the text that the"
        f" language model read. The results on the {found['clean_items']:,} others:"
    )
    order = arm_order(list(found["arms"]))
    rows = [
        [f"{int(n):,}", *(_result(found["arms"][arm].get(n)) for arm in order)]
        for n in sorted({n for rows in found["arms"].values() for n in rows}, key=int)
    ]
    if not rows:
        return section("Contamination", f"<p>{first} too few to measure.</p>")
    note = ""
    if found["differences"]:
        listed = listing(
            [
                f"{points(one['estimate'])} ({points(one['ci95'][0])} to"
                f" {points(one['ci95'][1])}) at n = {one['n']:,}"
                for one in found["differences"]
            ]
        )
        note = (
            f'<p class="note">The claimed differences there, in points: {listed}.</p>'
        )
    head = ["n", *map(arm_html, order)]
    return section("Contamination", f"<p>{first}</p>", table(head, rows), note)
