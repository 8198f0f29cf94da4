"""tljax train: one run, pre-training or fine-tuning, as config.kind says.

config + overrides -> settings -> pretrain(...) or finetune([one member]) -> run folder
"""

from collections.abc import Sequence
from pathlib import Path

from tljax.cli.command import number_lines, work_folder
from tljax.cli.config import parse_command
from tljax.settings import SETTINGS_OF_KIND

DESCRIPTION = """
Trains one run and keeps all of it in --workdir: config.json, manifest.json,
metrics.jsonl, tokenizer.json, params/ and, after fine-tuning, predictions/.
Stopped (Ctrl-C, or killed) and called again, it goes on; ended, it does nothing.

  tljax train --config=configs/pretrain.py --workdir=runs/lm --config.optim.lr_peak=1e-3
  tljax train --config=configs/finetune.py --workdir=runs/a --config.init.source=runs/lm
  tljax train --config=runs/a/config.json --workdir=runs/b --config.seed=1

What others have trained, on your labels (the architecture is the source's):
  tljax train --config=configs/finetune.py:smollm2 --workdir=runs/l   # LoRA on SmolLM2

Your own files:
  --config.corpus.source=text:DIR        each *.txt a document (or jsonl:FILE?text=body)
  --config.task.source='csv:reviews.csv?text=review&label=stars'

Decisions stand in the config file, with their reasons; FILE.py:PRESET takes a variant.
"""


def run(argv: Sequence[str]) -> None:
    """Trains, goes on, or says that the run has ended."""
    command = parse_command(
        argv, kinds=SETTINGS_OF_KIND, program="tljax train", description=DESCRIPTION
    )
    settings, folder = command.settings, command.workdir
    with work_folder(folder):
        from tljax.cli.models import adopt_architecture  # late: imports JAX

        settings = adopt_architecture(settings, command.overridden)
        if settings.kind == "pretrain":
            from tljax.cli.pretrain import pretrain  # late: imports JAX

            pretrain(settings, folder)
        else:
            from tljax.cli.finetune import Member, finetune  # late: imports JAX

            finetune([Member(settings, folder)], populations=folder / "populations")
    for line in ended_lines(folder):
        print(line)


def ended_lines(folder: Path) -> list[str]:
    """What the last record of a run says, for the terminal."""
    from tljax.train.record import early_end, final_record

    final = final_record(folder)
    early = early_end(final)
    return [
        f"{folder} has {early or f'ended after {final["step"]:,} steps'}",
        *number_lines(final),
    ]
