"""What the members of a fine-tuning population learn from and are scored on.

source -> tokenizer -> labelled sets -> a subset and a plan a member (-> other text)
"""

from collections.abc import Sequence

import numpy as np

from tljax.cli import parts
from tljax.cli.members import Member
from tljax.data import batches
from tljax.data.corpus import training_iterator
from tljax.data.labelled import LabelledSet, load_labelled, nested_subset
from tljax.data.sources import open_source
from tljax.data.token_store import open_token_store
from tljax.evaluate import classification
from tljax.settings import FinetuneSettings, InputError
from tljax.transfer.method import prompt_places

_STEPS = 32  # plans are as long as a multiple of it: populations share programs
_REPLAY_ROWS = 4096  # of other text on the device
FISHER_ROWS = 256  # of it that tell what is important


class CrewData:
    """Labelled sets, and each member's plan over them.

    Attributes:
      tokenizer, classes: of the task.
      sets: the held-out splits, by name.
      facts: what the manifest says of the data.
      whole: the training split; used: those of its items that some member learns from.
      train: these items alone.
      rows, row_length, slots: shape of a batch.
      plans: a member's steps, by its folder; longest: most steps of a member.
      text: rows of other text; {} without.
    """

    def __init__(self, members: Sequence[Member]):
        first = members[0].settings
        self.settings = first
        task = first.task
        source = open_source(task.source)
        self.tokenizer = parts.get_tokenizer(
            first.tokenizer, first.init.source, members[0].folder, source
        )
        self.whole = self._load(source, "train")
        self.classes = self.whole.classes
        held_out = {
            "validation": task.validation_items,
            **({"test": 0} if task.score_test else {}),
        }
        self.sets: dict[str, LabelledSet] = {
            split: self._load(source, split, classes=self.classes, items=items)
            for split, items in held_out.items()
        }
        self.facts = parts.data_facts(source, ("train", *self.sets))
        for name, uri in task.named_others.items():
            other = open_source(uri)
            self.sets[name] = self._load(other, "test", classes=self.classes)
            self.facts |= parts.data_facts(other, ("test",))
        self.row_length = task.length
        self.slots = classification.scoring_slots(
            [self.whole, *self.sets.values()], self.row_length
        )
        self.rows = batches.choose_rows(
            self.whole.lengths, batch=first.optim.batch, row_length=self.row_length
        )
        subsets = [self._subset(self.whole, one.settings) for one in members]
        self.used = np.unique(np.concatenate(subsets))
        # what no member learns from costs nothing
        self.train = self.whole.take(self.used)
        self._items = {  # of self.train
            one.settings: np.searchsorted(self.used, subset)
            for one, subset in zip(members, subsets, strict=True)
        }
        self.plans = {
            one.folder: self._plan(one.settings, self._items[one.settings])
            for one in members
        }
        self.longest = max(plan.steps for plan in self.plans.values())
        self.text = self._open_text() if first.regularize.replay_source else {}

    def _load(self, source, split: str, **more) -> LabelledSet:
        """A labelled split, with room for a prompt where the method has one."""
        length = self.settings.task.length
        found = load_labelled(source, split, self.tokenizer, length=length, **more)
        places = prompt_places(self.settings.transfer)
        return found.behind(places, self.tokenizer.end_id, length)

    def _subset(self, whole: LabelledSet, settings: FinetuneSettings) -> np.ndarray:
        """A member's items, in the order of `nested_subset`."""
        n = settings.task.n
        return nested_subset(whole.labels, n, settings.streams.subset, self.classes)

    def _plan(self, settings: FinetuneSettings, indices) -> batches.PackedPlan:
        """A member's steps on items of self.train."""
        plan = batches.training_plan(
            self.train, indices, batch=settings.optim.batch, epochs=settings.epochs,
            rows=self.rows, row_length=self.row_length, slots=self.slots,
            seed=settings.streams.order,
        )  # fmt: skip
        if not plan.steps:
            raise InputError(
                f"config.epochs={settings.epochs} of {len(indices)} items is less than"
                f" one item; take at least {1 / len(indices):g}"
            )
        return plan

    def learned(self, settings: FinetuneSettings) -> LabelledSet:
        """The items that a member learns from."""
        return self.train.take(self._items[settings])

    def padded_plan(self, plan: batches.PackedPlan) -> dict[str, np.ndarray]:
        """The plan's arrays, all members' as long as the longest's, or longer.

        Steps behind a member's own are never taken.
        """
        more = -(-self.longest // _STEPS) * _STEPS - plan.steps
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

    def _open_text(self) -> dict[str, np.ndarray]:
        """Rows of other text: so many whatever the members, for theirs are drawn."""
        settings = self.settings.regularize
        source = open_source(settings.replay_source)
        self.facts |= parts.data_facts(source, ("train",))
        store = open_token_store(source, "train", self.tokenizer)
        rows = _REPLAY_ROWS if settings.replay else FISHER_ROWS
        batches_of_rows = training_iterator(
            store, batch=rows, length=self.row_length, seed=0
        )
        return next(batches_of_rows)
