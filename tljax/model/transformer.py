"""tokens -> embedding -> N blocks -> norm -> hidden states; logits = hidden output^T.

    {"embedding": {"tokens": [V, D]}, "layers": {"0": {...}, ...},
     "final_norm": {"scale": [D]}, "output": {"kernel": [V, D]} unless tied}

One tree whether the layers are scanned or unrolled. Never holds a head of a task.
"""

import functools

import jax
import jax.numpy as jnp

from tljax.model.block import Adapter, Block, rms_norm
from tljax.model.product import product_dtype
from tljax.settings import InputError, ModelSettings

_EMBEDDING_STD = 0.02


def check(settings: ModelSettings, where: str = "config.model") -> None:
    """Raises InputError where the sizes cannot be built."""
    if settings.width % settings.heads:
        raise InputError(
            f"{where}.width={settings.width} is not divisible by"
            f" {where}.heads={settings.heads}"
        )
    if settings.width // settings.heads % 2:
        raise InputError(
            f"{where}.width / {where}.heads = {settings.width // settings.heads};"
            " rotary positions need an even head width"
        )
    if settings.heads % settings.kv_heads:
        raise InputError(
            f"{where}.heads={settings.heads} is not divisible by"
            f" {where}.kv_heads={settings.kv_heads}"
        )


def init_params(settings: ModelSettings, vocab_size: int, key: jax.Array) -> dict:
    """Fresh float32 parameters; every leaf depends on (settings, vocab_size, key)."""
    keys = jax.random.split(key, settings.depth + 2)
    shape = (vocab_size, settings.width)
    x_BLD = jnp.zeros((1, 2, settings.width))
    segments_BL = jnp.ones((1, 2), jnp.int32)
    block = Block(settings)
    params = {
        "embedding": {"tokens": _EMBEDDING_STD * jax.random.normal(keys[-1], shape)},
        "layers": {
            str(i): block.init(keys[i], x_BLD, segments_BL)["params"]
            for i in range(settings.depth)
        },
        "final_norm": {"scale": jnp.ones(settings.width)},
    }
    if not settings.tied:
        params["output"] = {
            "kernel": _EMBEDDING_STD * jax.random.normal(keys[-2], shape)
        }
    return params


def output_matrix(params: dict) -> jax.Array:
    """The [V, D] matrix that turns hidden states into logits."""
    return (
        params["output"]["kernel"]
        if "output" in params
        else params["embedding"]["tokens"]
    )


def apply(
    settings: ModelSettings,
    params: dict,
    batch: dict,
    adapter: Adapter | None = None,
    dropout_key: jax.Array | None = None,
) -> jax.Array:
    """Hidden states after the final norm.

    Args:
      settings: what init_params was given.
      params: its tree.
      batch: "tokens_BL" and "segments_BL", int32; segment 0 is padding.
      adapter: called as adapter(path, x, y) -> y on every product and block output.
      dropout_key: None switches dropout off.

    Returns:
      [B, L, D] in the product dtype.
    """
    dtype = product_dtype(settings.dtype)
    segments_BL = batch["segments_BL"]
    x_BLD = params["embedding"]["tokens"].astype(dtype)[batch["tokens_BL"]]
    if settings.dropout == 0.0:
        dropout_key = None
    layers = [params["layers"][str(i)] for i in range(settings.depth)]
    keys = [None] * settings.depth
    if dropout_key is not None:
        keys = jax.random.split(dropout_key, settings.depth)

    def one(x_BLD, layer, key, path):
        return Block(settings).apply(
            {"params": layer}, x_BLD, segments_BL, key, path, adapter
        )

    if settings.scan_layers and adapter is None:
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)
        scanned = (stacked, None if dropout_key is None else keys)
        body = functools.partial(_scan_body, one)
        x_BLD, _ = jax.lax.scan(body, x_BLD, scanned)
    else:
        for i, layer in enumerate(layers):
            x_BLD = one(x_BLD, layer, keys[i], f"layers/{i}")
    return rms_norm(x_BLD, params["final_norm"]["scale"])


def _scan_body(one, x_BLD, layer_and_key):
    layer, key = layer_and_key
    return one(x_BLD, layer, key, "layers"), None
