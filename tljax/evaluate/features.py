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
_BLOCK = 64  # attention's
_ALIGNED = 16  # floats of a vector register: sums are then grouped alike
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
    suits whatever row the text is packed into later. Whatever else is wanted, a text's
    stream is the same to the bit: it begins at a multiple of _ALIGNED in its row.

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
    longest = max(map(len, tokens))
    chosen = [tokens[i] for i in wanted]
    plan = _aligned_plan(chosen, longest)
    shape = (sum(map(len, chosen)), settings.width)
    stream = np.zeros(shape, product_dtype(settings.dtype))

    def compute(params, batch):
        return _stream_below(settings, below, params, batch)

    params = transformer.for_products(settings, params)
    for t, found_BLD in _steps(compute, params, chosen, plan, progress):
        gather_BL = plan.gather_TBL[t]
        stream[gather_BL[gather_BL >= 0]] = found_BLD[gather_BL >= 0]
    return stream


def _aligned_plan(tokens: Sequence[np.ndarray], longest: int) -> PackedPlan:
    """As `_plan`, each text begun at a multiple of _ALIGNED, padding between them."""
    lengths = np.array([len(one) for one in tokens])
    spaced = [np.zeros(_rounded(length, _ALIGNED), np.int32) for length in lengths]
    plan = _plan(spaced, longest)
    real_I = np.concatenate(
        [np.arange(len(one)) < n for one, n in zip(spaced, lengths, strict=True)]
    )
    place_I = np.where(real_I, np.cumsum(real_I) - 1, -1)  # in the texts' flat tokens
    gather_TBL = np.where(plan.gather_TBL >= 0, place_I[plan.gather_TBL], -1)
    return dataclasses.replace(
        plan,
        gather_TBL=gather_TBL,
        segments_TBL=np.where(gather_TBL >= 0, plan.segments_TBL, 0),
    )


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
    places_BL = transformer.places_in_segment(batch["segments_BL"])
    batch = {**batch, "positions_BL": places_BL}
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


def _plan(tokens: Sequence[np.ndarray], longest: int = 0) -> PackedPlan:
    """Rows as long as the longest text, of these or elsewhere, or longer."""
    texts = _as_set(tokens)
    row_length = max(ROW_LENGTH, longest, int(texts.lengths.max()))
    row_length = _rounded(row_length, _BLOCK)
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


def _rounded(length: int, step: int) -> int:
    """Up to a multiple of step."""
    return -(-length // step) * step
