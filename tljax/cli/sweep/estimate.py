"""What runs will take, before they start: seconds and memory, from shapes alone.

    tokens x FLOPs a token / (a share of what a matrix product reaches here)
    + what a step, a run and a process cost whatever their size

Reads a sample of the texts and no weights, writes in no run folder. Meant to be right
within a factor of 3; left out are second passes of a method (regularize.*), fetching,
tokenising a corpus for the first time, and other programs on the machine.
"""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from tljax.cli import parts
from tljax.cli.bench import ceiling
from tljax.cli.crew import Crew
from tljax.cli.members import Member, mesh_of
from tljax.cli.models import embedding_rows
from tljax.cli.pretrain import VALIDATION_DOCUMENTS
from tljax.data import batches
from tljax.data.sources import Source, open_source
from tljax.data.tokenizer import Tokenizer
from tljax.model import heads, transformer
from tljax.model.product import product_dtype
from tljax.objective.classification import labelled_loss
from tljax.settings import UNREGULARIZED, FinetuneSettings, PretrainSettings
from tljax.train import memory, population, step
from tljax.transfer.method import split, untouched_layers

SHARE = 0.35  # of a large product's rate, that a small model's steps reach
STEP_SECONDS = 0.003  # what a step costs beside its products
RUN_SECONDS = 0.3  # predictions, parameters and records written
START_SECONDS = 8.0  # imports, data, compiling
PROCESS_BYTES = 600e6  # Python, JAX and compiled programs
_SIDE = 1024  # of the product that is measured: 10 ms on two cores
_SAMPLE = 256  # texts


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Of members that train in one process.

    Attributes:
      seconds: from the command to its end.
      bytes: of memory at most.
      runs: how many there are.
      tokens: trained on in all, padding included.
    """

    seconds: float
    bytes: float
    runs: int
    tokens: int


@dataclasses.dataclass(frozen=True)
class _Texts:
    """A source's sizes: tokens of a sample, items of each split, classes."""

    source: Source
    tokenizer: Tokenizer
    lengths: np.ndarray
    classes: int

    def tokens(self, name: str, items: int = 0) -> float:
        """Of a split's first items; 0 = all, and none of a split that is not there."""
        there = len(self.source.examples(name)) if name in self.source.splits else 0
        return min(items or there, there) * float(self.lengths.mean())


def estimate(members: Sequence[Member], *, together: bool = False) -> Estimate:
    """What a population of fine-tuning runs, or one pre-training run, will take.

    Args:
      members: of one population; or one, whose settings are of pre-training.
      together: whether they train side by side whatever the mode (`finetune(prune=)`).

    Raises:
      InputError: a source, or what the runs start from, cannot be used.
    """
    first = members[0].settings
    if isinstance(first, PretrainSettings):
        flops, steps, tokens, held = _pretraining(first)
    else:
        flops, steps, tokens, held = _population(members, together)
    rate = SHARE * ceiling.rate(_SIDE, str(product_dtype(first.model.dtype)))
    seconds = flops / rate + steps * STEP_SECONDS + len(members) * RUN_SECONDS
    return Estimate(
        seconds=START_SECONDS + seconds,
        bytes=PROCESS_BYTES + held,
        runs=len(members),
        tokens=tokens,
    )


def _sample(settings, uri: str, length: int | None) -> _Texts:
    """Reads some texts of the training split, evenly spaced."""
    source = open_source(uri)
    tokenizer = parts.find_tokenizer(settings.tokenizer, settings.init.source, source)
    train = source.examples("train")
    places = np.linspace(0, len(train) - 1, min(_SAMPLE, len(train))).astype(int)
    some = [train[int(place)] for place in places]
    ids = tokenizer.encode([one.text for one in some], special=True, longest=length)
    lengths = np.array([max(1, len(one)) for one in ids])
    return _Texts(source, tokenizer, lengths, len({one.label for one in some}))


def _vocabulary(settings, tokenizer: Tokenizer) -> int:
    source = settings.init.source
    return embedding_rows(source, tokenizer) if source else tokenizer.vocab_size


def _pretraining(settings: PretrainSettings) -> tuple[float, int, int, float]:
    """FLOPs, steps, tokens and bytes."""
    corpus, model = settings.corpus, settings.model
    texts = _sample(settings, corpus.source, None)
    rows = _vocabulary(settings, texts.tokenizer)

    def start(key):
        params = transformer.init_params(model, rows, key)
        return step.init_state(params, settings.optim)

    state = jax.eval_shape(start, jax.random.key(0))
    tokens = settings.steps * settings.optim.batch * corpus.length
    looks = settings.record.validations
    scored = 2 * (  # windows overlap by half
        texts.tokens(corpus.heldout_split, corpus.heldout_documents)
        + looks * texts.tokens("validation", VALIDATION_DOCUMENTS)
    )
    passes = 3 * tokens + round(scored)
    flops = parts.forward_flops(state.params, tokens=passes, output=True)
    keeps_best = settings.record.choose == "best"
    held = memory.member_bytes(state, state.params, keeps_best=keeps_best)
    return flops, settings.steps, tokens, held


