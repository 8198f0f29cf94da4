"""All experiments: what each asks, and what was found; read, never typed twice.

experiments/NAME/README.md                     # NAME: question
experiments/NAME/results/PRESET/summary.json   claims with verdicts, seconds, date
"""

import dataclasses
from pathlib import Path
from typing import Any

import tljax
from tljax.report import records
from tljax.report.claims import told
from tljax.report.markup import duration

ROOT = Path(tljax.__file__).parents[1] / "experiments"


@dataclasses.dataclass(frozen=True)
class Kept:
    """One kept result."""

    preset: str
    folder: Path
    summary: dict[str, Any]

    @property
    def cost(self) -> str:
        """'14 min 2 s' of computing."""
        return duration(sum(self.summary["phases_seconds"].values()))

    @property
    def date(self) -> str:
        """The day of its last record; '' of results that do not hold it."""
        return self.summary.get("time_ended", "")

    @property
    def answer(self) -> str:
        """Its claims by verdict, in one line."""
        return told(self.summary["claims"])


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One folder of experiments/ that can be run; `kept` by preset."""

    name: str
    question: str
    folder: Path
    kept: tuple[Kept, ...]


def catalogue(root: Path = ROOT) -> list[Experiment]:
    """All experiments, by name.

    Raises:
      InputError: a kept summary.json is broken.
    """
    return [
        Experiment(
            name=folder.name,
            question=question_of(folder.name, root),
            folder=folder,
            kept=tuple(
                Kept(path.parent.name, path.parent, records.load_json(path))
                for path in sorted(folder.glob("results/*/summary.json"))
            ),
        )
        for folder in sorted(path.parent for path in root.glob("*/__main__.py"))
    ]


def question_of(name: str, root: Path = ROOT) -> str:
    """What an experiment asks; its name where it has no README."""
    readme = root / name / "README.md"
    if not readme.is_file():
        return name
    title = readme.read_text("utf-8").partition("\n")[0].lstrip("# ")
    question = title.partition(": ")[2] or title
    return question[0].upper() + question[1:]
