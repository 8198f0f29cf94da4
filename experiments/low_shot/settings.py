"""What the question `scratch or transfer?` leaves open, and the plan to answer it."""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

from experiments.settings import AdaptStage, PretrainStage, check_arm
from tljax.report.statistics import check_plan
from tljax.settings import (
    CorpusSettings,
    HeadSettings,
    InputError,
    ModelSettings,
    OptimSettings,
    RecordSettings,
    TokenizerSettings,
    TransferSettings,
    setting,
    suggestion,
)

ARMS = ("scratch", "transfer")
BASELINE = "tfidf"
PROBE_LABELS = 100  # where a probe's claims are made, or at the nearest size


@dataclasses.dataclass(frozen=True)
class LabelledSettings:
    """The labelled set; how much of it is learnt from is the plan's matter."""

    source: str = setting("URI of the labelled set, e.g. csv:a.csv?text=review&label=y")
    length: int = setting("tokens of one packed row; longer items are cut", low=8)
    validation_items: int = setting(
        "validation items scored while training; 0 = all", low=0
    )


@dataclasses.dataclass(frozen=True)
class FinetuneStage:
    """How every fine-tuning run is trained; rate and epochs come from `tuned`."""

    head: HeadSettings
    optim: OptimSettings
    record: RecordSettings


@dataclasses.dataclass(frozen=True)
class ProbeStage:
    """An arm of other people's: a probe on a frozen pretrained model."""

    source: str = setting("URI of the model; '' = no such arm")
    arm: str = setting("name of the arm, in run folders and figures")
    layers: tuple[int, ...] = setting(
        "the stream after so many layers is probed; of several, validation chooses",
        low=0,
    )
    poolings: tuple[str, ...] = setting(
        "mean, last, cls or max, or several side by side as in mean+last; likewise"
    )
    seeds: int = setting("subsets that choose, where there is a choice", low=1)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The poolings that those side by side are made of, none twice."""
        return tuple(dict.fromkeys("+".join(self.poolings).split("+")))

    def check(self, where: str) -> None:
        """Refuses a name that no run folder can have, and empty choices."""
        if not self.source:
            return
        check_arm(f"{where}.arm", self.arm, (*ARMS, BASELINE))
        if not (self.layers and self.poolings):
            raise InputError(f"{where}.layers and {where}.poolings must name some")
        known = HeadSettings.__dataclass_fields__["pooling"].metadata["choices"]
        for pooling in self.kinds:
            if pooling not in known:
                raise InputError(
                    f"{where}.poolings has {pooling!r}{suggestion(pooling, known)};"
                    f" allowed: {', '.join(known)}"
                )


@dataclasses.dataclass(frozen=True)
class LoraStage:
    """A second arm of the probe's model: it is fine-tuned; rates come from `tuned`."""

    arm: str = setting("name of the arm; '' = no such arm")
    transfer: TransferSettings
    head: HeadSettings
    optim: OptimSettings
    record: RecordSettings


@dataclasses.dataclass(frozen=True)
class Claim:
    """`arm` is more accurate than `against` with n labels."""

    name: str = setting("how the report calls it")
    arm: str = setting("the better one")
    against: str = setting("the worse one")
    n: int = setting("number of labels, one of the sizes", low=2)


@dataclasses.dataclass(frozen=True)
class PlanSettings:
    """Fixed before anything runs."""

    sizes: tuple[int, ...] = setting("numbers of labels, cut to what exists", low=2)
    seeds: int = setting("runs an arm and size: subset, head, order", low=2)
    alpha: float = setting("level of the family of claims (Holm)", low=0.0, high=0.5)
    claims: tuple[Claim, ...] = setting(
        "the claims; () = transfer > scratch at each n, and the pretrained model's arms"
        " > scratch and TF-IDF at the n nearest to 100"
    )


@dataclasses.dataclass(frozen=True)
class Choice:
    """What is chosen on validation items for an arm at a size."""

    lr_peak: float = setting("peak learning rate", low=0.0)
    epochs: float = setting("passes over the n items", low=0.0)
    layer_decay: float = setting(
        "learning rate of a layer = next layer's x this; 1 = equal", low=0.01, high=1.0
    )


@dataclasses.dataclass(frozen=True)
class TuningSettings:
    """The grid tried for every arm on validation items; no rates = `tuned`."""

    rates: tuple[float, ...] = setting("peak learning rates tried; () = none", low=0.0)
    layer_decays: tuple[float, ...] = setting("layer decays tried", low=0.01, high=1.0)
    epochs: Mapping[str, tuple[float, ...]] = setting(
        "epochs.N: numbers of epochs tried with N labels; other sizes take the choice"
        " of the nearest N",
        low=0.0,
    )
    seeds: int = setting("runs a grid point, on seeds of their own", low=1)
    validation_items: int = setting("validation items that decide; 0 = all", low=0)


