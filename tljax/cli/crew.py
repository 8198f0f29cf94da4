"""What the members of a fine-tuning population share: data, base weights, programs.

labelled sets, plans (one a member)  ->  advance: steps of training, compiled once
base run's parameters                ->  first_params: each member's own start
"""

import dataclasses
import pathlib
from collections.abc import Sequence

import jax
import numpy as np

from tljax.cli import parts
from tljax.data import batches
from tljax.data.labelled import LabelledSet, load_labelled, nested_subset
from tljax.data.sources import open_source
from tljax.evaluate import classification
from tljax.model import heads, transformer
from tljax.objective.classification import gather, labelled_loss
from tljax.settings import FinetuneSettings, InputError
from tljax.train import population, step
from tljax.transfer.transplant import transplant


@dataclasses.dataclass(frozen=True)
class Member:
    """One run of a population."""

    settings: FinetuneSettings
    folder: pathlib.Path


class Crew:
    """What the members share: data, base parameters, compiled programs."""

    def __init__(self, members: Sequence[Member]):
        first = members[0].settings
        self.settings = first
        task = first.task
        source = open_source(task.source)
        self.tokenizer = parts.get_tokenizer(
            first.tokenizer, first.init.source, members[0].folder, source
        )
        self.train = load_labelled(source, "train", self.tokenizer, length=task.length)
        self.classes = self.train.classes
        held_out = {
            "validation": task.validation_items,
            **({"test": 0} if task.score_test else {}),
        }
        self.sets: dict[str, LabelledSet] = {
            split: load_labelled(
                source, split, self.tokenizer, length=task.length,
                classes=self.classes, items=items,
            )
            for split, items in held_out.items()
        }  # fmt: skip
        self.data = parts.data_facts(source, ("train", *self.sets))
        self.row_length = task.length
        self.slots = classification.scoring_slots(
            [self.train, *self.sets.values()], self.row_length
        )
        self.rows = batches.choose_rows(
            self.train.lengths, batch=first.optim.batch, row_length=self.row_length
        )
        self.base, self.ledger = None, None
        if first.init.source:
            self.base = parts.load_source_params(first.init.source, first.model)
        self.scorer = classification.Scorer(
            first.model, first.head.pooling, self.row_length, self.slots
        )
        self.scoring = {name: self.scorer.plan(one) for name, one in self.sets.items()}
        self.plans = {one.folder: self._plan(one.settings) for one in members}
        self.longest = max(plan.steps for plan in self.plans.values())
        self.flat = batches.flat_tokens(self.train)
        self._advance = {}

        @jax.jit
        def init(key):
            params = transformer.init_params(
                first.model, self.tokenizer.vocab_size, key
            )
            params.pop("output", None)
            head_key = jax.random.fold_in(key, 1)
            width, classes = first.model.width, len(self.classes)
            params["head"] = heads.init_classifier(width, classes, head_key)
            return params

        self._init = init

    def _plan(self, settings: FinetuneSettings) -> batches.PackedPlan:
        n = settings.task.n or len(self.train)
        indices = nested_subset(self.train.labels, n, settings.seed, self.classes)
        plan = batches.training_plan(
            self.train, indices, batch=settings.optim.batch, epochs=settings.epochs,
            rows=self.rows, row_length=self.row_length, slots=self.slots,
            seed=settings.seed,
        )  # fmt: skip
        if not plan.steps:
            raise InputError(
                f"config.epochs={settings.epochs} of {n} items is less than one item;"
                f" take at least {1 / n:g}"
            )
        return plan

    def first_params(self, settings: FinetuneSettings) -> dict:
        """A member's parameters before its first step."""
        params = self._init(jax.random.key(settings.seed))
        if self.base is None:
            return params
        left = ["output/.*"] if "output" in self.base else []
        params, self.ledger = transplant(
            self.base, params, fresh=["head/.*"], left=left
        )
        return params

    def tokens(self, one: Member) -> int:
        """Tokens that a member's training computes, padding included."""
        return self.plans[one.folder].segments_TBL.size

    def padded_plan(self, plan: batches.PackedPlan) -> dict[str, np.ndarray]:
        """The plan's arrays, all members' as long as the longest's."""
        more = self.longest - plan.steps
        fill = {"gather_TBL": -1, "segments_TBL": 0, "labels_TBM": 0, "weights_TBM": 0}
        return {
            name: np.concatenate(
                [
                    getattr(plan, name),
                    np.full_like(getattr(plan, name)[:1], value).repeat(more, axis=0),
                ]
            )
            for name, value in fill.items()
        }

    def advance(self, mode: str):
        """advance(flat, state, plan, hparams, until), compiled once a mode."""
        if mode not in self._advance:
            loss = labelled_loss(self.settings.model, self.settings.head.pooling)
            train_step = step.make_train_step(loss, self.settings.optim)
            rounds = population.make_train_rounds(train_step, _take)
            lifted = population.lift(rounds, mode, shared=1)
            self._advance[mode] = jax.jit(lifted, donate_argnums=1)
        return self._advance[mode]


def _take(flat, plan, index):
    """The batch of one step, gathered on the device."""
    return {
        "tokens_BL": gather(flat, plan["gather_TBL"][index]),
        "segments_BL": plan["segments_TBL"][index],
        "labels_BM": plan["labels_TBM"][index],
        "weights_BM": plan["weights_TBM"][index],
    }
