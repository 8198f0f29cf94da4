"""A next-word training step of a decoder: tokens a second, and memory.

Architecture, batch and optimizer are those of the peer's LlamaForCausalLM: rotary
positions, SwiGLU, tied embedding, AdamW on every parameter, random tokens.
"""

import dataclasses
import json
import statistics
import subprocess
import sys
import time

import jax
import numpy as np

from tljax.cli import parts
from tljax.cli.bench.peer import Peer
from tljax.cli.bench.resident import peak_bytes
from tljax.cli.bench.turns import Work
from tljax.model import transformer
from tljax.model.product import lower_by_onednn, product_dtype
from tljax.objective.next_token import language_loss
from tljax.settings import ModelSettings, OptimSettings
from tljax.train import optimizer, population, step

STEPS = 8  # timed in a turn, as the peer's script does
MEMORY_FACTOR = 1 / 0.6  # ours takes at most .6 of theirs


@dataclasses.dataclass(frozen=True)
class Size:
    """Of a model and its batch."""

    width: int
    depth: int
    heads: int
    mlp: int
    vocab: int
    batch: int
    length: int

    @property
    def tokens(self) -> int:
        """Of a step."""
        return self.batch * self.length

    @property
    def flops(self) -> float:
        """Of a token of a training step: three times those of a forward pass.

        Two a weight of a matrix product (the vocabulary's too), and for attention four
        a channel and earlier position, of which there are length / 2 on average.
        """
        attention = 4 * self.width * self.width
        layer = attention + 3 * self.width * self.mlp + self.width * self.length
        return 6.0 * (self.depth * layer + self.width * self.vocab)

    def model(self, dtype: str) -> ModelSettings:
        """The same as the peer's."""
        return ModelSettings(
            width=self.width, depth=self.depth, heads=self.heads, kv_heads=self.heads,
            mlp="swiglu", mlp_width=self.mlp, qk_norm=False, bias="none", tied=True,
            causal=True, rope_base=10_000.0, dropout=0.0, scan_layers=False,
            dtype=dtype,
        )  # fmt: skip


SIZES = {
    "base": Size(256, 6, 4, 704, 8192, 16, 256),
    "wide": Size(512, 8, 8, 1408, 8192, 8, 256),
    "narrow": Size(192, 4, 3, 512, 4096, 32, 128),
    "vocabulary": Size(256, 2, 4, 704, 49152, 16, 256),
    "small": Size(128, 2, 4, 352, 4096, 32, 128),
    "tiny": Size(32, 2, 2, 64, 256, 2, 16),
}
ADAMW = OptimSettings(
    name="adamw", lr_peak=1e-3, lr_muon=0.0, weight_decay=0.01, b1=0.9, b2=0.999,
    clip_norm=0.0, warmup=0.0, cooldown=0.0, layer_decay=1.0, batch=1,
)  # fmt: skip


def make_step(
    size: Size, dtype: str, members: int = 0, *, packed: bool = True, **model
):
    """Returns (advance, state, batch, hparams): a compiled step and its arguments.

    advance(state, batch, hparams) -> (state, sums); the state is donated.

    Args:
      size: of the model and its batch.
      dtype: of products.
      members: of a population, each with a batch of its own; 0 = a lone step.
      packed: whether rows say which document each token is of; else every row is known
        to be one.
      model: changes of the settings of the peer's model.
    """
    random = np.random.default_rng(0)
    shape = (size.batch, size.length)
    tokens_BL = random.integers(0, size.vocab, shape, dtype=np.int32)
    batch = {
        "tokens_BL": tokens_BL,
        "segments_BL": np.ones(shape, np.int32),
        "targets_BL": np.roll(tokens_BL, -1, axis=1),
    }
    if not packed:
        del batch["segments_BL"]
    batch = jax.device_put(batch)
    mode = population.choose_mode(members or 1)
    settings = dataclasses.replace(size.model(dtype), **model)
    settings = population.member_model(settings, mode)
    train_step = step.make_train_step(language_loss(settings), ADAMW)

    @jax.jit
    def init(key):
        params = transformer.init_params(settings, size.vocab, key)
        return step.init_state(params, ADAMW)

    state = init(jax.random.key(0))
    hparams = jax.device_put(optimizer.hyperparameters(ADAMW, 1000, 0))
    if members:
        train_step = population.lift(train_step, mode)
        state, batch, hparams = population.stack([(state, batch, hparams)] * members)
        lowered = jax.jit(train_step, donate_argnums=0).lower(state, batch, hparams)
        return lowered.compile(), state, batch, hparams
    compiled = lower_by_onednn(train_step, state, batch, hparams, donate_argnums=0)
    return compiled(), state, batch, hparams


