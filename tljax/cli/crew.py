"""What the members of a fine-tuning population share: data, base weights, programs.

labelled sets, plans (one a member)  ->  advance: steps of training, compiled once
base model                           ->  first_params: each member's own start; frozen:
                                         what does not move, once for all
frozen bottom                        ->  its output for every token, computed once
"""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Sequence

import jax
import numpy as np

from tljax.cli import parts
from tljax.cli.models import embedding_rows, load_source_params
from tljax.data import batches
from tljax.data.corpus import training_iterator
from tljax.data.labelled import LabelledSet, load_labelled, nested_subset
from tljax.data.sources import open_source
from tljax.data.token_store import open_token_store
from tljax.evaluate import classification
from tljax.evaluate.features import pooled_features, token_streams
from tljax.evaluate.probe import fit_probe
from tljax.model import heads, transformer
from tljax.objective.classification import gather, labelled_loss
from tljax.objective.importance import fisher
from tljax.settings import FinetuneSettings, InputError, TransferSettings
from tljax.train import population, step
from tljax.train.checkpoint import params_sha256
from tljax.train.progress import Progress
from tljax.transfer.method import compose, prompt_places, split, untouched_layers
from tljax.transfer.transplant import flat, nested, transplant

_REPLAY_ROWS = 4096  # of other text on the device
_FISHER_ROWS = 256  # of it that tell what is important


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
        whole = self._load(source, "train")
        self.classes = whole.classes
        held_out = {
            "validation": task.validation_items,
            **({"test": 0} if task.score_test else {}),
        }
        self.sets: dict[str, LabelledSet] = {
            split: self._load(source, split, classes=self.classes, items=items)
            for split, items in held_out.items()
        }
        self.data = parts.data_facts(source, ("train", *self.sets))
        for name, uri in task.named_others.items():
            other = open_source(uri)
            self.sets[name] = self._load(other, "test", classes=self.classes)
            self.data |= parts.data_facts(other, ("test",))
        self.row_length = task.length
        self.slots = classification.scoring_slots(
            [whole, *self.sets.values()], self.row_length
        )
        self.rows = batches.choose_rows(
            whole.lengths, batch=first.optim.batch, row_length=self.row_length
        )
        subsets = [self._subset(whole, one.settings) for one in members]
        used = np.unique(np.concatenate(subsets))
        self.train = whole.take(used)  # what no member learns from costs nothing
        self._jit_init = jax.jit(self._init)
        self.base = None
        if first.init.source:
            self.base = load_source_params(first.init.source, first.model)
        self.start, self.init_facts = self._transplant()
        self.frozen = self._freeze()
        self.scorer = classification.Scorer(
            first.model, first.head.pooling, self.row_length, self.slots, first.transfer
        )
        self._items = {  # of self.train
            one.settings: np.searchsorted(used, subset)
            for one, subset in zip(members, subsets, strict=True)
        }
        self.plans = {
            one.folder: self._plan(one.settings, self._items[one.settings])
            for one in members
        }
        self.longest = max(plan.steps for plan in self.plans.values())
        self.text = self._open_text() if first.regularize.replay_source else {}
        self.shared_flops = 0.0
        self.flat = self._flat(whole, used)
        self.scoring = {
            name: self.scorer.plan(one, self._flat(one, np.arange(len(one))))
            for name, one in self.sets.items()
        }
        self._advance = {}

    def _load(self, source, split: str, **more) -> LabelledSet:
        """A labelled split, with room for a prompt where the method has one."""
        length = self.settings.task.length
        found = load_labelled(source, split, self.tokenizer, length=length, **more)
        places = prompt_places(self.settings.transfer)
        return found.behind(places, self.tokenizer.end_id, length)

    def _init(self, key: jax.Array) -> dict:
        """Fresh parameters, those of the head by a key of their own.

        All of them from scratch; with a source only what `_fresh` names.
        """
        model, init = self.settings.model, self.settings.init
        params = {}
        if not init.source or init.reinit_layers:
            params = transformer.init_params(model, self.tokenizer.vocab_size, key)
            params.pop("output", None)
        if init.source:
            params = nested(
                {
                    path: leaf
                    for path, leaf in flat(params).items()
                    if any(re.fullmatch(pattern, path) for pattern in self._fresh())
                }
            )
        head_key = jax.random.fold_in(key, 1)
        classes = len(self.classes)
        params["head"] = heads.init_classifier(model.width, classes, head_key)
        return params

    def _fresh(self) -> list[str]:
        """Patterns of the leaves that the source does not give.

        The top layers and the final norm, their layer norm, are drawn anew as Zhang et
        al. 2021, section 5, do; the head always is.
        """
        model, anew = self.settings.model, self.settings.init.reinit_layers
        tops = [rf"layers/{model.depth - 1 - i}/.*" for i in range(anew)]
        norm = ["final_norm/.*"] if anew and model.norm_place != "after" else []
        return ["head/.*", *tops, *norm]

    def _transplant(self) -> tuple[dict, dict | None]:
        """The base's parameters in their places, without what is fresh; the facts."""
        if not self.settings.init.source:
            return {}, None
        rows = embedding_rows(self.settings.init.source, self.tokenizer)
        key = jax.random.key(0)
        target = jax.eval_shape(
            lambda key: (
                transformer.init_params(self.settings.model, rows, key)
                | {"head": self._init(key)["head"]}
            ),
            key,
        )
        target.pop("output", None)
        left = [f"{name}/.*" for name in ("output", "head") if name in self.base]
        params, ledger = transplant(self.base, target, fresh=self._fresh(), left=left)
        leaves = flat(params)
        copied = [entry.path for entry in ledger if entry.what == "copied"]
        params = nested({path: leaves[path] for path in copied})
        sha256 = params_sha256(self.base)
        source = self.settings.init.source
        return params, parts.ledger_facts(source, ledger, sha256)

    def _freeze(self) -> dict:
        """What no member moves, once and on the device; {} where all moves."""
        settings = self.settings.transfer
        if settings == TransferSettings():
            return {}
        start = {**self.start, "head": {}}
        frozen = jax.device_put(split(start, settings, jax.random.key(0))[1])
        self.start = nested({**flat(self.start), **flat(frozen)})
        self.base = None  # its copy on the host is not needed any more
        return frozen

    def _flat(self, labelled: LabelledSet, items: np.ndarray) -> np.ndarray:
        """The items' tokens, or what the frozen bottom computes for each of them."""
        chosen = labelled.take(items)
        model = self.settings.model
        below = untouched_layers(model, self.settings.transfer)
        if not below:
            return batches.flat_tokens(chosen)
        tokens = int(chosen.lengths.sum())
        layers = {str(i): self.start["layers"][str(i)] for i in range(below)}
        self.shared_flops += parts.forward_flops(
            {"layers": layers}, tokens=tokens, output=False
        )
        with Progress(f"{below} frozen layers", len(items)) as bar:
            return token_streams(
                model,
                self._beginning(self.settings),
                labelled.tokens,
                items,
                below=below,
                progress=lambda items, tokens: bar.update(items, tokens=tokens),
            )

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

    def first_params(self, settings: FinetuneSettings) -> dict:
        """What a member moves, before its first step."""
        params = self._beginning(settings)
        if settings.head.start == "probe":
            params["head"] = self._probe(params, settings)
        adapter_key = jax.random.fold_in(jax.random.key(settings.streams.init), 2)
        return split(params, settings.transfer, adapter_key)[0]

    def _beginning(self, settings: FinetuneSettings) -> dict:
        """The source's parameters with a member's own fresh ones: the whole tree."""
        fresh = self._jit_init(jax.random.key(settings.streams.init))
        return nested({**flat(self.start), **flat(fresh)})

    def _probe(self, params: dict, settings: FinetuneSettings) -> dict:
        """The head that is the ridge probe on a member's own labelled items.

        Ridge and temperature are the probe's, by left-one-out likelihood, so that the
        first logits are as sure as the features allow.

        Source: LP-FT, Kumar et al. 2022; the probe there is a logistic regression.
        """
        chosen = self.train.take(self._items[settings])
        if len(chosen) < 2:
            raise InputError(
                "config.head.start='probe' needs two labelled items; config.task.n is"
                f" {settings.task.n}"
            )
        pooling = settings.head.pooling
        features_ID = pooled_features(
            settings.model, params, chosen.tokens, poolings=(pooling,)
        )[:, 0, 0]
        return fit_probe(features_ID, chosen.labels, len(self.classes)).as_classifier()

    def whole(self, moving: dict) -> dict:
        """A member's parameters with those that did not move."""
        return compose(moving, self.frozen, self.settings.transfer).params

    def flops(self, one: Member, moving: dict, *, tokens: int) -> float:
        """Of a member's probe and steps, and its share of what all members share."""
        on = self.settings.regularize
        labelled = tokens * (2 if on.rdrop else 1)
        replayed = tokens / on.replay_every if on.replay else 0
        own = parts.training_flops(
            moving, self.frozen_above, tokens=labelled + replayed
        )
        there = "tokens" in moving.get("embedding", {})
        embedding = (moving if there else self.start)["embedding"]["tokens"]
        worded = replayed + (labelled if on.lm_weight else 0)
        own += (6.0 if there else 4.0) * embedding.size * worded
        if one.settings.head.start == "probe":
            read = int(self.train.lengths[self._items[one.settings]].sum())
            whole = self.whole(moving)
            own += parts.forward_flops(whole, tokens=read, output=False)
        return own + self.shared_flops / len(self.plans)

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

    def data_on_device(self) -> dict:
        """What every step of every member reads."""
        data = {"flat": jax.numpy.asarray(self.flat), "frozen": self.frozen}
        regularize = self.settings.regularize
        if regularize.l2_start or regularize.mixout or regularize.ewc:
            data["start"] = self.first_weights
        if regularize.replay:
            data["replay"] = jax.device_put(self.text)
        if regularize.ewc:
            data["fisher"] = self.fisher
        return data

    def _open_text(self) -> dict[str, np.ndarray]:
        """Rows of other text, for all members: as many as the longest draws from."""
        settings = self.settings.regularize
        source = open_source(settings.replay_source)
        self.data |= parts.data_facts(source, ("train",))
        store = open_token_store(source, "train", self.tokenizer)
        rows = _FISHER_ROWS if settings.ewc else 1
        if settings.replay:
            drawn = self.rows * -(-self.longest // settings.replay_every)
            rows = min(max(drawn, rows), _REPLAY_ROWS)
        batches_of_rows = training_iterator(
            store, batch=rows, length=self.row_length, seed=0
        )
        return next(batches_of_rows)

    @functools.cached_property
    def fisher(self) -> dict:
        """How much the other text depends on each of the first weights."""
        settings, start = self.settings, self.first_weights
        text = {name: rows[:_FISHER_ROWS] for name, rows in self.text.items()}
        tokens = text["tokens_BL"].size
        self.shared_flops += 3 * parts.forward_flops(
            self.start, tokens=tokens, output=True
        )
        measure = jax.jit(functools.partial(fisher, settings.model, settings.transfer))
        return measure(start, self.frozen, text)

    @functools.cached_property
    def first_weights(self) -> dict:
        """What moves as the base has it, without the head; on the device."""
        start = {**self.start, "head": {}}
        moving, _ = split(start, self.settings.transfer, jax.random.key(0))
        return jax.device_put(moving)

    @property
    def frozen_above(self) -> dict:
        """The frozen layers that gradients pass through."""
        first = untouched_layers(self.settings.model, self.settings.transfer)
        layers = self.frozen.get("layers", {})
        return {"layers": {i: one for i, one in layers.items() if int(i) >= first}}

    def advance(self, mode: str):
        """advance(data, state, plan, hparams, until), compiled once a mode."""
        if mode not in self._advance:
            first = self.settings
            loss = labelled_loss(
                first.model, first.head.pooling, first.transfer, first.regularize
            )
            train_step = step.make_train_step(loss, first.optim, first.regularize)
            rounds = population.make_train_rounds(train_step, _take)
            lifted = population.lift(rounds, mode, shared=1)
            self._advance[mode] = jax.jit(lifted, donate_argnums=1)
        return self._advance[mode]


def _take(data, plan, index):
    """The batch of one step, gathered on the device; data is `Crew.data_on_device`."""
    flat = data["flat"]
    return {
        "tokens_BL" if flat.ndim == 1 else "stream_BLD": gather(
            flat, plan["gather_TBL"][index]
        ),
        "segments_BL": plan["segments_TBL"][index],
        "labels_BM": plan["labels_TBM"][index],
        "weights_BM": plan["weights_TBM"][index],
        "frozen": data["frozen"],
        **{name: data[name] for name in ("start", "replay", "fisher") if name in data},
    }
