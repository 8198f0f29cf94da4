"""Keys and values of the tokens before: what makes the next token cheap.

    empty cache -> extend by a prompt -> extend by a token -> ...

Without a derivative; training goes through `transformer.apply`.
"""

from typing import Any

import jax
import jax.numpy as jnp

from tljax.model import attention, transformer
from tljax.model.block import Block, Look
from tljax.model.product import product_dtype
from tljax.settings import ModelSettings


def init_cache(settings: ModelSettings, rows: int, places: int) -> dict[str, Any]:
    """An empty cache of keys and values for `extend`.

    Args:
      settings: of the model.
      rows: texts that grow together, B.
      places: tokens that a row can hold, prompt and what is added.

    Returns:
      {"keys": {"0": [B, H, K, E] ...}, "values": likewise, in the product dtype;
       "segments_BK": 0 where nothing is; "used": places taken, int32}.
    """
    shape = (rows, settings.kv_heads, places, attention.head_width(settings))
    dtype = product_dtype(settings.dtype)

    def empty():
        return {str(i): jnp.zeros(shape, dtype) for i in range(settings.depth)}

    return {
        "keys": empty(),
        "values": empty(),
        "segments_BK": jnp.zeros((rows, places), jnp.int32),
        "used": jnp.zeros((), jnp.int32),
    }


def for_extending(settings: ModelSettings, params: dict) -> dict:
    """`transformer.for_products`, arranged for products of few rows.

    These take as long as their weights are read, and each a while to begin: query, key
    and value are one product, "qkv", and a kernel [D, F] is kept as {"transposed":
    [F, D]}, in which what one output needs lies together (`product.read_once`).
    """

    def join(layer):
        rest = dict(layer["attention"])
        parts = [rest.pop(name) for name in ("query", "key", "value")]
        qkv = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=-1), *parts)
        return {**layer, "attention": {**rest, "qkv": qkv}}

    def turn(tree):
        found = {}
        for name, one in tree.items():
            if name == "kernel":
                found["transposed"] = one.T
            else:
                found[name] = turn(one) if isinstance(one, dict) else one
        return found

    params = transformer.for_products(settings, params)
    layers = {i: turn(join(layer)) for i, layer in params["layers"].items()}
    return {**params, "layers": layers}


def extend(
    settings: ModelSettings, params: dict, batch: dict, cache: dict[str, Any]
) -> tuple[jax.Array, dict[str, Any]]:
    """As `transformer.apply`, for tokens that follow those in the cache.

    Rows whose texts differ in length are padded at their beginning (segment 0), so that
    all take the same places:    . . a b | c      the bar: what an `extend` adds
                                 d e f g | h

    Args:
      settings: of the model; causal.
      params: its tree, or that of `for_extending`.
      batch: "tokens_BL", "segments_BL" (0 = padding) and "positions_BL", the place of
        each token in its own text.
      cache: of `init_cache`, or returned by the last call; must have L places left.

    Returns:
      (states [B, L, D], the cache with these tokens).
    """
    used, length = cache["used"], batch["tokens_BL"].shape[1]
    segments_BK = jax.lax.dynamic_update_slice(
        cache["segments_BK"], batch["segments_BL"], (0, used)
    )
    same_BQK = batch["segments_BL"][:, :, None] == segments_BK[:, None]
    query_Q, key_K = used + jnp.arange(length), jnp.arange(segments_BK.shape[1])
    keys, values = dict(cache["keys"]), dict(cache["values"])
    x_BLD = transformer.embed(settings, params, batch, batch["positions_BL"])
    for i in map(str, range(settings.depth)):
        reach = transformer.reach_of(settings, int(i))

        def mix(q, k, v, i=i, reach=reach):
            for kept, new in ((keys, k), (values, v)):
                new_BHQE = new.swapaxes(1, 2)
                place = (0, 0, used, 0)
                kept[i] = jax.lax.dynamic_update_slice(kept[i], new_BHQE, place)
            mask_BQK = same_BQK & attention.seen(query_Q, key_K, reach)[None]
            return attention.attend_cached(q, keys[i], values[i], mask_BQK, reach.scale)

        look = Look(reach, mix, batch["positions_BL"])
        layer = {"params": params["layers"][i]}
        x_BLD = Block(settings).apply(layer, x_BLD, look, path=f"layers/{i}")
    grown = {
        "keys": keys,
        "values": values,
        "segments_BK": segments_BK,
        "used": used + length,
    }
    return transformer.finish(settings, params, x_BLD), grown
