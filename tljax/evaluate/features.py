"""Frozen features: a text's token states, pooled to one vector, layer by layer.

texts' tokens -> packed rows -> stream after k layers -> pooled [I, layers, poolings, D]

Packing instead of padding: one shape, one compilation, and hardly a token wasted.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from tljax.data.batches import PackedPlan, choose_slots, flat_tokens, scoring_plan
from tljax.data.labelled import LabelledSet
from tljax.model import heads, transformer
from tljax.model.product import product_dtype
from tljax.settings import ModelSettings

ROW_LENGTH = 128  # of packed rows, where no text is longer
STEP_TOKENS = {"cpu": 1024}  # of one compiled step
ACCELERATOR_STEP_TOKENS = 16384


def pooled_features(
    settings: ModelSettings,
    params: dict,
    tokens: Sequence[np.ndarray],
    *,
    poolings: Sequence[str],
    layers: Sequence[int] = (),
    progress: Callable[[int, int], None] = lambda items, tokens: None,
) -> np.ndarray:
    """Computes the features of texts.

    Args:
      settings: of the model.
      params: its tree; a head in it is not used.
      tokens: int32 [L] of each text, at least one token; none longer than the context.
      poolings: kinds of `heads.pool`.
      layers: numbers of layers k: the stream after k layers is pooled, 0 being the
        embedding. () = the final states, after the final norm.
      progress: progress(texts done, their tokens), after every step.

    Returns:
      float32 [I, max(1, len(layers)), len(poolings), D], in the texts' order.
    """
    plan = _plan(tokens)
    slots = plan.items_TBM.shape[2]
    shape = (len(tokens), max(1, len(layers)), len(poolings), settings.width)
    features = np.zeros(shape, np.float32)

    def compute(params, batch):
        kept = (settings, tuple(layers), tuple(poolings), slots)
        return _pooled_streams(*kept, params, batch)

    params = transformer.for_products(settings, params)
    for t, found in _steps(compute, params, tokens, plan, progress):
        placed_BM = plan.items_TBM[t] >= 0
        features[plan.items_TBM[t][placed_BM]] = found[placed_BM]
    return features


def token_streams(
    settings: ModelSettings,
    params: dict,
    tokens: Sequence[np.ndarray],
    wanted: Sequence[int],
    *,
    below: int,
    progress: Callable[[int, int], None] = lambda items, tokens: None,
) -> np.ndarray:
    """What the first `below` layers compute for every token of some texts.

    Positions count from a text's start, and no text sees another: the same stream
    suits whatever row the text is packed into later. All texts are packed, and the
    rows with wanted ones computed: whatever else is wanted, a text's stream is the
    same to the bit.

    Args:
      settings: of the model.
      params: its tree.
      tokens: int32 [L] of each text there is.
      wanted: indices of those that are asked for, ascending.
      below: number of layers.
      progress: as in `pooled_features`.

    Returns:
      [tokens of the wanted texts, D] in the product dtype, text after text.
    """
    plan = _rows_with(_plan(tokens), wanted)
    starts = np.concatenate([[0], np.cumsum([len(one) for one in tokens])])
    place_I = np.full(starts[-1], -1)  # of a token in the stream
    taken = 0
    for i in wanted:
        place_I[starts[i] : starts[i + 1]] = taken + np.arange(len(tokens[i]))
        taken += len(tokens[i])
    stream = np.zeros((taken, settings.width), product_dtype(settings.dtype))

    def compute(params, batch):
        return _stream_below(settings, below, params, batch)

    params = transformer.for_products(settings, params)
    for t, found_BLD in _steps(compute, params, tokens, plan, progress):
        gather_BL = plan.gather_TBL[t]
        place_BL = np.where(gather_BL >= 0, place_I[np.maximum(gather_BL, 0)], -1)
        stream[place_BL[place_BL >= 0]] = found_BLD[place_BL >= 0]
    return stream


def _rows_with(plan: PackedPlan, wanted: Sequence[int]) -> PackedPlan:
    """The plan's rows that hold a wanted item, in steps of as many rows.

    Other items of these rows are computed, but not named.
    """
    rows = plan.gather_TBL.shape[1]
    fill = {"gather_TBL": -1, "items_TBM": -1}
    asked_TBM = np.isin(plan.items_TBM, wanted)
    plan = dataclasses.replace(plan, items_TBM=np.where(asked_TBM, plan.items_TBM, -1))
    (kept,) = asked_TBM.any(axis=2).reshape(-1).nonzero()
    missing = -len(kept) % rows

    def cut(field):
        x_TBX = getattr(plan, field.name)
        x_BX = x_TBX.reshape(-1, x_TBX.shape[2])[kept]
        more = np.full((missing, x_BX.shape[1]), fill.get(field.name, 0), x_BX.dtype)
        return np.concatenate([x_BX, more]).reshape(-1, rows, x_BX.shape[1])

    return PackedPlan(*map(cut, dataclasses.fields(PackedPlan)))


@functools.partial(jax.jit, static_argnums=range(4))
def _pooled_streams(settings, layers, poolings, slots, params, batch):
    """[B, slots, max(1, len(layers)), len(poolings), D]; compiled once a process."""
    pooled = [
        jnp.stack([heads.pool(x, batch["segments_BL"], slots, one) for one in poolings])
        for x in _streams(settings, params, batch, layers)
    ]
    return jnp.moveaxis(jnp.stack(pooled), (0, 1), (2, 3))


@functools.partial(jax.jit, static_argnums=range(2))
def _stream_below(settings, below, params, batch):
    return _streams(settings, params, batch, (below,))[0]


def _streams(settings, params, batch, layers):
    """The streams after those layers; of () the final states. Nothing above them."""
    kept = {}

    def watch(layer, x_BLD):
        if layer in layers:
            kept[layer] = x_BLD

    if layers:
        depth = max(1, *layers)
        windows = settings.windows[:depth]
        settings = dataclasses.replace(settings, depth=depth, windows=windows)
    last_BLD = transformer.apply(settings, params, batch, watch=watch)
    return [kept[layer] for layer in layers] or [last_BLD]


def _plan(tokens: Sequence[np.ndarray]) -> PackedPlan:
    texts = _as_set(tokens)
    row_length = max(ROW_LENGTH, _rounded(int(texts.lengths.max())))
    slots = choose_slots(texts.lengths, row_length=row_length)
    most = STEP_TOKENS.get(jax.default_backend(), ACCELERATOR_STEP_TOKENS)
    rows = max(1, most // row_length)
    return scoring_plan(texts, rows=rows, row_length=row_length, slots=slots)


def _steps(compute, params, tokens, plan, progress) -> Iterator[tuple[int, np.ndarray]]:
    """(step, what compute(params, batch) finds), one compiled step after another."""
    flat = flat_tokens(_as_set(tokens))
    done = spent = 0
    for t in range(plan.steps):
        gather_BL = plan.gather_TBL[t]
        batch = {
            "tokens_BL": flat[np.maximum(gather_BL, 0)],  # padding: any token does
            "segments_BL": plan.segments_TBL[t],
        }
        yield t, np.asarray(compute(params, batch))
        done += int((plan.items_TBM[t] >= 0).sum())
        spent += int((gather_BL >= 0).sum())
        progress(done, spent)


def _as_set(tokens: Sequence[np.ndarray]) -> LabelledSet:
    """The texts as a set whose labels nobody reads."""
    return LabelledSet(
        ids=("",) * len(tokens),
        tokens=tuple(tokens),
        labels=np.zeros(len(tokens), np.int32),
        classes=("",),
        texts=("",) * len(tokens),
    )


def _rounded(length: int) -> int:
    """Up to a multiple of 64, attention's block."""
    return -(-length // 64) * 64
