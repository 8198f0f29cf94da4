"""All experiments: the question from README.md's first line, the rest from summaries.

experiments/NAME/README.md                     # NAME: question
experiments/NAME/results/PRESET/summary.json   what was found, kept in the repository
"""

import dataclasses
import pathlib
from typing import Any

from tljax.train.files import read_json

ROOT = pathlib.Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Kept:
    """One kept result: its preset and summary.json's content."""

    preset: str
    summary: dict[str, Any]


def experiments() -> list[str]:
    """The names of all: folders that can be run."""
    return sorted(path.parent.name for path in ROOT.glob("*/__main__.py"))


def question_of(name: str) -> str:
    """What an experiment asks; its name where it has no README."""
    readme = ROOT / name / "README.md"
    if not readme.is_file():
        return name
    title = readme.read_text("utf-8").splitlines()[0].lstrip("# ")
    question = title.partition(": ")[2] or title
    return question[0].upper() + question[1:]


def kept(name: str) -> list[Kept]:
    """Its kept results, by preset."""
    paths = sorted((ROOT / name / "results").glob("*/summary.json"))
    return [Kept(path.parent.name, read_json(path)) for path in paths]
