"""Speed on a real pretrained model, ours and Transformers', in turns in one run.

    python scripts/bench_pretrained.py --peers=DIR --python=PEERS_ENV/bin/python

Work: features of review sentences; greedy decoding at batch 1 and 8; a LoRA training
step (rank 8, all linear maps, 8 x 64 tokens). Both at their better precision, ours
compiled before the clock starts. Prints a table of medians and their ratio.
"""

import argparse
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
SENTENCES, PROMPT, NEW, LORA_ROWS, LORA_LENGTH = 400, 32, 64, 8, 64
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
    return lambda: batch * NEW / write(NEW)


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

    advance = jax.jit(step.make_train_step(loss, ADAMW), donate_argnums=0)
    hparams = optimizer.hyperparameters(ADAMW, 100, 0)
    state, sums = advance(step.init_state(moving, ADAMW), batch, hparams)
    jax.block_until_ready(sums)

    def measure():
        nonlocal state
        started = time.perf_counter()
        state, sums = advance(state, batch, hparams)
        jax.block_until_ready(sums)
        return tokens.size / (time.perf_counter() - started)

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


if __name__ == "__main__":
    main()
