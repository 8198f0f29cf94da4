"""Speed on a real pretrained model, ours and Transformers', in turns in one run.

    python scripts/bench_pretrained.py --peers=DIR --python=PEERS_ENV/bin/python

Work: features of review sentences; greedy decoding at batch 1 and 8; a LoRA training
step (rank 8, all linear maps, 8 x 64 tokens). Both at their better precision, ours
compiled before the clock starts, and each turn begins with a little work that is not
timed, as the peers' scripts do: a machine may take pages from a process that waits.
Prints a table of medians and their ratio; then, ours alone, LoRA steps above 20 frozen
layers with and without their output kept.

What was tried, 2 cores of a Zen 4 with bfloat16 products, figures of SmolLM2-135M:
- angles of rotary positions as constants, not cosines inside the program, where XLA
  computes them again for every head: features +18 %, LoRA steps +65 %;
- one query against the cache as fused sums, not products of one row: at batch 8 .15
  against .7 ms a layer;
- one bfloat16 row padded to two: XLA copies all weights to float32 for one;
- the likeliest token by two plain reductions: .2 against 1.4 ms a step of 8 rows;
- SiLU in float32: bfloat16 rounds, and converts, at every operation; half its time;
- rows of 128 in steps of 1,024 tokens: as fast as 4,096, and less of the last is empty.
In vain, for decoding at batch 8, whose products (270 MB of weights a step, 8 rows) run
at 11 to 14 GB/s of the 30 that memory gives (6.6 with one core), since each call packs
the weights anew; of 28 ms a step the layers' products take 19.5, the vocabulary's 4.7:
- query, key and value, gate and up as one product: 19.0 against 19.3 ms a step;
- weights stored transposed: 18 % faster for two rows, 10 % for eight, not in the whole;
- weights with a transposed device layout: half as fast (XLA copies them back);
- weights on the product's left: slower below 1,536 columns; float32: twice the bytes;
- oneDNN and XNNPACK in place of YNNPACK, or neither: no faster, or a third;
- products written as sums: 2 GB/s; weights as constants of the program: no change.
"""

import argparse
import dataclasses
import json
import pathlib
import statistics
import subprocess
import time

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from tljax.cli.models import Model, open_model
from tljax.data.sources import open_source
from tljax.evaluate.features import pooled_features
from tljax.generate.decode import Generator
from tljax.generate.sampling import Sampling
from tljax.model import transformer
from tljax.objective.next_token import next_token_loss
from tljax.pretrained.sources import open_pretrained
from tljax.settings import OptimSettings, TransferSettings
from tljax.train import optimizer, step
from tljax.transfer.method import compose, split

URI = "pkg:smollm2-135m"
SENTENCES, PROMPT, NEW, LORA_ROWS, LORA_LENGTH, FROZEN = 800, 32, 64, 8, 64, 20
WARM, STEPS = 4, 5  # as the peers' scripts do: tokens before the clock; steps timed
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


def decoding(model: Model, batch: int):
    """Returns measure() -> new tokens a second, greedy."""
    generator = Generator(model.settings, model.params, end_ids=[])
    random = np.random.default_rng(0)
    prompts = list(random.integers(100, 1000, (batch, PROMPT)))

    def write(new: int) -> float:
        started = time.perf_counter()
        generator.generate(
            prompts, max_new=new, sampling=Sampling(temperature=0), seeds=[0] * batch
        )
        return time.perf_counter() - started

    write(NEW)

    def measure():
        write(WARM)
        return batch * NEW / write(NEW)

    return measure


def lora_step(model: Model):
    """Returns measure() -> tokens a second of LoRA training steps."""
    moving, frozen = split(model.params, LORA, jax.random.key(0))
    frozen = jax.device_put(frozen)
    tokens = np.random.default_rng(0).integers(100, 1000, (LORA_ROWS, LORA_LENGTH))
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


def frozen_bottom(model: Model, *, kept: bool):
    """Returns measure() -> tokens a second of LoRA steps above frozen layers.

    With `kept`, what the frozen layers compute is given, as fine-tuning gives it.
    """
    transfer = dataclasses.replace(LORA, frozen_layers=FROZEN)
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
        below = FROZEN if kept else 0
        states = transformer.apply(
            model.settings, params, batch, adapter=adapter, below=below
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


class Peer:
    """Transformers, called as a program."""

    def __init__(self, python: pathlib.Path, peers: pathlib.Path, checkpoint: str):
        self._python, self._peers, self._checkpoint = python, peers, checkpoint

    def run(self, script: str, key: str, *flags: object) -> float:
        """What a script prints under the key."""
        command = [self._python, self._peers / script]
        command += ["--checkpoint", self._checkpoint, *flags]
        done = subprocess.run(
            [str(one) for one in command], capture_output=True, text=True, check=True
        )
        return json.loads(done.stdout.strip().split("\n")[-1])[key]


def main() -> None:
    """Measures in turns and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=pathlib.Path, required=True)
    parser.add_argument("--python", type=pathlib.Path, required=True)
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    peer = Peer(given.python, given.peers, open_pretrained(URI).where)
    model = open_model(URI)
    texts = [x.text for x in open_source("pkg:rotten_tomatoes").examples("test")]
    texts = texts[:SENTENCES]
    file = pathlib.Path("runs") / "bench_texts.txt"
    file.parent.mkdir(exist_ok=True)
    file.write_text("\n".join(texts) + "\n", encoding="utf-8")
    short = ["--dtype", "bfloat16"]
    work = {
        "features": (
            features(model, texts),
            ("features.py", "tokens_per_s", "--text", file, *short),
        ),
        "decoding, batch 1": (
            decoding(model, 1),
            ("generate.py", "new_tokens_per_s", "--batch", 1, *short),
        ),
        "decoding, batch 8": (
            decoding(model, 8),
            ("generate.py", "new_tokens_per_s", "--batch", 8, *short),
        ),
        "LoRA step": (lora_step(model), ("lora_step.py", "tokens_per_s", *short)),
    }
    table = Table("work", "tljax, tokens/s", "Transformers", "ratio of medians")
    for name, (ours, theirs) in work.items():
        pairs = [(ours(), peer.run(*theirs)) for _ in range(given.turns)]
        mine, other = (statistics.median(column) for column in zip(*pairs, strict=True))
        spread = f"{min(a for a, _ in pairs):.0f} to {max(a for a, _ in pairs):.0f}"
        table.add_row(
            name, f"{mine:.0f} ({spread})", f"{other:.0f}", f"{mine / other:.2f}"
        )
    Console().print(table)
    pairs = [frozen_bottom(model, kept=kept) for kept in (True, False)]
    rates = [[one() for _ in range(5)] for one in pairs]
    kept, again = map(statistics.median, rates)
    print(
        f"LoRA above {FROZEN} frozen layers: {kept:.0f} tokens/s with their output"
        f" kept, {again:.0f} without: {kept / again:.2f} x"
    )


if __name__ == "__main__":
    main()
