"""What an ablation's page says: answer, claims beside the papers', arms, curves.

Each section is a function of summary.json's content, or of the records, to HTML.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.ablation.claims import Statistic
from experiments.ablation.figures import arms_svg
from experiments.ablation.settings import AblationSettings
from tljax.report import claims as judged
from tljax.report import curves, figures, records
from tljax.report.answer import lost_runs
from tljax.report.markup import (
    arm_html,
    duration,
    escape,
    legend,
    listing,
    measured,
    p_value,
    panels,
    percent,
    section,
    table,
    wide_figure,
)

RULES = {
    "more": "more",
    "no_worse": "no worse, margin",
    "same": "the same, margin",
}


def columns(
    settings: AblationSettings, known: Mapping[str, Statistic]
) -> dict[str, tuple[str, str, str]]:
    """{key: (statistic, split, title)} of what is told of every arm."""
    found = {}
    for name, one in known.items():
        records_of = [arm.record for arm in settings.arms.values()]
        looked = min(min(r.validations, r.rounds) for r in records_of)
        if one.measure is None or looked < one.validations:
            continue
        splits = ("test", *settings.task.named_others) if name == "accuracy" else ("",)
        for split in splits:
            key = f"{name}_{split}" if split else name
            words = split.replace("_", " ")
            found[key] = (
                name,
                split or "test",
                f"{one.title}, {words}" if split else one.title,
            )
    return found


def answer_html(summary: Mapping[str, Any]) -> str:
    """How many claims stand, and the figures one asks for next."""
    claims = summary["claims"]
    counts = {
        verdict: sum(claim["verdict"] == verdict for claim in claims)
        for verdict in ("PASS", "FAIL", "INCONCLUSIVE")
    }
    told = listing([f"{n} {verdict}" for verdict, n in counts.items() if n])
    facts = [
        (told or "none", f"of {len(claims)} claims of papers"),
        (
            f"{summary['bits_per_byte']['value']:.2f}",
            "bits per byte of held-out text after pre-training",
        ),
        (duration(sum(summary["phases_seconds"].values())), "of computing"),
    ]
    boxes = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(number)}</dd></div>"
        for number, name in facts
    )
    return (
        f'<div class="answer"><p>{escape(judged.told(claims))}</p></div>'
        f'<dl class="facts">{boxes}</dl>'
    )


def claims_html(summary: Mapping[str, Any], known: Mapping[str, Statistic]) -> str:
    """Every claim: the paper's number beside ours, with interval, p and verdict."""
    rows = []
    for claim in summary["claims"]:
        unit = claim["unit"]
        low, high = (measured(end, unit, signed=True) for end in claim["ci95"])
        least = claim["smallest_detectable"]
        seeds = claim["in_favour"]
        favour = "" if seeds is None else f"above 0 in {seeds} of {summary['seeds']}"
        verdict = escape(claim["verdict"])
        rows.append(
            [
                f"{escape(claim['name'])}<br>"
                f"{_quiet(claim['paper'], claim['number'], between=': ')}",
                f'<span class="verdict {verdict.lower()}">{verdict}</span>',
                f"{measured(claim['estimate'], unit, signed=True)}"
                f"{_quiet(f'{low} to {high}')}{_quiet(favour)}",
                "".join(
                    f"{measured(mean, unit)} {_quiet(side)}"
                    for mean, side in zip(claim["means"], claim["sides"], strict=True)
                ),
                f"{p_value(claim['p_holm'])}{_quiet('p ' + p_value(claim['p']))}",
                "–" if least is None else measured(least, unit),
            ]
        )
    head = [
        "Claim, and what the paper found",
        "Verdict",
        "Difference",
        "Arms",
        "Holm p",
        "Detectable",
    ]
    if not rows:
        return ""
    return section(
        "Claims of papers",
        table(head, rows),
        f'<p class="note">{escape(_rule(summary, known))}</p>',
    )


def _quiet(*texts: str, between: str = "") -> str:
    """Less important text; in a column of numbers a line of its own."""
    return f'<span class="quiet">{escape(between.join(texts))}</span>'


