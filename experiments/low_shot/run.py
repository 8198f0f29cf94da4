"""Scratch or transfer? The experiment, phase after phase.

    pre-train (-> adapt) (-> tune) -> scratch, transfer (, LoRA) -> TF-IDF (-> probe)
    -> report

Every phase skips what is finished; killed at any moment, the same command goes on.
"""

import dataclasses
import itertools
import pathlib

from experiments.labels import load_texts
from experiments.low_shot.baseline import run_baseline
from experiments.low_shot.checks import check_stages, cut_to_data, leave_out_probe
from experiments.low_shot.probe import run_probe
from experiments.low_shot.settings import Choice, LowShotSettings
from experiments.low_shot.stages import (
    finetune_settings,
    nearest,
    predictions_of,
    tuning_grids,
)
from experiments.settings import TUNING_SEED
from experiments.stages import (
    Phases,
    adapt,
    is_current,
    pretrain_settings,
    run_folder,
)
from tljax.cli.finetune import Member, finetune
from tljax.cli.pretrain import pretrain
from tljax.cli.sweep.tune import tune
from tljax.data.sources import open_source
from tljax.evaluate.contamination import NGRAM, contaminated
from tljax.report.page import write_experiment_report
from tljax.settings import to_dict
from tljax.train.files import read_json, write_json
from tljax.train.record import open_run


def run(settings: LowShotSettings, folder: pathlib.Path) -> dict:
    """Runs or resumes the experiment and returns its summary.

    Raises:
      InputError: something given cannot be used; nothing is overwritten.
    """
    folder = folder.resolve()  # one name, whatever the current directory
    settings = cut_to_data(settings, open_source(settings.task.source))
    settings = leave_out_probe(settings, folder)
    check_stages(settings)
    open_run(folder, to_dict(settings), "low_shot")
    phases = Phases(folder)
    with phases.time("pretrain"):
        pretrain(pretrain_settings(settings), folder / "lm")
    lm = folder / "lm"
    if settings.adapt.epochs:
        with phases.time("adapt"):
            adapt(settings, lm=lm, folder=folder / "adapted")
        lm = folder / "adapted"
    chosen = settings.tuned
    if settings.tuning.rates:
        with phases.time("tune"):
            chosen = _tune(settings, folder, lm)
    for arm in settings.tuned_arms:
        with phases.time(f"finetune_{arm}"):
            _finetune(settings, folder, arm, chosen, lm)
    with phases.time("tfidf"):
        _baseline(settings, folder)
    if settings.probe.source:
        with phases.time("probe"):
            run_probe(settings, folder)
    with phases.time("contamination"):
        _contamination(settings, folder)
    if is_current(folder):
        return read_json(folder / "summary.json")
    with phases.time("report"):
        return write_experiment_report(folder)


def _finetune(settings, folder, arm, chosen, lm) -> None:
    members = [
        Member(
            finetune_settings(
                settings,
                arm=arm,
                n=n,
                seed=seed,
                choice=nearest(chosen[arm], n),
                lm=str(lm),
                tuning=False,
            ),
            run_folder(folder, arm, n, seed),
        )
        for n, seed in itertools.product(
            settings.plan.sizes, range(settings.plan.seeds)
        )
    ]
    finetune(members, populations=folder / "populations", title=arm)


def _tune(settings, folder, lm) -> dict:
    """The best choice for each arm and size by mean validation accuracy."""
    path = folder / "tuning.json"
    if not path.exists():
        arms = settings.tuned_arms
        write_json(path, {arm: _try_grids(settings, folder, arm, lm) for arm in arms})
    return {
        arm: {
            n: Choice(**{f.name: ranked[0][f.name] for f in dataclasses.fields(Choice)})
            for n, ranked in sizes.items()
        }
        for arm, sizes in read_json(path).items()
    }


def _try_grids(settings, folder, arm, lm) -> dict[str, list[dict]]:
    """The grid points of each size, best first, after training an arm with all."""
    grids = tuning_grids(settings)
    sizes = [(n, choice) for n, grid in grids.items() for choice in grid]
    n, choice = sizes[0]
    first = finetune_settings(
        settings, arm=arm, n=n, seed=TUNING_SEED, choice=choice, lm=str(lm), tuning=True
    )
    ranked = tune(
        first,
        [
            {
                "task.n": n,
                "optim.lr_peak": choice.lr_peak,
                "epochs": choice.epochs,
                "optim.layer_decay": choice.layer_decay,
            }
            for n, choice in sizes
        ],
        seeds=settings.tuning.seeds,
        folder=folder / "tuning" / arm,
        populations=folder / "populations",
        title=f"tune {arm}",
    )
    rows = {str(n): [] for n in grids}
    for one in ranked:
        n, choice = sizes[one.number]
        row = {"validation_accuracy": one.value, "values": list(one.values)}
        rows[str(n)].append({**dataclasses.asdict(choice), **row})
    return rows


def _baseline(settings, folder) -> None:
    wanted = [
        (n, seed, run_folder(folder, "tfidf", n, seed))
        for n, seed in itertools.product(
            settings.plan.sizes, range(settings.plan.seeds)
        )
    ]
    wanted = [one for one in wanted if not predictions_of(one[2]).exists()]
    if not wanted:
        return
    source = open_source(settings.task.source)
    train = load_texts(source, "train")
    test = load_texts(source, "test", train.classes)
    for n, seed, path in wanted:
        run_baseline(train, test, n=n, seed=seed, folder=path)


def _contamination(settings, folder) -> None:
    path = folder / "contamination.json"
    if path.exists():
        return
    task = open_source(settings.task.source)
    read = [open_source(settings.corpus.source)]
    if settings.adapt.epochs:
        read.append(task)
    documents = itertools.chain(*(source.examples("train") for source in read))
    items = {example.id: example.text for example in task.examples("test")}
    found = contaminated(items, (document.text for document in documents))
    write_json(
        path,
        {
            "ngram": NGRAM,
            "share": len(found) / len(items),
            "test_items": len(items),
            "contaminated_ids": found,
        },
    )
