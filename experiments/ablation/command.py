"""python -m experiments.NAME: every ablation's command line, in one place."""

import sys
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console
from rich.table import Table

from experiments.ablation.claims import STATISTICS, Statistic
from experiments.ablation.settings import AblationSettings
from tljax.cli.command import run_command, work_folder
from tljax.cli.config import parse_command
from tljax.cli.host_memory import ask_for_huge_pages
from tljax.report.markup import measured, p_value


def main(
    name: str,
    description: str,
    known: Mapping[str, Statistic] = STATISTICS,
    more: Callable | None = None,
) -> None:
    """Runs the ablation that the arguments ask for, and exits.

    Args:
      name: of its folder in experiments/.
      description: for --help.
      known: the statistics that its claims may be about.
      more: its own sections, as experiments/ablation/report.py has them.
    """

    def command(argv: Sequence[str]) -> None:
        asked = parse_command(
            argv,
            kinds=AblationSettings,
            program=f"python -m experiments.{name}",
            description=description,
        )
        from experiments.ablation.run import run  # JAX, only when something is run

        with work_folder(asked.workdir):
            summary = run(
                asked.settings, asked.workdir, name=name, known=known, more=more
            )
        console = Console()
        if summary["claims"]:
            console.print(claims_table(summary))
        report = asked.workdir / "report.html"
        console.print(f"report: {report}", markup=False, soft_wrap=True)

    ask_for_huge_pages()
    sys.exit(run_command(command, sys.argv[1:], program=name))


def claims_table(summary: dict) -> Table:
    """The claims for the terminal; the papers' numbers stand in the report."""
    found = Table(title=f"Claims of papers, {summary['seeds']} seeds")
    found.add_column("claim")
    for title in ("difference", "95 % interval", "Holm p", "verdict"):
        found.add_column(title, no_wrap=True)
    for claim in summary["claims"]:
        estimate, low, high = (
            measured(one, claim["unit"], signed=True)
            for one in (claim["estimate"], *claim["ci95"])
        )
        found.add_row(
            claim["name"].replace("[", r"\["),
            f"{estimate} {claim['unit']}",
            f"{low} to {high}",
            p_value(claim["p_holm"]),
            claim["verdict"],
        )
    return found
