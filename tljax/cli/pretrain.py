"""Pre-training, from a corpus to a run folder.

source -> tokenizer -> token store -> rows -> train -> params, bits per byte

With init.source it goes on from another run's parameters on this source's text:
continued pre-training (TAPT, Gururangan et al. 2020; ULMFiT's second stage).
"""

import contextlib
import copy
import functools
import pathlib
import shutil
import time

import jax
import numpy as np
from jax.sharding import NamedSharding

from tljax.cli import parts
from tljax.cli.members import Division, Member, Population
from tljax.cli.models import embedding_rows, load_source_params
from tljax.data.corpus import scoring_windows, training_iterator
from tljax.data.sources import Source, open_source
from tljax.data.token_store import TokenStore, open_token_store
from tljax.data.tokenizer import Tokenizer
from tljax.evaluate import language
from tljax.model import transformer
from tljax.model.product import lower_by_onednn, product_dtype
from tljax.objective.next_token import language_loss
from tljax.settings import (
    CorpusSettings,
    InputError,
    MeshSettings,
    OptimSettings,
    PretrainSettings,
    to_dict,
)
from tljax.sweep.prune import Prune
from tljax.train import loop, optimizer, population, sharding, step
from tljax.train.checkpoint import Checkpoints, params_sha256, save_params
from tljax.train.progress import Progress
from tljax.train.record import RunRecord, keep_data, manifest_facts, open_run
from tljax.train.rounds import tell_of_ended
from tljax.transfer.transplant import transplant

_SCORING_TOKENS = 8192
VALIDATION_DOCUMENTS = 50  # of the validation split, scored while training


def pretrain(
    settings: PretrainSettings,
    folder: pathlib.Path,
    *,
    title: str = "pre-train",
    prune: Prune | None = None,
) -> None:
    """Runs, resumes or (if it has ended) leaves alone one pre-training run.

    Args:
      settings: of the run.
      folder: the run folder.
      title: of the progress bar.
      prune: says after a validation whether the run ends, others being better.

    Raises:
      InputError: something given cannot be used; nothing is overwritten.
    """
    check(settings)
    config = to_dict(settings)
    if open_run(folder, config, "pretrain"):
        tell_of_ended(prune, [folder], settings.record.rounds)
        return
    alone = Member(settings, folder)
    seen = copy.deepcopy(prune.asha.state) if prune else None
    whole = Population([alone], Division("turn", 1), prune, seen, False)
    parts.prepare_devices(settings.mesh)
    mesh = sharding.make_mesh(settings.mesh)
    started = time.monotonic()
    source = open_source(settings.corpus.source)
    data = parts.data_facts(source, source.splits)
    keep_data(folder, data)
    tokenizer = parts.get_tokenizer(
        settings.tokenizer, settings.init.source, folder, source
    )
    vocab_size = tokenizer.vocab_size
    if settings.init.source:
        vocab_size = embedding_rows(settings.init.source, tokenizer)
    sharding.check_sizes(settings.model, settings.mesh, vocab_size)
    stores = {split: _open_store(source, split, tokenizer) for split in source.splits}
    prepare_seconds = time.monotonic() - started
    rules = sharding.rules(settings.model, classifier=False)
    placement = sharding.Placement(mesh, rules)
    job = _Job(settings, placement, stores["train"], vocab_size)
    held_out = _HeldOut(settings, stores, tokenizer, job.place)
    work = job.work(held_out.validate, started, prune)
    with (
        RunRecord(folder) as record,
        Progress(title, settings.steps) as progress,
    ):
        checkpoints = Checkpoints(
            folder / "checkpoints", settings.record.checkpoints_kept
        )
        ended = loop.train(
            work,
            records=[record],
            checkpoints=checkpoints,
            settings=settings.record,
            progress=progress,
        )
        params = population.member(ended["params"], 0)
        corpus = settings.corpus
        found = held_out.bits(params, corpus.heldout_split, corpus.heldout_documents)
        tokens = round(ended["steps"][0] * work.tokens_per_step)
        save_params(folder / "params", jax.device_get(params))
        record.write_manifest(
            {
                **manifest_facts(config),
                "data": data,
                "dtype": str(product_dtype(settings.model.dtype)),
                "parameters": parts.count(params),
                "init": job.init_facts,
                "population": whole.facts(alone, [alone]),
                "seed": settings.seed,
                "tokens": tokens,
                "flops": 3 * parts.forward_flops(params, tokens=tokens, output=True),
                "padding_share": 0.0,
                "time_seconds": ended["seconds"],
                "time_prepare_seconds": prepare_seconds,
            }
        )
        record.finish(
            ended["steps"][0],
            params_sha256(jax.device_get(params)),
            bits_per_byte=found,
            **parts.stop_fact(ended["stopped"][0]),
        )
        checkpoints.close()
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def _open_store(source: Source, split: str, tokenizer: Tokenizer) -> TokenStore:
    """The split's tokens; says how far it is where they are not in the cache yet."""
    bar = None
    with contextlib.ExitStack() as stack:

        def tell(done: int, documents: int) -> None:
            nonlocal bar
            title = f"tokenise {split}"
            bar = bar or stack.enter_context(Progress(title, documents))
            bar.update(done)

        return open_token_store(source, split, tokenizer, progress=tell)


