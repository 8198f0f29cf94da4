"""What an ablation fixes before anything runs: arms, plan, claims and their rules.

An arm is one way to fine-tune one language model on one labelled set; arms share text,
tokenizer, model, task and seeds, and differ in what the config file changes in each.
"""

import dataclasses
from collections.abc import Mapping

from experiments.settings import AdaptStage, PretrainStage, check_arm
from tljax.report.statistics import check_plan
from tljax.settings import (
    UNREGULARIZED,
    CorpusSettings,
    HeadSettings,
    InitSettings,
    InputError,
    ModelSettings,
    OptimSettings,
    RecordSettings,
    RegularizeSettings,
    SeedSettings,
    TaskSettings,
    TokenizerSettings,
    TransferSettings,
    setting,
    suggestion,
)

STARTS = ("", "lm", "tapt")  # scratch; the language model; it, gone on on task text
GRID = "grid"  # no arm's name: its runs lie beside theirs
RULES = ("more", "no_worse", "same")


@dataclasses.dataclass(frozen=True)
class LanguageStage(PretrainStage):
    """The language model: trained here, or that of an earlier run."""

    source: str = setting(
        "run folder of a language model to take instead; '' = train it here", default=""
    )


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way to fine-tune."""

    what: str = setting("what the arm is about, for the report")
    epochs: float = setting("passes over the labelled items", low=0.0)
    init: InitSettings
    head: HeadSettings
    optim: OptimSettings
    record: RecordSettings
    transfer: TransferSettings = TransferSettings()
    regularize: RegularizeSettings = UNREGULARIZED
    seeds: SeedSettings = SeedSettings()  # a stream that is set is one for all its runs


@dataclasses.dataclass(frozen=True)
class Claim:
    """`arm` stands to `against` as a paper says; judged as experiments/ablation/claims
    does."""

    name: str = setting("how the report calls it")
    paper: str = setting("who says so and where, e.g. 'ULMFiT, table 7'")
    number: str = setting("what was measured there, e.g. 'error 6.87 -> 5.00 %'")
    statistic: str = setting("what is compared, one of the experiment's statistics")
    arm: str = setting("the one said to have more of it")
    against: str = setting("the other")
    rule: str = setting(
        "more: above 0, or `margin`; no_worse: above -margin; same: within +-margin",
        choices=RULES,
        default="more",
    )
    margin: float = setting("in the statistic's unit", low=0.0, default=0.0)
    split: str = setting(
        "items of an accuracy: test, or one of task.others'", default="test"
    )


@dataclasses.dataclass(frozen=True)
class AblationPlan:
    """Fixed before anything runs."""

    seeds: int = setting("runs an arm: subset, head, order; paired", low=2)
    alpha: float = setting("level of the family of claims (Holm)", low=0.0, high=0.5)
    claims: tuple[Claim, ...] = setting("the claims; () = only numbers")


@dataclasses.dataclass(frozen=True)
class Grid:
    """Runs of one arm more: each of some first weights with each of some orders."""

    arm: str = setting("the arm; '' = no grid", default="")
    inits: int = setting("first weights (seeds.init 0, 1, ...)", low=2, default=6)
    orders: int = setting("data orders (seeds.order 0, 1, ...)", low=2, default=6)


@dataclasses.dataclass(frozen=True)
class AblationTuning:
    """The grid of every arm, tried on validation items and seeds of tuning's own."""

    rates: Mapping[str, tuple[float, ...]] = setting(
        "rates.ARM: peak learning rates, as many for every arm; {} = the arms' own",
        low=0.0,
    )
    seeds: int = setting("runs a rate", low=1)
    validation_items: int = setting("validation items that decide; 0 = all", low=0)


@dataclasses.dataclass(frozen=True)
class AblationSettings:
    """A whole ablation."""

    corpus: CorpusSettings
    tokenizer: TokenizerSettings
    model: ModelSettings
    pretrain: LanguageStage
    adapt: AdaptStage
    task: TaskSettings
    arms: Mapping[str, Arm] = setting("arms.NAME: what is compared")
    tuning: AblationTuning
    plan: AblationPlan
    grid: Grid = Grid()

    @property
    def adapted(self) -> bool:
        """Whether an arm starts from the language model gone on on the task's text."""
        return any(arm.init.source == "tapt" for arm in self.arms.values())

    def check(self, where: str) -> None:
        """Refuses arms that nobody could run and a plan that could not pass."""
        if not self.task.score_test:
            raise InputError(
                f"{where}.task.score_test is False, but claims are about test items;"
                " set it to true"
            )
        if not self.arms:
            raise InputError(f"{where}.arms is empty; give at least one arm")
        for name, arm in self.arms.items():
            check_arm(f"{where}.arms", name, (GRID,))
            if arm.init.source not in STARTS:
                raise InputError(
                    f"{where}.arms.{name}.init.source is {arm.init.source!r}; allowed:"
                    " '' (scratch), 'lm' (the language model), 'tapt' (it, gone on on"
                    " the task's text)"
                )
            if self.tuning.rates and arm.optim.lr_peak:
                raise InputError(
                    f"{where}.arms.{name}.optim.lr_peak is {arm.optim.lr_peak}, but"
                    f" {where}.tuning.rates chooses it; leave it at 0, or set"
                    f" {where}.tuning.rates={{}}"
                )
        if self.adapted != bool(self.adapt.epochs):
            raise InputError(
                f"{where}.adapt.epochs is {self.adapt.epochs}, and"
                f" {'an' if self.adapted else 'no'} arm has init.source='tapt';"
                " set both or none"
            )
        if self.grid.arm and self.grid.arm not in self.arms:
            raise InputError(
                f"{where}.grid.arm is {self.grid.arm!r}"
                f"{suggestion(self.grid.arm, self.arms)}; the arms are"
                f" {', '.join(self.arms)}"
            )
        self._check_rates(f"{where}.tuning.rates")
        for claim in self.plan.claims:
            self._check_claim(f"{where}.plan.claims: {claim.name!r}", claim)
        check_plan(self.plan.seeds, self.plan.claims, self.plan.alpha)

    def _check_rates(self, where: str) -> None:
        rates = self.tuning.rates
        if not rates:
            return
        for name in {*rates, *self.arms}:
            if name not in self.arms:
                raise InputError(
                    f"{where}.{name} is no arm{suggestion(name, self.arms)}; allowed:"
                    f" {', '.join(self.arms)}"
                )
        counts = {name: len(rates.get(name, ())) for name in self.arms}
        if len(set(counts.values())) > 1 or 0 in counts.values():
            told = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise InputError(
                f"{where} must have as many rates for every arm, and one at least;"
                f" there are: {told}"
            )

    def _check_claim(self, where: str, claim: Claim) -> None:
        for arm in (claim.arm, claim.against):
            if arm not in self.arms:
                raise InputError(
                    f"{where} speaks of the arm {arm!r}{suggestion(arm, self.arms)};"
                    f" the arms are {', '.join(self.arms)}"
                )
        splits = ("test", *self.task.named_others)
        if claim.split not in splits:
            raise InputError(
                f"{where} speaks of the items {claim.split!r}"
                f"{suggestion(claim.split, splits)}; there are {', '.join(splits)}"
            )
        if claim.rule != "more" and not claim.margin:
            raise InputError(
                f"{where} has rule={claim.rule!r} without a margin; fix one above 0"
                " before looking"
            )
