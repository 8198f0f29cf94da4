"""An ablation, phase after phase.

    pre-train (-> adapt) (-> tune) -> every arm, its seeds as one population -> report

Every phase skips what is finished; killed at any moment, the same command goes on.
"""

import dataclasses
import pathlib

from experiments.ablation.claims import Statistic
from experiments.ablation.report import Sections, language_model, write_report
from experiments.ablation.settings import GRID, AblationSettings, Claim
from experiments.labels import read_labels
from experiments.settings import TUNING_SEED
from experiments.stages import (
    Phases,
    adapt,
    adapt_settings,
    is_current,
    naming,
    pretrain_settings,
    run_folder,
)
from tljax.cli.contradictions import check as check_finetune
from tljax.cli.finetune import Member, finetune
from tljax.cli.models import source_settings
from tljax.cli.pretrain import check as check_pretrain
from tljax.cli.pretrain import pretrain
from tljax.cli.sweep.tune import tune
from tljax.data.sources import open_source
from tljax.settings import (
    FinetuneSettings,
    InputError,
    MeshSettings,
    SeedSettings,
    suggestion,
    to_dict,
)
from tljax.train.files import read_json, write_json
from tljax.train.record import final_record, open_run


def run(
    settings: AblationSettings,
    folder: pathlib.Path,
    *,
    name: str,
    known: dict[str, Statistic],
    more: Sections | None = None,
) -> dict:
    """Runs or resumes an ablation and returns its summary.

    Args:
      settings: the whole plan.
      folder: the work folder.
      name: of the experiment.
      known: the statistics that its claims may be about.
      more: what its report has beside the ablations' own sections.

    Raises:
      InputError: something given cannot be used; nothing is overwritten.
    """
    folder = folder.resolve()  # one name, whatever the current directory
    if settings.pretrain.source:
        stage = dataclasses.replace(
            settings.pretrain,
            source=str(pathlib.Path(settings.pretrain.source).resolve()),
        )
        settings = dataclasses.replace(settings, pretrain=stage)
    check(settings, known)
    open_run(folder, to_dict(settings), name)
    phases, lm = Phases(folder), language_model(settings, folder)
    if not settings.pretrain.source:
        with phases.time("pretrain"):
            pretrain(pretrain_settings(settings), lm)
    if settings.adapted:
        with phases.time("adapt"):
            adapt(settings, lm=lm, folder=folder / "adapted")
    starts = {"": "", "lm": str(lm), "tapt": str(folder / "adapted")}
    rates = {arm: one.optim.lr_peak for arm, one in settings.arms.items()}
    if settings.tuning.rates:
        with phases.time("tune"):
            rates = _tune(settings, folder, starts)
    for arm, rate in rates.items():
        with phases.time(f"finetune_{arm}"):
            members = [
                Member(
                    finetune_settings(
                        settings, arm, seed=seed, rate=rate, starts=starts
                    ),
                    run_folder(folder, arm, settings.task.n, seed),
                )
                for seed in range(settings.plan.seeds)
            ]
            finetune(members, populations=folder / "populations", title=arm)
    if settings.grid.arm:
        with phases.time("finetune_grid"):
            members = _grid(settings, folder, rates[settings.grid.arm], starts)
            finetune(members, populations=folder / "populations", title=GRID)
    if is_current(folder):
        return read_json(folder / "summary.json")
    with phases.time("report"):
        return write_report(folder, name=name, known=known, more=more)


def _grid(settings, folder, rate, starts) -> list[Member]:
    """The grid's runs, first weights by first weights, all of one subset."""
    grid, members = settings.grid, []
    subset = settings.arms[grid.arm].seeds.of_run(0).subset
    for seed in range(grid.inits * grid.orders):
        init, order = divmod(seed, grid.orders)
        made = finetune_settings(
            settings, grid.arm, seed=seed, rate=rate, starts=starts
        )
        seeds = SeedSettings(subset=subset, init=init, order=order)
        made = dataclasses.replace(made, seeds=seeds)
        members.append(Member(made, run_folder(folder, GRID, settings.task.n, seed)))
    return members


def finetune_settings(
    settings: AblationSettings,
    arm: str,
    *,
    seed: int,
    rate: float,
    starts: dict[str, str],
    tuning: bool = False,
) -> FinetuneSettings:
    """One run of an arm.

    Args:
      settings: of the ablation.
      arm: its name.
      seed: of subset, head and order.
      rate: peak learning rate.
      starts: folder of each of STARTS.
      tuning: whether it is to choose a rate: then it never sees a test item.
    """
    one, task, record = settings.arms[arm], settings.task, settings.arms[arm].record
    if tuning:
        task = dataclasses.replace(
            task,
            validation_items=settings.tuning.validation_items,
            score_test=False,
            others=(),
        )
        if record.choose == "last" and not record.patience:
            record = dataclasses.replace(record, validations=0)  # the end decides
    return FinetuneSettings(
        kind="finetune",
        seed=seed,
        epochs=one.epochs,
        init=dataclasses.replace(one.init, source=starts[one.init.source]),
        task=task,
        tokenizer=dataclasses.replace(settings.tokenizer, source=starts["lm"]),
        head=one.head,
        model=settings.model,
        optim=dataclasses.replace(one.optim, lr_peak=rate),
        mesh=MeshSettings(run=1, data=1, fsdp=1, tensor=1),
        record=record,
        transfer=one.transfer,
        regularize=one.regularize,
        seeds=one.seeds,
    )


