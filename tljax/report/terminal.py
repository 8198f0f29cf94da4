"""Results and verdicts of an experiment for the terminal, from its summary."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tljax.report.answer import answer, lost_runs
from tljax.report.drawing import arm_order, arm_style
from tljax.report.markup import p_value, points

_VERDICT_COLORS = {"PASS": "green", "FAIL": "red", "INCONCLUSIVE": "yellow"}


def print_summary(
    summary: Mapping[str, Any], *, report: Path | None = None, console: Console
) -> None:
    """Prints the table of results, the verdicts, the answer and where the report is.

    Args:
      summary: as written to summary.json by write_experiment_report().
      report: path of report.html, printed last.
      console: where to print; plain text where it is no terminal.
    """
    console.print(results_table(summary))
    if summary["claims"]:
        console.print(claims_table(summary))
    for sentence in filter(None, (*answer(summary), lost_runs(summary))):
        # Data and settings may hold square brackets: never markup here.
        console.print(sentence, markup=False, highlight=False)
    if report is not None:
        # One line whatever the width, so that it can be clicked and copied.
        console.print(
            f"report: {report}", markup=False, highlight=False, soft_wrap=True
        )


def results_table(summary: Mapping[str, Any]) -> Table:
    """Arm × n: mean test accuracy in per cent with its 95 % interval; best in bold."""
    arms = summary["arms"]
    order = arm_order(list(arms))
    table = Table(title=f"Test accuracy (%), {summary['seeds']} seeds, 95 % interval")
    table.add_column("n", justify="right")
    for arm in order:
        table.add_column(arm_style(arm).label, justify="right")
    for n in sorted({n for rows in arms.values() for n in rows}, key=int):
        best = max(rows[n]["mean"] for rows in arms.values() if n in rows)
        cells = []
        for arm in order:
            row = arms[arm].get(n)
            if row is None:
                cells.append("–")
                continue
            low, high = (100 * bound for bound in row["ci95"])
            mean = f"{100 * row['mean']:.1f}"
            mean = f"[bold]{mean}[/bold]" if row["mean"] == best else mean
            cells.append(f"{mean} ({low:.1f} to {high:.1f})")
        table.add_row(f"{int(n):,}", *cells)
    return table


def claims_table(summary: Mapping[str, Any]) -> Table:
    """The declared claims: difference in points, interval, Holm p and verdict."""
    table = Table(title="Claims declared beforehand (differences in points)")
    table.add_column("claim")
    for name in ("n", "difference", "95 % interval", "Holm p"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for claim in summary["claims"]:
        low, high = claim["ci95"]
        color = _VERDICT_COLORS[claim["verdict"]]
        table.add_row(
            claim["name"].replace("[", r"\["),
            f"{claim['n']:,}",
            points(claim["estimate"]),
            f"{points(low)} to {points(high)}",
            p_value(claim["p_holm"]),
            f"[{color}]{claim['verdict']}[/{color}]",
        )
    return table
