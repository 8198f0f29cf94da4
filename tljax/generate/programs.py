"""The compiled programs of decoding: start, grow, advance; and read, which proves them.

start     reads padded prompts and draws each row's first token
grow      makes room in the cache; nothing else depends on how much is to be written
advance   one token a row and step, until a limit that it is told: one program for all

Each is compiled for a number of rows and of places, both of which come in buckets.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tljax.generate.sampling import Sampling, sample
from tljax.model import transformer
from tljax.model.cache import extend, init_cache
from tljax.model.product import jit_by_sums
from tljax.settings import ModelSettings

# Prompt tokens in one product: bounds the scores, rows x heads x these x prompt.
PIECE = 512


class Rule(NamedTuple):
    """How tokens are drawn and where texts end: ends_V is true of an end token."""

    sampling: Sampling
    keys_B: jax.Array
    ends_V: jax.Array


class State(NamedTuple):
    """Texts in the making.

    new_BL holds the first length_B tokens of each; last_B is the newest, which the
    cache has not yet, and place_B its place in its text; `drawn` counts steps.
    """

    cache: dict[str, Any]
    new_BL: jax.Array
    length_B: jax.Array
    last_B: jax.Array
    place_B: jax.Array
    seen_BV: jax.Array
    done_B: jax.Array
    drawn: jax.Array


@jax.jit
def keys(seeds_B: jax.Array) -> jax.Array:
    """The random key of each row."""
    return jax.vmap(jax.random.key)(seeds_B)


@functools.partial(jax.jit, static_argnames="settings")
def start(settings: ModelSettings, params: dict, batch: dict, rule: Rule) -> State:
    """Reads the prompts, a piece at a time, and draws the first tokens."""
    rows, length = batch["tokens_BL"].shape
    piece = length if length <= PIECE else math.gcd(length, PIECE)
    pieces = {  # [pieces, B, piece]
        name: x_BL.reshape(rows, -1, piece).swapaxes(0, 1)
        for name, x_BL in batch.items()
    }

    def read(cache, one):
        states_BLD, cache = extend(settings, params, one, cache)
        return cache, states_BLD[:, -1:]

    cache = init_cache(settings, rows, length)
    cache, states = jax.lax.scan(read, cache, pieces)
    logits_BV = transformer.logits_of(params, states[-1])[:, 0]
    real_BL = batch["segments_BL"] > 0
    row_B1 = jnp.arange(rows)[:, None]
    seen_BV = jnp.zeros(logits_BV.shape, bool)
    zeros_B = jnp.zeros(rows, jnp.int32)
    state = State(
        cache=cache,
        new_BL=jnp.zeros((rows, length), jnp.int32),
        length_B=zeros_B,
        last_B=zeros_B,
        place_B=real_BL.sum(axis=1, dtype=jnp.int32) - 1,
        seen_BV=seen_BV.at[row_B1, batch["tokens_BL"]].max(real_BL),
        done_B=~real_BL.any(axis=1),
        drawn=jnp.zeros((), jnp.int32),
    )
    return _draw(state, rule, logits_BV)


def _draw(state: State, rule: Rule, logits_BV: jax.Array) -> State:
    """One more token for every row that has not ended."""
    keys_B = jax.vmap(jax.random.fold_in, (0, None))(rule.keys_B, state.drawn)
    token_B = sample(logits_BV, state.seen_BV, keys_B, rule.sampling)
    done_B = state.done_B | rule.ends_V[token_B]
    row_B = jnp.arange(token_B.shape[0])
    return state._replace(
        new_BL=jax.lax.dynamic_update_slice(
            state.new_BL, token_B[:, None], (0, state.drawn)
        ),
        length_B=state.length_B + ~done_B,
        last_B=token_B,
        place_B=state.place_B + 1,
        seen_BV=state.seen_BV.at[row_B, token_B].set(True),
        done_B=done_B,
        drawn=state.drawn + 1,
    )


@functools.partial(jax.jit, static_argnames="room")
def grow(state: State, room: int) -> State:
    """The same texts with room for more tokens."""

    def wider(x):
        axis = 2 if x.ndim == 4 else 1  # [B, H, K, E] of keys and values, else [B, K]
        return jnp.pad(x, [(0, room if i == axis else 0) for i in range(x.ndim)])

    used = state.cache["used"]
    places = {name: x for name, x in state.cache.items() if name != "used"}
    cache = jax.tree.map(wider, places) | {"used": used}
    return state._replace(cache=cache, new_BL=wider(state.new_BL))


@functools.partial(jit_by_sums, static_argnames="settings", donate_argnames="state")
def advance(
    settings: ModelSettings,
    params: dict,
    state: State,
    rule: Rule,
    stopped_B: jax.Array,
    limit: jax.Array,
) -> State:
    """Draws until `limit` tokens are drawn, or every row has ended or been stopped."""

    def unfinished(state):
        return (state.drawn < limit) & ~state.done_B.all()

    ones_B = jnp.ones_like(state.last_B)

    def step(state):
        logits_BV, cache = _next_logits(
            settings, params, state.last_B, ones_B, state.place_B, state.cache
        )
        return _draw(state._replace(cache=cache), rule, logits_BV)

    state = state._replace(done_B=state.done_B | stopped_B)
    return jax.lax.while_loop(unfinished, step, state)


def _next_logits(settings, params, token_B, segment_B, place_B, cache):
    """Logits [B, V] behind one more token a row, and the cache that has it."""
    columns = {"tokens": token_B, "segments": segment_B, "positions": place_B}
    batch = {f"{name}_BL": column_B[:, None] for name, column_B in columns.items()}
    states_BLD, cache = extend(settings, params, batch, cache)
    return transformer.logits_of(params, states_BLD)[:, 0], cache


@functools.partial(jit_by_sums, static_argnames="settings")
def read(
    settings: ModelSettings, params: dict, tokens_BL: jax.Array, segments_BL: jax.Array
) -> jax.Array:
    """Logits [B, L, V] of given rows, read as `advance` reads its own text.

    A token at a time through the cache; `transformer.apply` gives the same to rounding.
    """
    rows, length = tokens_BL.shape
    positions_BL = transformer.places_in_segment(segments_BL)

    def step(cache, columns):
        logits_BV, cache = _next_logits(settings, params, *columns, cache)
        return cache, logits_BV

    cache = init_cache(settings, rows, length)
    columns = (tokens_BL.T, segments_BL.T, positions_BL.T)
    _, logits_LBV = jax.lax.scan(step, cache, columns)
    return logits_LBV.swapaxes(0, 1)