def timed(advance, state, batch, hparams):
    """Returns seconds() -> of one more step; arguments as `make_step` returns them."""

    def seconds() -> float:
        nonlocal state
        started = time.perf_counter()
        state, sums = advance(state, batch, hparams)
        jax.block_until_ready(sums)
        return time.perf_counter() - started

    return seconds


def prepare(size: Size, dtype: str):
    """Returns measure() -> tokens a second: the median of some steps."""
    seconds = timed(*make_step(size, dtype))

    def measure() -> float:
        seconds(), seconds()
        return size.tokens / statistics.median(seconds() for _ in range(STEPS))

    return measure


def best_dtype() -> str:
    """The faster precision of products here, of both sides.

    bfloat16 where the device multiplies it faster. A Xeon whose AMX is hidden has twice
    the rate in float32 by PyTorch; on a Zen 3, which has no such product, PyTorch's few
    steps of 'base' did not end within minutes (float32: 3 s a step).
    """
    return product_dtype("auto").name


def works(sizes: list[str], peer: Peer | None) -> list[Work]:
    """Steps of each size in the best precision; of the first also in float32."""
    found = []
    asked = [*((one, best_dtype()) for one in sizes), (sizes[0], "float32")]
    for name, dtype in dict.fromkeys(asked):
        size = SIZES[name]
        found.append(
            Work(
                name=f"train {name}, {dtype}",
                unit="tokens/s",
                prepare=lambda size=size, dtype=dtype: prepare(size, dtype),
                theirs=peer and theirs(peer, size, dtype, "tokens_per_s"),
                flops=size.flops,
                xla_flops=lambda size=size, dtype=dtype: xla_flops(size, dtype),
                target=1.3 if (name, dtype) == (sizes[0], "float32") else 1.15,
                dtype=dtype,
            )
        )
    return found


def theirs(peer: Peer, size: Size, dtype: str, key: str):
    """The peer's measure() of the same step: what it prints under the key."""
    names = ("width", "depth", "heads", "mlp", "vocab", "batch", "length")
    flags = [f"--{name}={getattr(size, name)}" for name in names]
    flags += [f"--dtype={dtype}", f"--steps={STEPS}", "--compile"]
    return lambda: peer.run("train_step.py", key, *flags)


def memory_works(size: str, peer: Peer | None) -> list[Work]:
    """Peak memory of a whole process that trains a few steps."""

    def measure() -> float:
        call = f"from tljax.cli.bench import training; training.peak({size!r})"
        done = subprocess.run(
            [sys.executable, "-c", call], capture_output=True, text=True, check=True
        )
        return json.loads(done.stdout.strip().splitlines()[-1])

    other = peer and theirs(peer, SIZES[size], best_dtype(), "peak_rss_mib")
    return [
        Work(
            name=f"memory of a step, {size}",
            unit="MiB",
            prepare=lambda: measure,
            theirs=other,
            target=MEMORY_FACTOR,
        )
    ]


def peak(name: str) -> None:
    """Trains a few steps and prints the process's largest resident memory, in MiB."""
    parts.prepare_devices()
    prepare(SIZES[name], best_dtype())()
    print(peak_bytes() / 2**20)


def xla_flops(size: Size, dtype: str) -> float | None:
    """Of a token of a step, by XLA's own count; None where it has none.

    Products that XLA hands to a library are counted by some versions and not by others.
    """
    cost = make_step(size, dtype)[0].cost_analysis()
    counted = (cost or {}).get("flops")
    return counted / size.tokens if counted else None
