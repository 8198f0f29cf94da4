"""What a GPU is asked, figure by figure: a section yields each as soon as it is found.

Called by scripts/gpu_bench.py, a process a section; `small` runs on any device.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from tljax.cli.bench import training
from tljax.cli.bench.ceiling import ceilings, peak
from tljax.cli.bench.peer import Peer
from tljax.model import attention, heads, product, transformer
from tljax.objective.classification import labelled_loss
from tljax.settings import TransferSettings
from tljax.train import optimizer, population, step

STEPS, ROUNDS = 5, 3  # steps timed together; times, of which the median counts
GPT2 = training.Size(768, 12, 12, 2048, 50304, 32, 1024)
BILLION = training.Size(2048, 18, 16, 5632, 32768, 8, 2048)
SMOLLM2 = training.Size(576, 30, 9, 1536, 49152, 16, 512)
TINY = training.Size(16, 1, 2, 16, 64, 2, 16)
Found = Iterator[dict[str, Any]]


def taken(*, small: bool) -> Found:
    """What the device is, and what the compiled steps call."""
    device = jax.devices()[0]
    yield {
        "device": device.device_kind,
        "jax": jax.__version__,
        "bfloat16_is_faster": product.bfloat16_is_faster(),
        "cuda_capability": product.cuda_capability(),
    }
    size = training.Size(128, 2, 2, 256, 512, 2, 64 if small else 256)
    for name, packed, remat in (
        ("plain", False, "none"), ("packed", True, "none"), ("remat", True, "products"),
    ):  # fmt: skip
        made = training.make_step(size, "bfloat16", packed=packed, remat=remat)
        yield {f"cudnn_{name}": "__cudnn$fmha" in made[0].as_text()}
    yield {"largest_difference": _attention_difference(64 if small else 1024)}


def _attention_difference(length: int) -> float:
    """Of flash attention's values and gradients from XLA's, over the largest of each.

    Packed rows, grouped heads; in bfloat16 some hundredths are rounding.
    """
    random = np.random.default_rng(0)
    q, k, v, pull = (
        jax.numpy.asarray(random.standard_normal((2, length, heads, 64)), "bfloat16")
        for heads in (4, 2, 2, 4)
    )
    segments_BL = np.sort(random.integers(0, 3, (2, length)), axis=1).astype(np.int32)
    reach = attention.Reach(causal=True, window=0, scale=0.125)

    def of(flash):
        def attend(q, k, v):
            return attention.attend(q, k, v, segments_BL, reach, flash=flash)

        def run(q, k, v):
            mixed, back = jax.vjp(attend, q, k, v)
            return mixed, *back(pull)

        return [np.asarray(one, np.float32) for one in jax.jit(run)(q, k, v)]

    pairs = zip(of(True), of(False), strict=True)
    return max(float(abs(a - b).max() / abs(b).max()) for a, b in pairs)


def products(*, small: bool) -> Found:
    """Rates of large products."""
    found = ceilings(256 if small else None)
    yield {f"{dtype}_flops_per_second": rate for dtype, rate in found.items()}


def decoder(size: training.Size, *, small: bool, remats: list[str], **options) -> Found:
    """Tokens a second and MFU of a training step.

    Args:
      size: of the model and its batch.
      small: a tiny one in its place.
      remats: ModelSettings.remat; the first that fits the memory is taken.
      options: of `training.make_step`.
    """
    size = TINY if small else size
    for remat in remats:
        started = time.perf_counter()
        try:
            made = training.make_step(size, "bfloat16", remat=remat, **options)
            parameters = sum(leaf.size for leaf in jax.tree.leaves(made[1].params))
            yield {"parameters": parameters, "remat": remat,
                   "compile_seconds": time.perf_counter() - started}  # fmt: skip
            seconds_per_step = _timer(*made)
            break
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error) or remat == remats[-1]:
                raise
            made = None  # its memory is for the next
    rate = size.tokens / statistics.median(seconds_per_step() for _ in range(ROUNDS))
    device = jax.devices()[0]
    yield {
        "tokens_per_second": rate,
        "peak_bytes": (device.memory_stats() or {}).get("peak_bytes_in_use"),
    }
    promised = peak(device.device_kind)
    yield {"mfu": rate * size.flops / promised if promised else None}
    found = ceilings(256 if small else None)["bfloat16"]
    yield {"share_of_measured_product": rate * size.flops / found}


def _timer(advance, state, batch, hparams) -> Callable[[], float]:
    """Returns measure() -> seconds a step, of some sent off without waiting between."""

    def run(steps: int) -> float:
        nonlocal state
        started = time.perf_counter()
        for _ in range(steps):
            state, sums = advance(state, batch, hparams)
        jax.block_until_ready((state, sums))
        return (time.perf_counter() - started) / steps

    run(2)
    return lambda: run(STEPS)


def against_peer(peer: Peer | None, *, small: bool) -> Found:
    """Ours, theirs, ours: a step of SmolLM2-135M's width, depth and vocabulary."""
    size = TINY if small else SMOLLM2
    made = training.make_step(size, "bfloat16", packed=False, scan_layers=True)
    seconds_per_step = _timer(*made)
    ours = [size.tokens / seconds_per_step() for _ in range(ROUNDS)]
    yield {"tokens_per_second": statistics.median(ours)}
    if peer is None:
        return
    theirs = training.theirs(peer, size, "bfloat16", "tokens_per_s")()
    yield {"their_tokens_per_second": theirs}
    ours += [size.tokens / seconds_per_step() for _ in range(ROUNDS)]
    rate = statistics.median(ours)
    yield {"tokens_per_second": rate, "ratio": rate / theirs}