@dataclasses.dataclass(frozen=True)
class LowShotSettings:
    """The whole experiment."""

    corpus: CorpusSettings
    tokenizer: TokenizerSettings
    model: ModelSettings
    pretrain: PretrainStage
    adapt: AdaptStage
    task: LabelledSettings
    finetune: FinetuneStage
    probe: ProbeStage
    lora: LoraStage
    plan: PlanSettings
    tuning: TuningSettings
    tuned: Mapping[str, Mapping[str, Choice]] = setting(
        "tuned.ARM.N: rate and epochs; a size without an entry takes the nearest N's;"
        " {} = tuned here"
    )

    @property
    def tuned_arms(self) -> tuple[str, ...]:
        """The arms that gradients train."""
        return (*ARMS, *([self.lora.arm] if self.lora.arm else []))

    @property
    def arms(self) -> tuple[str, ...]:
        """All of them."""
        probes = [self.probe.arm] if self.probe.source else []
        return (*self.tuned_arms, BASELINE, *probes)

    def check(self, where: str) -> None:
        """Refuses a plan that could not pass, and choices lacking or never read."""
        if self.lora.arm:
            if not self.probe.source:
                raise InputError(
                    f"{where}.lora.arm is {self.lora.arm!r}, but {where}.probe.source,"
                    " the model of both, is empty; give it, or leave both empty"
                )
            taken = (*ARMS, BASELINE, self.probe.arm)
            check_arm(f"{where}.lora.arm", self.lora.arm, taken)
        self._check_tuning(f"{where}.tuning")
        self._check_tuned(where)
        for stage, (name, unset) in itertools.product(
            ("finetune", "lora"), {"lr_peak": 0.0, "layer_decay": 1.0}.items()
        ):
            value = getattr(getattr(self, stage).optim, name)
            if value != unset:
                raise InputError(
                    f"{where}.{stage}.optim.{name} is {value}, but every arm and size"
                    f" has its own; leave it at {unset} and set"
                    f" {where}.tuned.ARM.N.{name} or {where}.tuning"
                )
        plan_for(self.plan, max(self.plan.sizes, default=0), self.arms)

    def _check_tuning(self, where: str) -> None:
        tuning = self.tuning
        if tuning.rates and not (tuning.epochs and tuning.layer_decays):
            raise InputError(
                f"{where}.rates is given; give epochs and layer_decays too: the grid"
                " is their product"
            )
        _check_sizes(tuning.epochs, f"{where}.epochs")
        for n, epochs in tuning.epochs.items():
            if not epochs:
                raise InputError(
                    f"{where}.epochs.{n} is empty; give numbers of epochs, or leave"
                    f" {n} out"
                )

    def _check_tuned(self, where: str) -> None:
        for arm, choices in self.tuned.items():
            if arm not in self.tuned_arms:
                raise InputError(
                    f"{where}.tuned.{arm} is no arm{suggestion(arm, self.tuned_arms)};"
                    f" allowed: {', '.join(self.tuned_arms)}"
                )
            _check_sizes(choices, f"{where}.tuned.{arm}")
        if self.tuning.rates and any(self.tuned.values()):
            raise InputError(
                f"{where}.tuned and {where}.tuning.rates are both given, but the grid"
                f" decides alone; set {where}.tuned={{}} or {where}.tuning.rates=()"
            )
        for arm in self.tuned_arms:
            if not self.tuned.get(arm) and not self.tuning.rates:
                raise InputError(
                    f"{where}.tuned.{arm} is empty and {where}.tuning.rates too; give"
                    " a choice or a grid"
                )


def _check_sizes(sizes: Iterable[str], where: str) -> None:
    """Refuses keys that are no number of labels, or one written in a second way."""
    for n in sizes:
        if not (n.isdecimal() and int(n) >= 2 and str(int(n)) == n):
            raise InputError(
                f"{where}: {n!r} is no number of labels; it must be a whole number of"
                " at least 2, written without zeros in front"
            )


def plan_for(plan: PlanSettings, existing: int, arms: Sequence[str]) -> PlanSettings:
    """The plan with its sizes cut to the labels that exist and its claims spelt out.

    Args:
      plan: as the config has it.
      existing: training labels that there are.
      arms: of the experiment.

    Raises:
      InputError: a claim about a size or an arm that is not in the plan, or a plan that
        could not pass whatever the outcome.
    """
    sizes = tuple(sorted({min(n, existing) for n in plan.sizes}))
    claims = plan.claims or _claims(sizes, arms)
    for claim in claims:
        if claim.n not in sizes:
            raise InputError(
                f"config.plan.claims speak of n = {claim.n}; the sizes are"
                f" {', '.join(map(str, sizes))} ({existing} labels exist)"
            )
        for arm in (claim.arm, claim.against):
            if arm not in arms:
                raise InputError(
                    f"config.plan.claims speak of the arm {arm!r}"
                    f"{suggestion(arm, arms)}; the arms are {', '.join(arms)}"
                )
    check_plan(plan.seeds, claims, plan.alpha)
    return dataclasses.replace(plan, sizes=sizes, claims=claims)


def _claims(sizes: tuple[int, ...], arms: Sequence[str]) -> tuple[Claim, ...]:
    """Transfer beats scratch at each size; others beat scratch and the baseline."""
    pairs = [("transfer", "scratch", n) for n in sizes]
    if sizes:
        n = min(sizes, key=lambda n: abs(math.log(n / PROBE_LABELS)))
        for arm in arms:
            if arm not in (*ARMS, BASELINE):
                pairs += [(arm, "scratch", n), (arm, BASELINE, n)]
    return tuple(
        Claim(f"{arm} beats {against} at n = {n}", arm, against, n)
        for arm, against, n in pairs
    )