def _rule(summary: Mapping[str, Any], known: Mapping[str, Statistic]) -> str:
    claims, alpha = summary["claims"], f"{summary['alpha']:g}"
    margins = [
        f"{claim['name']}: {RULES[claim['rule']]}"
        f" {measured(claim['margin'], claim['unit'])}"
        for claim in claims
        if claim["margin"]
    ]
    used = {claim["statistic"]: known[claim["statistic"]] for claim in claims}
    told = "; ".join(
        f"{one.title} in {one.unit}, p by {one.test}" for one in used.values()
    )
    return (
        "The rules were fixed before any run. The difference of the two arms with its"
        f" 95 % interval, over {summary['seeds']} seeds: {told}. p is adjusted by Holm"
        f" over the {len(claims)} claims. PASS: Holm p below {alpha} and a difference"
        f" above 0 (or the margin{': ' + '; '.join(margins) if margins else ''})."
        " FAIL: the same the other way, or an interval wholly beyond the margin."
        " INCONCLUSIVE: anything else; “detectable” is the true difference that this"
        f" design would have found four times in five at level {alpha} / {len(claims)}."
    )


def results_html(
    settings: AblationSettings,
    summary: Mapping[str, Any],
    known: Mapping[str, Statistic],
) -> str:
    """The arms on every set of items: the figure, and the table of all measures."""
    told = columns(settings, known)
    shown = {key: title for key, (name, _, title) in told.items() if name == "accuracy"}
    rows = []
    for arm, row in summary["arms"].items():
        cells = [f"{arm_html(arm)}<br><span class='quiet'>{escape(row['what'])}</span>"]
        for key, (name, _, _) in told.items():
            unit, found = known[name].unit, row[key]
            low, high = (measured(end, unit) for end in found["ci95"])
            spread = measured(float(np.std(found["values"], ddof=1)), unit)
            cells.append(
                f"{measured(found['mean'], unit)} <span class='quiet'>[{low}, {high}]"
                f"</span> <span class='quiet'>sd {spread}</span>"
            )
        rows.append(cells)
    caption = (
        "From the least to the most accurate: mean over seeds with its 95 % interval"
        " (hierarchical bootstrap over seeds and items); each pale dot is one seed."
    )
    lost = escape(lost_runs(summary))
    late = (
        " and degradation (error after the last epoch less the least error, on"
        " validation items)"
    )
    note = (
        "Mean, 95 % interval and standard deviation between seeds; accuracies"
        f"{late if 'late_degradation' in told else ''} in per cent."
    )
    return section(
        "Arms",
        wide_figure(
            arms_svg(
                summary["arms"], {key: f"{one} (%)" for key, one in shown.items()}
            ),
            caption,
        ),
        table(["", *(escape(title) for _, _, title in told.values())], rows),
        f'<p class="note">{" ".join(filter(None, (note, lost)))}</p>',
    )


def choices_html(summary: Mapping[str, Any], folder: pathlib.Path) -> str:
    """The rates tried for every arm on validation items, best first."""
    tuning = records.load_tuning(folder)
    if not tuning:
        return ""
    rows = [
        [
            arm_html(arm),
            ", ".join(
                f"{row['lr_peak']:g} ({percent(row['validation_accuracy'])})"
                for row in tuning[arm][str(summary["n"])]
            ),
        ]
        for arm in summary["arms"]
    ]
    note = (
        "Peak learning rates, best first, with their mean accuracy on validation items"
        " over seeds of tuning’s own; as many for every arm."
    )
    head = ["", "Learning rates tried"]
    return section(
        "Choices", table(head, rows, numeric=False), f'<p class="note">{note}</p>'
    )


def learning_html(arms: Mapping[str, tuple[records.Run, ...]]) -> str:
    """A panel an arm: accuracy on training and validation items over the epochs."""
    drawn = []
    for arm, runs in arms.items():
        found = curves.learning_curves(runs, quantity="accuracy")
        if found.bands:
            drawn.append(
                figures.learning_curve_svg(
                    found.bands, title=arm, quantity="accuracy", unit=found.unit
                )
            )
    if not drawn:
        return ""
    caption = (
        "Mean over seeds; the band is one standard deviation between seeds, up and"
        " down. A validation curve that falls at the end is late degradation."
    )
    return section(
        "Learning curves", panels(drawn, caption, legend_html=legend([], splits=True))
    )