def _population(
    members: Sequence[Member], together: bool
) -> tuple[float, int, int, float]:
    """FLOPs, steps, tokens and bytes of all members."""
    first = members[0].settings
    task, record = first.task, first.record
    texts = _sample(first, task.source, task.length)
    moving, frozen = _shapes(first, texts)
    below = untouched_layers(first.model, first.transfer)
    whole = {**frozen.get("layers", {}), **moving.get("layers", {})}
    lower = {i: layer for i, layer in whole.items() if int(i) < below}
    upper = {i: layer for i, layer in whole.items() if int(i) >= below}
    above = {i: one for i, one in frozen.get("layers", {}).items() if int(i) >= below}
    rows = batches.choose_rows(
        texts.lengths, batch=first.optim.batch, row_length=task.length
    )
    steps = [_steps(one.settings, texts) for one in members]
    tokens = sum(steps) * rows * task.length
    validated = texts.tokens("validation", task.validation_items)
    tested = texts.tokens("test") if task.score_test else 0.0
    scored = len(members) * ((record.validations + 1) * validated + tested)
    flops = parts.training_flops(moving, {"layers": above}, tokens=tokens)
    flops += parts.forward_flops({"layers": upper}, tokens=round(scored), output=False)
    if below:  # computed once for all members
        learnt = min(
            texts.tokens("train"),
            sum(texts.tokens("train", one.settings.task.n) for one in members),
        )
        read = round(learnt + validated + tested)
        flops += parts.forward_flops({"layers": lower}, tokens=read, output=False)
    batch = _batch_shapes(rows, task.length, texts)
    held = _memory(members, moving, frozen, batch, together)
    return flops, sum(steps), tokens, held


def _steps(settings: FinetuneSettings, texts: _Texts) -> int:
    """Of a run: batches are nearly full (`batches.choose_rows`)."""
    there = len(texts.source.examples("train"))
    n = settings.task.n or there
    return math.ceil(n * settings.epochs / (0.95 * min(settings.optim.batch, n)))


def _shapes(settings: FinetuneSettings, texts: _Texts) -> tuple[dict, dict]:
    """(what moves, what does not) of a run: trees of shapes."""
    rows = _vocabulary(settings, texts.tokenizer)

    def start(key):
        params = transformer.init_params(settings.model, rows, key)
        params.pop("output", None)
        params["head"] = heads.init_classifier(settings.model.width, texts.classes, key)
        return split(params, settings.transfer, key)

    return jax.eval_shape(start, jax.random.key(0))


def _batch_shapes(rows: int, length: int, texts: _Texts) -> dict:
    """Of a step of one member, as the backward pass sees it."""
    slots = batches.choose_slots(texts.lengths, row_length=length)
    shape = jax.ShapeDtypeStruct
    return {
        "tokens_BL": shape((rows, length), jnp.int32),
        "segments_BL": shape((rows, length), jnp.int32),
        "labels_BM": shape((rows, slots), jnp.int32),
        "weights_BM": shape((rows, slots), jnp.float32),
        "step": shape((), jnp.int32),
    }


def _memory(members, moving, frozen, batch, together) -> float:
    """What is shared, and of the members those that train at a time."""
    settings = members[0].settings
    mode = population.choose_mode(len(members))

    def start(params):
        return step.init_state(params, settings.optim, settings.regularize)

    state = jax.eval_shape(start, moving)
    keeps_best = settings.record.choose == "best"
    needed = memory.member_bytes(state, state.chosen, keeps_best=keeps_best)
    shared = memory.tree_bytes(frozen)
    if mode == "vmap":
        model = population.member_model(settings.model, mode)
        loss = labelled_loss(
            model, settings.head.pooling, settings.transfer, UNREGULARIZED
        )
        hparams = Crew.hyperparameters(settings, steps=1)
        batch = {**batch, "frozen": frozen, "hparams": hparams}
        needed += memory.activation_bytes(loss, moving, batch)
    devices = mesh_of(members).run
    side_by_side = len(members) if mode == "vmap" or together else devices
    fit = memory.USED * memory.free_bytes(devices) * devices
    return shared + min(side_by_side * needed, max(fit, needed))
