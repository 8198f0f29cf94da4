"""Class probabilities of a whole labelled split: packed, scored, put back in order.

items -> packed rows -> hidden states -> pooled -> logits -> probabilities [I, C]
"""

import functools
import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from tljax.data.batches import PackedPlan, choose_slots, flat_tokens, scoring_plan
from tljax.data.labelled import LabelledSet
from tljax.data.packing import pack_rows
from tljax.metrics import classification as metrics
from tljax.objective.classification import logits
from tljax.settings import ModelSettings, TransferSettings
from tljax.train import population
from tljax.transfer.method import compose, untouched_layers

SCORING_TOKENS = 4096  # most tokens of one scoring step
WHOLE = TransferSettings()  # all weights are given as those that move


class Scorer:
    """Scores labelled sets; compiles once for all sets, steps and members.

    One member (`probabilities`) or several in one call (`of_members`).
    """

    def __init__(
        self,
        settings: ModelSettings,
        pooling: str,
        row_length: int,
        sets: Sequence[LabelledSet],
        transfer: TransferSettings = WHOLE,
        mesh: Mesh | None = None,
    ):
        """Args: as the run has them; sets, which will be scored.

        mesh: whose axis 'run' the members lie on.
        """
        self._row_length, self._slots = row_length, scoring_slots(sets, row_length)
        self._rows = _scoring_rows(sets, row_length, self._slots)
        below = untouched_layers(settings, transfer)

        def step(model, frozen, batch, moving, hparams):
            params, adapter = compose(moving, frozen, transfer, hparams=hparams)
            found = logits(model, pooling, params, batch, adapter=adapter, below=below)
            return jax.nn.softmax(found, axis=-1)

        def lifted(mode):
            own = functools.partial(step, population.member_model(settings, mode))
            own = population.lift(own, mode, shared=2)
            return jax.jit(population.spread(own, mesh, shared=2) if mesh else own)

        self._step = jax.jit(functools.partial(step, settings))
        self._lifted = {mode: lifted(mode) for mode in ("turn", "vmap")}

    def plan(
        self, labelled: LabelledSet, stream: np.ndarray | None = None
    ) -> tuple[np.ndarray, PackedPlan]:
        """The set's (flat tokens, scoring plan): made once, scored often.

        Args:
          labelled: the set.
          stream: what the frozen bottom computes for its tokens, [tokens, D], which
            then takes their place.
        """
        plan = scoring_plan(
            labelled, rows=self._rows, row_length=self._row_length, slots=self._slots
        )
        return flat_tokens(labelled) if stream is None else stream, plan

    def lower(
        self,
        moving: dict,
        planned: tuple[np.ndarray, PackedPlan],
        frozen: dict | None = None,
        hparams: dict | None = None,
        mode: str | None = None,
    ) -> jax.stages.Lowered:
        """What scores, to be compiled; arguments of the two below, or shapes of them.

        mode: None = `probabilities`, else `of_members` with it.
        """
        step = self._lifted[mode] if mode else self._step
        return step.lower(frozen or {}, _batch(*planned, 0), moving, hparams or {})

    def probabilities(
        self,
        moving: dict,
        planned: tuple[np.ndarray, PackedPlan],
        items: int,
        frozen: dict | None = None,
        hparams: dict | None = None,
    ) -> np.ndarray:
        """float64 [I, C], in the set's own order; hparams as for `compose`."""
        found = self._scored(self._step, moving, planned, frozen, hparams)
        return _in_order(found, planned[1], items)

    def of_members(
        self,
        moving: dict,
        planned: tuple[np.ndarray, PackedPlan],
        items: int,
        frozen: dict | None = None,
        hparams: dict | None = None,
        mode: str = "vmap",
    ) -> np.ndarray:
        """As `probabilities`, of trees with axis S: float64 [S, I, C].

        mode: as for `population.lift`; each device scores the members that it has.
        """
        found = self._scored(self._lifted[mode], moving, planned, frozen, hparams)
        members = np.moveaxis(found, 1, 0)
        return np.stack([_in_order(one, planned[1], items) for one in members])

    @staticmethod
    def _scored(step, moving, planned, frozen, hparams) -> np.ndarray:
        """Every step's result, float64; read when all have been sent off."""
        flat, plan = planned
        results = [
            step(frozen or {}, _batch(flat, plan, t), moving, hparams or {})
            for t in range(plan.steps)
        ]
        return np.stack([np.asarray(result, np.float64) for result in results])


def _batch(flat: np.ndarray, plan: PackedPlan, t: int) -> dict:
    """What scoring step t reads."""
    found = flat[np.maximum(plan.gather_TBL[t], 0)]  # padding: any token does
    if flat.ndim == 1:
        found = found.astype(np.int32)
    return {
        "tokens_BL" if flat.ndim == 1 else "stream_BLD": found,
        "segments_BL": plan.segments_TBL[t],
        "labels_BM": plan.labels_TBM[t],
    }


def _in_order(found_TBMC, plan: PackedPlan, items: int) -> np.ndarray:
    """Probabilities [I, C] in the set's own order."""
    placed = plan.items_TBM >= 0
    probabilities_IC = np.zeros((items, found_TBMC.shape[-1]))
    probabilities_IC[plan.items_TBM[placed]] = found_TBMC[placed]
    return probabilities_IC / probabilities_IC.sum(axis=1, keepdims=True)


def scoring_slots(sets: Sequence[LabelledSet], row_length: int) -> int:
    """Slots a row that suit all the sets."""
    return max(choose_slots(one.lengths, row_length=row_length) for one in sets)


def _scoring_rows(sets, row_length, slots):
    """Rows that fill the steps of the smallest set, at least half of SCORING_TOKENS.

    Runs validate often, mostly on few items: up to half of a step would be padding.
    """
    most = max(1, SCORING_TOKENS // row_length)
    smallest = min((one.lengths for one in sets), key=sum)
    longest_first = sorted(smallest.tolist(), reverse=True)
    needed = len(pack_rows(longest_first, row_length=row_length, slots=slots))
    steps = math.ceil(needed / most)
    return max(math.ceil(needed / steps), math.ceil(most / 2))


def validation_record(labels_I: np.ndarray, probabilities_IC: np.ndarray) -> dict:
    """loss_nats, accuracy and n of a scored split, for metrics.jsonl."""
    loss = metrics.negative_log_likelihood(labels_I, probabilities_IC)
    right = metrics.accuracy(labels_I, probabilities_IC.argmax(axis=1))
    return {
        "loss_nats": loss.value,
        "loss_se": loss.standard_error,
        "accuracy": right.value,
        "n": loss.n,
    }
