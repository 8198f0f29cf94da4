"""Work on a real pretrained model: features, decoding, a LoRA step.

Both sides at their better precision; each turn begins with a little work that is not
timed, as the peer's scripts do: a machine may take pages from a process that waits.

What was tried for SmolLM2-135M on 2 cores of a Zen 4 with bfloat16 products stands in
docs/speed.md.
"""

import dataclasses
import functools
import pathlib
import statistics
import tempfile
import time

import jax
import numpy as np

from tljax.cli.bench import data, training
from tljax.cli.bench.peer import Peer
from tljax.cli.bench.turns import Work
from tljax.cli.models import Model, open_model
from tljax.data.sources import open_source
from tljax.evaluate.features import pooled_features
from tljax.generate.decode import Generator
from tljax.generate.sampling import Sampling
from tljax.model import transformer
from tljax.model.product import product_dtype
from tljax.objective.next_token import next_token_loss
from tljax.pretrained.sources import open_pretrained
from tljax.settings import OptimSettings, TransferSettings
from tljax.train import optimizer, step
from tljax.transfer.method import compose, split

URI = "pkg:smollm2-135m"
TEXTS = "pkg:rotten_tomatoes"
SENTENCES, PROMPT, NEW, LORA_ROWS, LORA_LENGTH, FROZEN = 800, 32, 64, 8, 64, 20
LAST_ID = 1000  # tokens are drawn from 100 to it
WARM, STEPS = 4, 5  # as the peer's scripts do: tokens before the clock; steps timed
LORA = TransferSettings(method="lora", rank=8, alpha=16.0)
ADAMW = OptimSettings(
    name="adamw", lr_peak=1e-4, lr_muon=0.0, weight_decay=0.0, b1=0.9, b2=0.999,
    clip_norm=0.0, warmup=0.0, cooldown=0.0, layer_decay=1.0, batch=LORA_ROWS,
)  # fmt: skip


def features(model: Model, texts: list[str]):
    """Returns measure() -> tokens a second of the features of all texts."""
    tokens = model.needs_tokenizer().encode(texts)
    params = transformer.for_products(model.settings, model.params)

    def measure():
        started = time.perf_counter()
        pooled_features(model.settings, params, tokens, poolings=["last"])
        return sum(map(len, tokens)) / (time.perf_counter() - started)

    measure()
    return measure


def decoding(model: Model, batch: int, new: int = NEW):
    """Returns measure() -> `new` tokens' number a second, greedy."""
    generator = Generator(model.settings, model.params, end_ids=[])
    random = np.random.default_rng(0)
    prompts = list(random.integers(100, LAST_ID, (batch, PROMPT)))

    def write(count: int) -> float:
        started = time.perf_counter()
        generator.generate(
            prompts, max_new=count, sampling=Sampling(temperature=0), seeds=[0] * batch
        )
        return time.perf_counter() - started

    write(new)

    def measure():
        write(WARM)
        return batch * new / write(new)

    return measure


def lora_step(model: Model):
    """Returns measure() -> tokens a second of LoRA training steps."""
    moving, frozen = split(model.params, LORA, jax.random.key(0))
    frozen = jax.device_put(frozen)
    tokens = np.random.default_rng(0).integers(100, LAST_ID, (LORA_ROWS, LORA_LENGTH))
    batch = {
        "tokens_BL": tokens.astype(np.int32),
        "segments_BL": np.ones_like(tokens, np.int32),
        "frozen": frozen,
    }
    targets_BL = np.concatenate([tokens[:, 1:], -np.ones_like(tokens[:, :1])], axis=1)

    def loss(moving, batch, key):
        params, adapter = compose(moving, batch["frozen"], LORA)
        states = transformer.apply(model.settings, params, batch, adapter=adapter)
        output_VD = transformer.output_matrix(params)
        nats, weight = next_token_loss(states, output_VD, targets_BL)
        return nats, {"weight": weight}

    return _steps(loss, moving, batch)