def check(settings: AblationSettings, known: dict[str, Statistic]) -> None:
    """Raises the InputError that a later phase would, before anything is trained."""
    for claim in settings.plan.claims:
        if claim.statistic not in known:
            raise InputError(
                f"config.plan.claims: {claim.name!r} is about {claim.statistic!r}"
                f"{suggestion(claim.statistic, known)}; known: {', '.join(known)}"
            )
        _check_rule(settings, claim, known[claim.statistic])
        needed = known[claim.statistic].validations
        for arm in (claim.arm, claim.against):
            record = settings.arms[arm].record
            if min(record.validations, record.rounds) < needed:
                raise InputError(
                    f"config.plan.claims: {claim.name!r} needs {needed} validations or"
                    f" more of every run; raise config.arms.{arm}.record.validations"
                    " and rounds"
                )
    source = open_source(settings.task.source)
    train = read_labels(source, "train")
    for split in ("validation", "test"):
        read_labels(source, split, train.classes)
    for uri in settings.task.others:
        read_labels(open_source(uri), "test", train.classes)
    if not settings.pretrain.source:
        with naming("config.pretrain"):
            check_pretrain(pretrain_settings(settings))
    else:
        _check_language_model(settings)
    if settings.adapted:
        with naming("config.adapt"):
            check_pretrain(adapt_settings(settings, lm="", tokens=0))
    somewhere = {"": "", "lm": "lm", "tapt": "tapt"}
    for arm in settings.arms:
        with naming(f"config.arms.{arm}"):
            rates = settings.tuning.rates.get(arm)
            for rate in rates or [settings.arms[arm].optim.lr_peak]:
                check_finetune(
                    finetune_settings(
                        settings, arm, seed=0, rate=rate, starts=somewhere
                    )
                )


def _check_rule(settings: AblationSettings, claim: Claim, statistic: Statistic) -> None:
    """Refuses a rule that the statistic has no test for, and a grid that is not run."""
    where, arm = f"config.plan.claims: {claim.name!r}", settings.grid.arm
    if claim.rule not in statistic.rules:
        raise InputError(
            f"{where} is about {claim.statistic!r} and has rule={claim.rule!r};"
            f" allowed: {', '.join(map(repr, statistic.rules))}"
        )
    if statistic.grid and {claim.arm, claim.against} != {arm}:
        raise InputError(
            f"{where} is about the grid, whose arm, config.grid.arm, is {arm!r}; set"
            " the claim's arm and against to it"
        )


def _check_language_model(settings: AblationSettings) -> None:
    """Refuses a model that is not the ablation's, or that has not ended."""
    source = settings.pretrain.source
    theirs, ours = source_settings(source), settings.model
    differ = [
        f"{name} is {getattr(theirs, name)!r} there, {getattr(ours, name)!r} asked"
        for name in (field.name for field in dataclasses.fields(ours))
        if getattr(theirs, name) != getattr(ours, name)
    ]
    if differ:
        raise InputError(
            f"config.pretrain.source={source} has another model:"
            f" config.model.{'; config.model.'.join(differ)}"
        )
    final_record(source)


def _tune(settings, folder, starts) -> dict[str, float]:
    """The rate of best mean validation accuracy for each arm; all in tuning.json."""
    path, n = folder / "tuning.json", str(settings.task.n)
    if not path.exists():
        ranked = {arm: _try(settings, folder, arm, starts) for arm in settings.arms}
        write_json(path, {arm: {n: rows} for arm, rows in ranked.items()})
    chosen = read_json(path)
    return {arm: chosen[arm][n][0]["lr_peak"] for arm in settings.arms}


def _try(settings, folder, arm, starts) -> list[dict]:
    """An arm's rates, best first, with one validation accuracy a seed."""
    first = finetune_settings(
        settings, arm, seed=TUNING_SEED, rate=settings.tuning.rates[arm][0],
        starts=starts, tuning=True,
    )  # fmt: skip
    ranked = tune(
        first,
        [{"optim.lr_peak": rate} for rate in settings.tuning.rates[arm]],
        seeds=settings.tuning.seeds,
        folder=folder / "tuning" / arm,
        populations=folder / "populations",
        title=f"tune {arm}",
    )
    return [
        {
            "lr_peak": one.point["optim.lr_peak"],
            "validation_accuracy": one.value,
            "values": list(one.values),
        }
        for one in ranked
    ]
