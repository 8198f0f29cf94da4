"""What the page says beside the claims: spread and failures, budgets, the grid."""

from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.ticker import NullFormatter, NullLocator

from experiments.ablation.claims import Evidence
from experiments.ablation.settings import AblationSettings
from experiments.seed_stability.measures import (
    DRAWS,
    failed,
    grid_scores,
    orders_of,
    scores,
    threshold,
)
from tljax.report import records, spread
from tljax.report.drawing import STYLE, WIDE, label_ends, new_figure, to_svg
from tljax.report.markup import (
    arm_html,
    escape,
    percent,
    section,
    table,
    wide_figure,
)
from tljax.report.summary import SEED

COLORS = ("#D55E00", "#0072B2", "#00805E", "#8A3FA0", "#8A6000", "#AA3377", "#5F6368")


def tell(
    settings: AblationSettings, evidence: Evidence
) -> tuple[dict[str, Any], list[str]]:
    """Facts for summary.json, and the sections that show them."""
    facts = {
        "failure_threshold": threshold(evidence),
        "stability": {arm: _stability(evidence, arm) for arm in evidence.arms},
    }
    sections = [_stability_html(facts), _budget_html(settings, facts)]
    if evidence.grid:
        facts["grid"] = _grid(settings, evidence)
        sections.append(_grid_html(facts["grid"]))
    return facts, sections


def _stability(evidence: Evidence, arm: str) -> dict[str, Any]:
    """Of an arm: spread, failures, and the best validation accuracy of k runs."""
    tested_S, validated_S = scores(evidence, arm), _validated(evidence, arm)
    budgets = range(1, len(validated_S) + 1)
    return {
        "sd": float(tested_S.std(ddof=1)),
        "least": float(tested_S.min()),
        "failed": failed(evidence, arm),
        "expected_best": spread.expected_best(validated_S, budgets),
    }


def _validated(evidence: Evidence, arm: str) -> np.ndarray:
    """[S], validation accuracy at the end of every seed's run."""
    finals = [records.load_final(run.folder) for run in evidence.arms[arm]]
    return np.array([final["validation"]["accuracy"]["value"] for final in finals])


def _grid(settings: AblationSettings, evidence: Evidence) -> dict[str, Any]:
    """Test accuracies of the grid and where their variance comes from."""
    scores_WO = grid_scores(evidence, orders_of(evidence))
    shares = {}
    if np.ptp(scores_WO) > 0:
        found = spread.variance_shares(scores_WO, draws=DRAWS, seed=SEED)
        parts = {"init": found.init, "order": found.order, "rest": found.rest}
        shares = {
            name: {"share": one.mean, "ci95": [one.low, one.high]}
            for name, one in parts.items()
        }
    return {
        "arm": settings.grid.arm,
        "values": scores_WO.tolist(),
        "sd": float(scores_WO.std(ddof=1)),
        "shares": shares,
    }


def _stability_html(facts: Mapping[str, Any]) -> str:
    rows, seeds = [], _seeds(facts)
    budgets = sorted({k for k in (1, 5, 10, seeds) if k <= seeds})
    for arm, row in facts["stability"].items():
        cells = [f"{100 * row['sd']:.1f}", f"{100 * row['least']:.1f}",
                 f"{row['failed']} of {seeds}"]  # fmt: skip
        cells += [f"{100 * row['expected_best'][k - 1]:.1f}" for k in budgets]
        rows.append([arm_html(arm), *cells])
    head = ["", "SD", "Least", "Failed", *(f"Best of {k}" for k in budgets)]
    limit = percent(facts["failure_threshold"])
    note = (
        "Test accuracy (%): its standard deviation between seeds, the least one, and"
        f" how many runs have failed, that is, are not above {limit} (the most frequent"
        " class, plus two standard errors). Beside it the expected best validation"
        " accuracy (%) of so many runs."
    )
    return section(
        "Spread and failures", table(head, rows), f'<p class="note">{note}</p>'
    )


def _seeds(facts: Mapping[str, Any]) -> int:
    return len(next(iter(facts["stability"].values()))["expected_best"])


def _budget_html(settings: AblationSettings, facts: Mapping[str, Any]) -> str:
    caption = (
        "Expected best validation accuracy of k = 1, 2, ... runs against the passes"
        " over the labelled items that they take together, for the arms that claims"
        " speak of."
    )
    svg = _budget_svg(settings, facts["stability"])
    return section("What a budget of runs buys", wide_figure(svg, caption))


def _budget_svg(
    settings: AblationSettings, stability: Mapping[str, Mapping[str, Any]]
) -> str:
    told = [arm for claim in settings.plan.claims for arm in (claim.arm, claim.against)]
    arms = [arm for arm in stability if arm in told] or list(stability)
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(
            WIDE,
            x_name="epochs of all runs together",
            y_name="expected best validation accuracy (%)",
        )
        axes.set_xscale("log")
        ends, furthest = [], 0.0
        for i, arm in enumerate(arms):
            best = 100 * np.array(stability[arm]["expected_best"])
            epochs = settings.arms[arm].epochs * np.arange(1, len(best) + 1)
            color = COLORS[i % len(COLORS)]
            axes.plot(epochs, best, color=color, marker="o", markersize=3)
            ends.append((epochs[-1], best[-1], arm, color))
            furthest = max(furthest, epochs[-1])
        ticks = [k for k in (1, 3, 10, 30, 100, 300, 1000) if k <= furthest]
        axes.set_xticks(ticks, [f"{k:g}" for k in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
        for x in {end[0] for end in ends}:
            here = [(y, arm, color, False) for at, y, arm, color in ends if at == x]
            label_ends(axes, here, x=x)
        least = min(settings.arms[arm].epochs for arm in arms)
        axes.set_xlim(0.9 * least, 3 * furthest)  # room for the names
        description = "Expected best validation accuracy against the budget"
        return to_svg(figure, name="budget", description=description)


def _grid_html(grid: Mapping[str, Any]) -> str:
    values = 100 * np.array(grid["values"])
    head = ["", *(f"order {i}" for i in range(values.shape[1]))]
    rows = [
        [f"weights {i}", *(f"{one:.1f}" for one in row)] for i, row in enumerate(values)
    ]
    names = {"init": "first weights", "order": "data order", "rest": "both together"}
    told = "; ".join(
        f"{names[name]} {percent(one['share'], digits=0)}"
        f" ({100 * one['ci95'][0]:.0f} to {100 * one['ci95'][1]:.0f})"
        for name, one in grid["shares"].items()
    )
    note = (
        f"Test accuracy (%) of {escape(grid['arm'])}, each first weights with each data"
        f" order, one labelled subset. Where its variance (SD {100 * grid['sd']:.1f}"
        f" points) comes from, with 95 % intervals: {told or 'there is none'}."
    )
    return section(
        "First weights or data order", table(head, rows), f'<p class="note">{note}</p>'
    )
