"""What the members of a fine-tuning population share, and the programs that train them.

crew_data   labelled sets, a plan a member      ->  advance: steps, compiled once
crew_start  base, each member's own start       ->  first_state
            frozen bottom                       ->  its output for every token, once
"""

import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np

from tljax.cli import parts
from tljax.cli.crew_data import FISHER_ROWS, CrewData
from tljax.cli.crew_start import CrewStart
from tljax.cli.members import Member, mesh_of
from tljax.data import batches
from tljax.data.labelled import LabelledSet
from tljax.evaluate import classification
from tljax.evaluate.features import token_streams
from tljax.objective import regularize
from tljax.objective.classification import gather, labelled_loss, reads_one_token
from tljax.objective.importance import fisher
from tljax.settings import FinetuneSettings
from tljax.train import memory, optimizer, population, sharding, step
from tljax.train.progress import Progress
from tljax.transfer import lora
from tljax.transfer.method import split, untouched_layers
from tljax.transfer.start import between


class Crew:
    """Data, base and compiled programs of members that train side by side."""

    def __init__(self, members: Sequence[Member]):
        first = members[0].settings
        self.settings = first
        self.mesh = sharding.make_mesh(mesh_of(members))
        self.data = CrewData(members)
        self.start = CrewStart(first, self.data)
        self.scorer = classification.Scorer(
            first.model, first.head.pooling, self.data.row_length,
            list(self.data.sets.values()), first.transfer, self.mesh,
        )  # fmt: skip
        self.frozen = population.copied(self.start.frozen, self.mesh)
        self.shared_flops = 0.0
        self.flat = self._flat(self.data.whole, self.data.used)
        self.scoring = {
            name: self.scorer.plan(one, self._flat(one, np.arange(len(one))))
            for name, one in self.data.sets.items()
        }
        self._advance = {}

    def _flat(self, labelled: LabelledSet, items: np.ndarray) -> np.ndarray:
        """The items' tokens, or what the frozen bottom computes for each of them."""
        chosen = labelled.take(items)
        model = self.settings.model
        below = untouched_layers(model, self.settings.transfer)
        if not below:
            return batches.flat_tokens(chosen)
        tokens = int(chosen.lengths.sum())
        layers = {str(i): self.start.base["layers"][str(i)] for i in range(below)}
        self.shared_flops += parts.forward_flops(
            {"layers": layers}, tokens=tokens, output=False
        )
        with Progress(f"{below} frozen layers", len(items)) as bar:
            return token_streams(
                model,
                self.start.beginning(self.settings),
                labelled.tokens,
                items,
                below=below,
                progress=lambda items, tokens: bar.update(items, tokens=tokens),
            )

    def first_state(self, one: Member) -> step.TrainState:
        """A member's state before its first step."""
        params, settings = self.start.first_params(one.settings), one.settings
        return step.init_state(params, settings.optim, settings.regularize)

    @staticmethod
    def hyperparameters(settings: FinetuneSettings, *, steps: int) -> dict:
        """A member's traced numbers."""
        return {
            **optimizer.hyperparameters(settings.optim, steps, settings.streams.order),
            **regularize.hyperparameters(settings.regularize, settings.model),
            **lora.hyperparameters(settings.transfer),
        }

    @functools.cached_property
    def state_shapes(self) -> step.TrainState:
        """Of a member's state before its first step."""
        settings = self.settings

        def first_state(params):
            moving, _ = split(params, settings.transfer, jax.random.key(0))
            return step.init_state(moving, settings.optim, settings.regularize)

        return jax.eval_shape(first_state, self.start.shapes())

    def member_bytes(self, mode: str) -> int:
        """What a member needs in memory beside what all share (`train.memory`)."""
        settings, state = self.settings, self.state_shapes
        keeps_best = settings.record.choose == "best"
        needed = memory.member_bytes(state, state.chosen, keeps_best=keeps_best)
        if mode == "turn":  # one at a time: what it reads and forgets is the run's own
            return needed
        plan = self.data.padded_plan(next(iter(self.data.plans.values())))

        def first_batch(data, plan):
            batch = _take(data, plan, jax.numpy.int32(0))
            return {**batch, "step": jax.numpy.int32(0)}

        batch = jax.eval_shape(first_batch, self.data_on_device(), plan)
        batch["hparams"] = self.hyperparameters(settings, steps=1)
        return needed + memory.activation_bytes(self.loss(mode), state.params, batch)

    def flops(self, one: Member, moving: dict, *, tokens: int) -> float:
        """Of a member's probe and steps, and its share of what all members share."""
        on = self.settings.regularize
        labelled = tokens * (2 if on.rdrop else 1)
        replayed = tokens / on.replay_every if on.replay else 0
        parameters = moving, self.start.frozen_above
        own = parts.training_flops(*parameters, tokens=labelled + replayed)
        if reads_one_token(self.settings.head.pooling, on):
            unread = labelled * (1 - self.data.slots / self.data.row_length)
            top = [parts.at_read_tokens(self.settings.model, x) for x in parameters]
            own -= parts.training_flops(*top, tokens=unread)
        there = "tokens" in moving.get("embedding", {})
        embedding = (moving if there else self.start.base)["embedding"]["tokens"]
        worded = replayed + (labelled if on.lm_weight else 0)
        own += (6.0 if there else 4.0) * embedding.size * worded
        if one.settings.head.start == "probe":
            read = int(self.data.learned(one.settings).lengths.sum())
            whole = self.start.whole(moving)
            own += parts.forward_flops(whole, tokens=read, output=False)
        return own + self.shared_flops / len(self.data.plans)

    def tokens(self, one: Member) -> int:
        """Tokens that a member's training computes, padding included."""
        return self.data.plans[one.folder].segments_TBL.size

    def data_on_device(self) -> dict:
        """What every step of every member reads."""
        data = {"flat": jax.numpy.asarray(self.flat), "frozen": self.frozen}
        regularize = self.settings.regularize
        if regularize.l2_start or regularize.mixout or regularize.ewc:
            data["start"] = self.start.first_weights
        if regularize.replay:
            data["replay"] = jax.device_put(self.data.text)
        if regularize.ewc:
            data["fisher"] = self.fisher
        return population.copied(data, self.mesh)

    @functools.cached_property
    def fisher(self) -> dict:
        """How much the other text depends on each of the first weights."""
        settings, start = self.settings, self.start.first_weights
        text = {name: rows[:FISHER_ROWS] for name, rows in self.data.text.items()}
        tokens = text["tokens_BL"].size
        self.shared_flops += 3 * parts.forward_flops(
            self.start.base, tokens=tokens, output=True
        )
        measure = jax.jit(functools.partial(fisher, settings.model, settings.transfer))
        return measure(start, self.start.frozen, text)

    def loss(self, mode: str):
        """Of a member: `labelled_loss`."""
        first = self.settings
        return labelled_loss(
            population.member_model(first.model, mode),
            first.head.pooling, first.transfer, first.regularize,
        )  # fmt: skip

    def kept(self, members: Sequence[Member], params: dict) -> dict:
        """What members end with, axis S: a share of the way from their first weights.

        Source: WiSE-FT (`transfer.start.between`); a share of 1 is all the way.
        """
        shares = [one.settings.regularize.wise for one in members]
        if min(shares) == 1:
            return params
        own = [population.member(params, i, self.mesh) for i in range(len(members))]
        first = self.start.first_weights
        return population.assemble(
            (
                between(one, first, share) if share < 1 else one
                for one, share in zip(own, shares, strict=True)
            ),
            self.mesh,
        )

    def probabilities(
        self, members: Sequence[Member], params: dict, name: str, mode: str,
        due: Sequence[int],
    ) -> list[np.ndarray]:  # fmt: skip
        """What the parameters of those members that are due say of a held-out set.

        Under vmap and over several devices all members are scored in one call, for a
        call of fewer would be another program.

        Args:
          members: as the axis S of the parameters has them, before its padding.
          params: what moves, with axis S.
          name: of the set.
          mode: as for `advance`.
          due: places in members.

        Returns:
          For each that is due, float64 [I, C].
        """
        held_out = self.scoring[name], len(self.data.sets[name]), self.frozen
        hparams = [lora.hyperparameters(one.settings.transfer) for one in members]
        if self._scored_alone(mode):
            return [
                self.scorer.probabilities(
                    population.member(params, i), *held_out, hparams[i]
                )
                for i in due
            ]
        stacked = population.assemble(hparams, self.mesh)
        found_SIC = self.scorer.of_members(params, *held_out, stacked, mode)
        return [found_SIC[i] for i in due]

    def _scored_alone(self, mode: str) -> bool:
        """Whether scoring takes one member a call."""
        return mode == "turn" and self.mesh.shape["run"] == 1

    def compilations(
        self, mode: str, data: dict, plan: dict, hparams: dict
    ) -> tuple[Callable[[], object], ...]:
        """Works that compile what members train and are scored by, from shapes alone.

        The programs are traced here: Python does not trace two at a time.

        Args: as `advance` is called with; data of `data_on_device`.
        """
        members = len(jax.tree.leaves(plan)[0])
        state = population.shapes(self.state_shapes, members, self.mesh)
        own = lora.hyperparameters(self.settings.transfer)
        if self._scored_alone(mode):
            moving, scored_mode = self.state_shapes.chosen, None
        else:
            moving, scored_mode = state.chosen, mode
            own = population.assemble([own] * members, self.mesh)
        planned = next(iter(self.scoring.values()))
        until = np.zeros(members, np.int32)
        advance = self.advance(mode)
        return (
            advance.lower(data, state, plan, hparams, until).compile,
            self.scorer.lower(moving, planned, self.frozen, own, scored_mode).compile,
        )

    def advance(self, mode: str):
        """advance(data, state, plan, hparams, until), compiled once a mode."""
        if mode not in self._advance:
            first = self.settings
            train_step = step.make_train_step(
                self.loss(mode), first.optim, first.regularize
            )
            rounds = population.make_train_rounds(train_step, _take)
            lifted = population.lift(rounds, mode, shared=1)
            spread = population.spread(lifted, self.mesh, shared=1)
            self._advance[mode] = jax.jit(spread, donate_argnums=1)
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
