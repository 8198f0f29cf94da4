"""The runner of `tljax sweep` for who knows the points and stays in one process.

    settings + points -> trials of a study in the folder -> populations -> best first

Experiments tune their arms with it: every arm as many points and seeds, on validation
items. Stopped and called again, it goes on.
"""

import pathlib
from collections.abc import Iterator, Sequence

from tljax.cli.finetune import Member, finetune
from tljax.cli.sweep.group import is_memory_out
from tljax.cli.sweep.runs import Runs
from tljax.report.sweep_best import best_trials
from tljax.settings import FinetuneSettings, InputError, to_dict
from tljax.sweep.launch import LaunchError, work_through
from tljax.sweep.space import Dimension, Point, Space
from tljax.sweep.study import Study, Trial, mend_journal
from tljax.train.files import write_json

METRIC = "validation/accuracy"


def tune(
    settings: FinetuneSettings,
    points: Sequence[Point],
    *,
    seeds: int,
    folder: pathlib.Path,
    populations: pathlib.Path,
    title: str,
) -> list[Trial]:
    """Trains every point with every seed and returns the trials, best mean first.

    Args:
      settings: of a run; the points are laid over it. Its seed is the first.
      points: key -> value, the same keys in all.
      seeds: runs a point.
      folder: of this tuning: study, trials/, trials.json.
      populations: folder of the checkpoints while training.
      title: of the progress bar.

    Raises:
      InputError: no point could be trained; why the first was not.
    """
    runs = Runs(folder, to_dict(settings), seeds=seeds, metric=METRIC, overridden=())

    def launch(trials: Sequence[Trial]) -> Iterator[None]:
        members = [
            Member(*pair)
            for one in trials
            for pair in zip(
                runs.settings(one.point), runs.folders(one.number), strict=True
            )
        ]
        try:
            finetune(members, populations=populations, title=title)
        except Exception as error:
            if not is_memory_out(error):
                raise
            raise LaunchError("memory was out") from error
        yield

    folder.mkdir(parents=True, exist_ok=True)
    plan = {"direction": "maximize", "config": to_dict(settings), "seeds": seeds}
    mend_journal(journal := folder / "journal.log")
    with Study(str(journal), title, "here", plan) as study:
        study.plan_trials(_choices(points), points, [runs.group(one) for one in points])
        work_through(study, launch=launch, outcome=runs.outcome)
        trials = study.trials()
    write_json(folder / "trials.json", [one.row() for one in trials])
    order = best_trials([one.row() for one in trials], "maximize").order
    if not order:
        raise InputError(f"{title}: {trials[0].reason}")
    return [trials[number] for number in order]


def _choices(points: Sequence[Point]) -> Space:
    """The space of just these points' values."""
    return Space(
        tuple(
            Dimension(
                key, "choice", choices=tuple(dict.fromkeys(p[key] for p in points))
            )
            for key in points[0]
        )
    )