def members(*, small: bool) -> Found:
    """Small classifiers that train together, and one after another: steps a second."""
    count, steps = (2, 2) if small else (32, 20)
    size = TINY if small else training.Size(192, 4, 3, 512, 4096, 16, 64)
    model = size.model("bfloat16")
    plan = jax.device_put(_plan(size, count, steps))
    rates = optimizer.hyperparameters(training.ADAMW, 1000, 0)
    hparams = population.stack([rates] * count)

    def take(data, plan, index):
        rows = {name: leaf[index % steps] for name, leaf in plan.items()}
        return {**rows, "frozen": {}}

    @jax.jit
    @jax.vmap
    def first_state(key):
        params = transformer.init_params(model, size.vocab, key)
        params["head"] = heads.init_classifier(size.width, 2, key)
        return step.init_state(params, training.ADAMW)

    found = {}
    for mode in ("vmap", "turn"):
        of_member = population.member_model(model, mode)
        loss = labelled_loss(of_member, "mean", TransferSettings())
        train_step = step.make_train_step(loss, training.ADAMW)
        rounds = population.make_train_rounds(train_step, take)
        advance = jax.jit(population.lift(rounds, mode, shared=1), donate_argnums=1)
        state, times = first_state(jax.random.split(jax.random.key(0), count)), []
        for turn in range(1 + ROUNDS):
            started = time.perf_counter()
            until = np.full(count, (turn + 1) * steps, np.int32)
            state, sums = advance({}, state, plan, hparams, until)
            jax.block_until_ready((state, sums))
            times.append(time.perf_counter() - started)
        found[mode] = count * steps / statistics.median(times[1:])
        yield {f"{mode}_member_steps_per_second": found[mode]}
    yield {"members": count, "ratio": found["vmap"] / found["turn"]}


def _plan(size: training.Size, count: int, steps: int) -> dict[str, np.ndarray]:
    """Batches of two random texts a row, for each member and step."""
    random = np.random.default_rng(0)
    each = (count, steps, size.batch)
    rows = (*each, size.length)
    segments = np.sort(random.integers(1, 3, rows), axis=-1)
    return {
        "tokens_BL": random.integers(0, size.vocab, rows, dtype=np.int32),
        "segments_BL": segments.astype(np.int32),
        "labels_BM": random.integers(0, 2, (*each, 2), dtype=np.int32),
        "weights_BM": np.ones((*each, 2), np.float32),
    }