def check(settings: PretrainSettings) -> None:
    """Raises InputError for values that cannot go together."""
    transformer.check(settings.model)
    if settings.mesh.run > 1:
        raise InputError(
            f"mesh.run={settings.mesh.run}: pre-training is one run; spread it by"
            " mesh.data, mesh.fsdp or mesh.tensor, with mesh.run=1"
        )
    for key in ("lora_plus", "unfreeze"):
        value = getattr(settings.optim, key)
        if value != OptimSettings.__dataclass_fields__[key].default:
            raise InputError(
                f"config.optim.{key}={value!r} is read by fine-tuning only; leave it"
                " out"
            )
    if settings.init.reinit_layers:
        raise InputError(
            f"config.init.reinit_layers={settings.init.reinit_layers} is read by"
            " fine-tuning only; leave it out"
        )
    sharding.check_batch(settings.optim.batch, settings.mesh, "optim.batch")
    model, length = settings.model, settings.corpus.length
    if model.positions == "learned" and length > model.context:
        raise InputError(
            f"config.corpus.length={length}, but the model has {model.context}"
            f" positions; set it to at most {model.context}"
        )


def scoring_rows(corpus: CorpusSettings, mesh: MeshSettings) -> int:
    """Rows of a scoring batch: some _SCORING_TOKENS, even over the mesh."""
    ways = mesh.data * mesh.fsdp
    return max(1, _SCORING_TOKENS // (corpus.length * ways)) * ways


def _base_params(
    settings: PretrainSettings, vocab_size: int, key: jax.Array, placement
) -> tuple:
    """init.source's parameters, without the head that it may have, and the facts."""

    def place(path, value):  # a leaf at a time: no host holds all of a large model
        sharding = NamedSharding(placement.mesh, placement.spec(path))
        return jax.device_put(value, sharding)

    source = load_source_params(settings.init.source, settings.model, place)
    fresh = jax.eval_shape(
        functools.partial(transformer.init_params, settings.model, vocab_size), key
    )
    left = ["head/.*"] if "head" in source else []
    params, ledger = transplant(source, fresh, fresh=[], left=left)
    sha256 = params_sha256(source)
    return params, parts.ledger_facts(settings.init.source, ledger, sha256)


class _HeldOut:
    """Scores text that is not trained on."""

    def __init__(self, settings, stores, tokenizer, place):
        self.settings, self.stores, self.tokenizer = settings, stores, tokenizer
        self._score = language.make_score(settings.model, place)

    def bits(self, params: dict, split: str, documents: int) -> dict:
        """Bits per byte of a split's first documents; 0 = all."""
        store, corpus = self.stores[split], self.settings.corpus
        documents = min(documents or len(store), len(store))
        windows = scoring_windows(
            store,
            documents=documents,
            length=corpus.length,
            stride=max(1, corpus.length // 2),
            batch=scoring_rows(corpus, self.settings.mesh),
        )
        counts = store.byte_counts(self.tokenizer)[:documents]
        return language.bits_per_byte(self._score, params, windows, counts)

    def validate(self, state: step.TrainState, members: list[int]) -> list[dict]:
        """The validation record of the one member."""
        params = population.member(state.params, 0)
        found = self.bits(params, "validation", VALIDATION_DOCUMENTS)
        nats = found["value"] * np.log(2) * found["bytes"] / found["tokens"]
        return [
            {"loss_nats": nats, "bits_per_byte": found["value"], "n": found["tokens"]}
        ]


class _Job:
    """The compiled step, the state's place and the stream of batches."""

    def __init__(self, settings, placement, store, vocab_size):
        self.settings, self.placement = settings, placement
        key = jax.random.key(settings.seed)
        base, self.init_facts = None, None
        if settings.init.source:
            base, self.init_facts = _base_params(settings, vocab_size, key, placement)

        def init(key, base):
            params = base or transformer.init_params(settings.model, vocab_size, key)
            return step.init_state(params, settings.optim)

        shapes = jax.eval_shape(init, key, base)
        shardings = step.TrainState(
            params=placement.params(shapes.params),
            optimizer=placement.optimizer(shapes.optimizer),
            step=placement.everywhere(),
        )
        lifted = placement.lifted(shardings)
        stacked = parts.jit_for_one_call(
            lambda *start: population.stack([init(*start)]), out_shardings=lifted
        )
        train_step = step.make_train_step(language_loss(settings.model), settings.optim)
        hparams = jax.device_put(
            optimizer.hyperparameters(settings.optim, settings.steps, settings.seed),
            placement.everywhere(),
        )
        advance = population.lift(
            lambda batch, hparams, state: train_step(state, batch, hparams),
            "turn",
            shared=2,
        )
        compiled = lower_by_onednn(
            advance,
            self._batch_shapes(), hparams, jax.eval_shape(stacked, key, base),
            in_shardings=(placement.batch(), placement.everywhere(), lifted),
            out_shardings=(lifted, None),
            donate_argnums=2,
        )  # fmt: skip
        with parts.aside(compiled) as (compiling,):
            self.state = stacked(key, base)
            self.batches = training_iterator(  # imports Grain, for .7 s
                store,
                batch=settings.optim.batch,
                length=settings.corpus.length,
                seed=settings.seed,
            )
        advance = compiling.result()
        self._advance = lambda batch, state: advance(batch, hparams, state)

    def _batch_shapes(self):
        shape = self.settings.optim.batch, self.settings.corpus.length
        names = "tokens_BL", "targets_BL", "segments_BL"
        return {name: jax.ShapeDtypeStruct(shape, np.int32) for name in names}

    def place(self, batch):
        return jax.device_put(batch, self.placement.batch())

    def work(
        self, validate, started: float | None = None, prune: Prune | None = None
    ) -> loop.Work:
        """What the loop drives: a population of one, one step a dispatch."""
        settings = self.settings
        return loop.Work(
            state=self.state,
            steps=[settings.steps],
            advance=lambda state, until: self._advance(
                self.place(next(self.batches)), state
            ),
            validate=validate,
            data_state=self.batches.get_state,
            set_data_state=self.batches.set_state,
            tokens_per_step=settings.optim.batch * settings.corpus.length,
            stride=1,
            started=started,
            pruned=prune,
        )