def frozen_bottom(model: Model, *, below: int, kept: bool):
    """Returns measure() -> tokens a second of LoRA steps above frozen layers.

    `below` layers are frozen; with `kept`, what they compute is given, as fine-tuning
    gives it.
    """
    transfer = dataclasses.replace(LORA, frozen_layers=below)
    moving, frozen = split(model.params, transfer, jax.random.key(0))
    shape = (LORA_ROWS, LORA_LENGTH)
    batch = {
        "segments_BL": np.ones(shape, np.int32),
        "frozen": jax.device_put(frozen),
        "tokens_BL": np.full(shape, 500, np.int32),
    }
    if kept:
        batch["stream_BLD"] = np.ones((*shape, model.settings.width), np.float32)

    def loss(moving, batch, key):
        params, adapter = compose(moving, batch["frozen"], transfer)
        states = transformer.apply(
            model.settings, params, batch, adapter=adapter, below=below if kept else 0
        )
        return states.astype(np.float32).sum(), {"weight": np.float32(1)}

    return _steps(loss, moving, batch)


def _steps(loss, moving, batch):
    """Returns measure() -> tokens a second of training steps, compiled before."""
    advance = jax.jit(step.make_train_step(loss, ADAMW), donate_argnums=0)
    hparams = optimizer.hyperparameters(ADAMW, 100, 0)
    state, sums = advance(step.init_state(moving, ADAMW), batch, hparams)
    jax.block_until_ready(sums)

    def seconds():
        nonlocal state
        started = time.perf_counter()
        state, sums = advance(state, batch, hparams)
        jax.block_until_ready(sums)
        return time.perf_counter() - started

    def measure():
        seconds()
        times = [seconds() for _ in range(STEPS)]
        return LORA_ROWS * LORA_LENGTH / statistics.median(times)

    return measure


def _stand_in(texts: list[str]) -> Model:
    """A model of the smallest size, for who only wants to see that all works."""
    size = training.SIZES["tiny"]
    tokenizer = data.trained_tokenizer(texts, LAST_ID)
    settings = size.model("float32")
    params = transformer.init_params(settings, tokenizer.vocab_size, jax.random.key(0))
    return Model("tiny", settings, params, tokenizer)


def works(kind: str, peer: Peer | None, *, small: bool) -> list[Work]:
    """The works of one kind: 'features', 'generate' or 'lora'.

    Args:
      kind: of the work.
      peer: does the same on SmolLM2; None = nobody does.
      small: with a few texts and tokens of a model that nobody trained.
    """
    texts = [one.text for one in open_source(TEXTS).examples("test")][:SENTENCES]
    if small:
        texts, peer = texts[:50], None
    model = _stand_in(texts) if small else open_model(URI)
    whose = "a tiny model" if small else "SmolLM2"

    def theirs(script: str, key: str, *flags: object):
        if peer is None:
            return None
        dtypes = {training.best_dtype()}
        if kind == "generate":  # theirs may be faster in the other
            dtypes.add(product_dtype("auto", few_rows=True).name)
        asked = ("--checkpoint", open_pretrained(URI).where, *flags)
        return lambda: max(
            peer.run(script, key, "--dtype", one, *asked) for one in dtypes
        )

    if kind == "features":
        file = pathlib.Path(tempfile.mkdtemp()) / "texts.txt"
        file.write_text("\n".join(texts) + "\n", encoding="utf-8")
        taken = theirs("features.py", "tokens_per_s", "--text", file)
        prepare = functools.partial(features, model, texts)
        return [Work(f"features, {whose}", "tokens/s", prepare, taken, target=1.15)]
    if kind == "generate":
        return [
            Work(
                f"decoding, {whose}, batch {batch}",
                "tokens/s",
                functools.partial(decoding, model, batch, WARM if small else NEW),
                theirs("generate.py", "new_tokens_per_s", "--batch", batch),
                target=target,
            )
            for batch, target in ((1, 1.5), (8, 2.0))
        ]
    taken = theirs("lora_step.py", "tokens_per_s")
    whole = Work(f"LoRA step, {whose}", "tokens/s", lambda: lora_step(model), taken,
                 target=1.3)  # fmt: skip
    below = 1 if small else FROZEN
    return [whole] + [
        Work(
            f"LoRA step above {below} frozen layers, their output {told}",
            "tokens/s",
            functools.partial(frozen_bottom, model, below=below, kept=kept),
        )
        for told, kept in (("kept", True), ("computed", False))
    ]
