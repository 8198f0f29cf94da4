"""The command `tljax`: finds the verb and runs it as every command is run.

    tljax VERB ARGUMENTS -> tljax.cli.VERB.run(ARGUMENTS) -> exit status

A verb's module is imported when it is called: help needs neither JAX nor data.
"""

import dataclasses
import importlib
import keyword
import sys
from collections.abc import Sequence

import tljax
from tljax.cli.command import NOTHING_WRITTEN, STOPPED, columns, run_command
from tljax.cli.host_memory import ask_for_huge_pages
from tljax.settings import InputError, suggestion

DESCRIPTION = """
tljax: does pre-training help on my small labelled set, by how much, and can I trust
the answer?

A first walk, on a laptop:
  tljax data list
  tljax train --config=configs/pretrain.py:tiny --workdir=runs/lm
  tljax train --config=configs/finetune.py:tiny --workdir=runs/reviews \\
      --config.init.source=runs/lm
  echo 'a warm, funny film' | tljax predict --run=runs/reviews --input=- --output=-
"""


@dataclasses.dataclass(frozen=True)
class Verb:
    """One verb: what it is for, and what Ctrl-C leaves behind."""

    meaning: str
    stopped: str = NOTHING_WRITTEN


VERBS = {
    "data": Verb("lists, shows and fetches sources of text and labels"),
    "train": Verb(
        "pre-trains on text, or fine-tunes on labels, as a config says", STOPPED
    ),
    "sweep": Verb("tries many settings of a run and says which are best", STOPPED),
    "replay": Verb("trains a run once more and says whether it is the same", STOPPED),
    "methods": Verb("lists and shows the ways to fine-tune"),
    "predict": Verb("labels the texts of a file with a fine-tuned run"),
    "evaluate": Verb("measures a fine-tuned run on a labelled file"),
    "soup": Verb("averages the weights of fine-tuned runs of one base"),
    "export": Verb("writes a run's model as Transformers, llama.cpp or PEFT load it"),
    "import": Verb("reads other people's checkpoint into a run folder of ours"),
    "generate": Verb("goes on from a prompt with a language model"),
    "chat": Verb("talks with a model that was tuned to chat"),
    "embed": Verb("writes a vector for every text of a file"),
    "logits": Verb("computes a model's logits of token ids, for comparing"),
    "bench": Verb("measures speed and memory, beside a peer if one is there"),
    "report": Verb("rebuilds summary.json and report.html from the records"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit status (see `run_command`).

    Args:
      argv: without the program's name; None = the process's own.
    """
    if argv is None:
        ask_for_huge_pages()
    argv = sys.argv[1:] if argv is None else list(argv)
    verb = VERBS.get(argv[0] if argv else "")
    return run_command(_dispatch, argv, stopped=verb.stopped if verb else "stopped")


def _dispatch(argv: Sequence[str]) -> int | None:
    name = argv[0] if argv else "--help"
    if name in ("--help", "-h", "help"):
        print(_help())
        return 0
    if name == "--version":
        print(f"tljax {tljax.__version__}")
        return 0
    if name not in VERBS:
        raise InputError(
            f"{name!r} is not a verb{suggestion(name, VERBS)}; there are:"
            f" {', '.join(VERBS)} (`tljax --help`)"
        )
    module = f"{name}_" if keyword.iskeyword(name) else name
    return importlib.import_module(f"tljax.cli.{module}").run(argv[1:])


def _help() -> str:
    rows = [(name, verb.meaning) for name, verb in VERBS.items()]
    rows.append(("VERB --help", "tells more, with every flag and key"))
    return f"usage: tljax VERB ...\n\n{DESCRIPTION.strip()}\n\nverbs:\n{columns(rows)}"
