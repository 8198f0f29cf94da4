"""python -m experiments: every experiment with question, status, cost and answer."""

import sys
from collections.abc import Sequence

from tljax.cli.command import help_text, no_words, read_flags, run_command
from tljax.report.catalogue import catalogue

PROGRAM = "python -m experiments"
DESCRIPTION = """
Lists the experiments: what each asks, the results that are kept in the repository, what
they cost and found. `python -m experiments.NAME --help` tells how to run one,
`tljax report --all` puts the kept results on one page.
"""


def main(argv: Sequence[str]) -> None:
    """Prints the list."""
    given = read_flags(argv, (), program=PROGRAM)
    if "help" in given.flags:
        print(help_text(PROGRAM, DESCRIPTION, ()))
        return
    no_words(given, PROGRAM)
    for one in catalogue():
        print(f"{one.name}: {one.question}")
        for kept in one.kept:
            date = f" on {kept.date}" if kept.date else ""
            print(f"  {kept.preset}: run{date}, {kept.cost} of computing")
            print(f"    {kept.answer}")
        if not one.kept:
            print("  never run: no result is kept")


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:], program="experiments"))
