"""python -m experiments.low_shot --config=configs/low_shot.py:quick --workdir=DIR"""

import sys
from collections.abc import Sequence

from rich.console import Console

from experiments.low_shot.settings import LowShotSettings
from tljax.cli.command import run_command, work_folder
from tljax.cli.config import parse_command
from tljax.cli.host_memory import ask_for_huge_pages
from tljax.report.terminal import print_summary

PROGRAM = "python -m experiments.low_shot"
DESCRIPTION = """
Does pre-training help on few labels, and by how much? Trains a tokenizer and a language
model on unlabelled text, fine-tunes it and its untrained twin on nested subsets of a
labelled set, puts TF-IDF and a probe on a real pretrained model beside them, and writes
WORKDIR/report.html and summary.json. Called again, it goes on where it stopped and
repeats nothing that is finished.

Presets of configs/low_shot.py: smoke (2 minutes), quick (5 to 16 minutes), smollm2
(SmolLM2's probe and LoRA with 100 and 1,000 labels; 50 minutes), full (2 h).

Your own data:
  --config.task.source='csv:reviews.csv?text=review&label=stars'
  --config.corpus.source=text:DIR
"""


def main(argv: Sequence[str]) -> None:
    """Runs the experiment that the arguments ask for."""
    command = parse_command(
        argv, kinds=LowShotSettings, program=PROGRAM, description=DESCRIPTION
    )
    from experiments.low_shot.run import run  # JAX, only when something is to be run

    with work_folder(command.workdir):
        summary = run(command.settings, command.workdir)
    print_summary(summary, report=command.workdir / "report.html", console=Console())


if __name__ == "__main__":
    ask_for_huge_pages()
    sys.exit(run_command(main, sys.argv[1:], program="low_shot"))
