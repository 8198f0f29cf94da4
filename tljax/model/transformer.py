"""tokens -> embedding -> N blocks -> norm -> hidden states; logits = hidden output^T.

    {"embedding": {"tokens": [V, D]}, "layers": {"0": {...}, ...},
     "final_norm": {"scale": [D]}, "output": {"kernel": [V, D]} unless tied}

One tree whether the layers are scanned or unrolled. Never holds a head of a task.
Other people's models may add embedding/positions, embedding/types, embedding_norm, and
have no final_norm (norm_place 'after').
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from tljax.model import attention
from tljax.model.block import Adapter, Block, Look, normalize, read
from tljax.model.product import product_dtype, read_once
from tljax.settings import InputError, ModelSettings

_EMBEDDING_STD = 0.02


def check(settings: ModelSettings, where: str = "config.model") -> None:
    """Raises InputError where the sizes cannot be built."""
    if not settings.head_width and settings.width % settings.heads:
        raise InputError(
            f"{where}.width={settings.width} is not divisible by"
            f" {where}.heads={settings.heads}"
        )
    width = attention.head_width(settings)
    if settings.positions == "rotary" and width % 2:
        raise InputError(
            f"{where}.width / {where}.heads = {width};"
            " rotary positions need an even head width"
        )
    if settings.heads % settings.kv_heads:
        raise InputError(
            f"{where}.heads={settings.heads} is not divisible by"
            f" {where}.kv_heads={settings.kv_heads}"
        )
    if settings.positions == "learned" and not settings.context:
        raise InputError(
            f"{where}.positions='learned' needs {where}.context, the longest text"
        )
    if settings.windows and len(settings.windows) != settings.depth:
        raise InputError(
            f"{where}.windows has {len(settings.windows)} numbers, {where}.depth is"
            f" {settings.depth}; give one a layer, or none"
        )
    if any(settings.windows) and not settings.causal:
        raise InputError(f"{where}.windows look back only; set {where}.causal=True")


def init_params(settings: ModelSettings, vocab_size: int, key: jax.Array) -> dict:
    """Fresh float32 parameters; every leaf depends on (settings, vocab_size, key)."""
    keys = jax.random.split(key, settings.depth + 2)
    shape = (vocab_size, settings.width)
    x_BLD = jnp.zeros((1, 2, settings.width))
    look = look_within(settings, 0, jnp.ones((1, 2), jnp.int32))
    block = Block(settings)
    # all layers at once: traced and compiled once, the same numbers
    layers = jax.vmap(lambda key: block.init(key, x_BLD, look)["params"])(keys[:-2])
    params = {
        "embedding": _init_embedding(settings, shape, keys[-1]),
        "layers": {
            str(i): jax.tree.map(lambda leaf, i=i: leaf[i], layers)
            for i in range(settings.depth)
        },
    }
    norms = {
        "embedding_norm": settings.embedding_norm,
        "final_norm": settings.norm_place != "after",
    }
    for name in (name for name, there in norms.items() if there):
        params[name] = {"scale": jnp.ones(settings.width)}
        if settings.norm == "layer":
            params[name]["bias"] = jnp.zeros(settings.width)
    if not settings.tied:
        params["output"] = {
            "kernel": _EMBEDDING_STD * jax.random.normal(keys[-2], shape)
        }
    return params


def _init_embedding(settings, shape, key):
    rows = {"tokens": shape[0]}
    if settings.positions == "learned":
        rows["positions"] = settings.context
    if settings.token_types:
        rows["types"] = settings.token_types
    keys = [key, *jax.random.split(key, len(rows) - 1)]
    return {
        name: _EMBEDDING_STD * jax.random.normal(one, (count, shape[1]))
        for (name, count), one in zip(rows.items(), keys, strict=True)
    }


def output_matrix(params: dict) -> jax.Array:
    """The [V, D] matrix that turns hidden states into logits."""
    return (
        params["output"]["kernel"]
        if "output" in params
        else params["embedding"]["tokens"]
    )


def for_products(settings: ModelSettings, params: dict) -> dict:
    """The tree on the device, in the product dtype; norms, computed in float32, kept.

    For reading only: a program given such a tree need not convert it at every call.
    """
    dtype = product_dtype(settings.dtype)

    def cast(path, leaf):
        norm = any(key.key.endswith("norm") for key in path)
        return jnp.asarray(leaf, None if norm else dtype)

    return jax.tree_util.tree_map_with_path(cast, params)


def logits_of(params: dict, states_BLD: jax.Array) -> jax.Array:
    """Logits [B, L, V] in float32 of hidden states, as `apply` returns them."""
    output_VD = output_matrix(params).astype(states_BLD.dtype)
    states_ND = states_BLD.reshape(-1, states_BLD.shape[-1])
    logits_NV = read_once(states_ND, output_VD, jnp.float32)
    return logits_NV.reshape(*states_BLD.shape[:2], -1)


def apply(
    settings: ModelSettings,
    params: dict,
    batch: dict,
    adapter: Adapter | None = None,
    dropout_key: jax.Array | None = None,
    watch: Callable[[int, jax.Array], None] | None = None,
    below: int = 0,
    kept_share: jax.Array | None = None,
    read_BM: jax.Array | None = None,
) -> jax.Array:
    """Hidden states after the final norm.

    Args:
      settings: what init_params was given.
      params: its tree.
      batch: "tokens_BL" and "segments_BL", int32; segment 0 is padding, and without
        segments every row is one. "types_BL", if there, are token types (else 0).
        Positions count from a segment's first token; a segment must fit a context of
        learned positions.
        "stream_BLD", if there, is the stream after the first `below` layers (of
        `watch`): only what lies above is computed, and tokens are not read.
        "noise_BLD", if there, is added to the tokens' embedding.
        "positions_BL", if there, are what rotary angles are taken of, not places in the
        row: a text then computes the same to the bit wherever it stands.
      adapter: called as adapter(path, x, y) -> y on every product and block output,
        on the tokens' rows of the embedding, x being their places, and as
        adapter('layers/0/attention/prefix', keys, None) -> None, or (keys, values) [B,
        P, H, E] that every token sees beside its segment's.
      dropout_key: None switches dropout off.
      watch: called as watch(i, x_BLD) with the stream after i layers; layers are
        unrolled then.
      below: layers whose work batch["stream_BLD"] holds.
      kept_share: float32, 1 - dropout, traced; None = that of the settings. Dropout
        that the settings switch off stays off.
      read_BM: int32 places in the row whose states alone are wanted: the top layer
        (unless scanned) is then computed for them alone, from all places' keys and
        values. With dropout other units are drawn there than for the whole row.

    Returns:
      [B, L, D] in the product dtype, or [B, M, D] of read_BM.
    """
    watched = watch is not None
    segments_BL = batch.get("segments_BL")
    if segments_BL is None:
        shape = batch["tokens_BL"].shape
        places_BL = jnp.broadcast_to(jnp.arange(shape[1]), shape)
    else:
        places_BL = places_in_segment(segments_BL)
    if "stream_BLD" in batch:
        x_BLD = batch["stream_BLD"].astype(product_dtype(settings.dtype))
    else:
        x_BLD = embed(settings, params, batch, places_BL, adapter)
    if settings.dropout == 0.0:
        dropout_key = None
    layers = {i: params["layers"][str(i)] for i in range(below, settings.depth)}
    keys = [None] * settings.depth
    if dropout_key is not None:
        keys = jax.random.split(dropout_key, settings.depth)

    def one(x_BLD, layer, key, path, index, read_BM=None):
        look = look_within(settings, index, segments_BL, places_BL, read_BM)
        look = look._replace(positions_BL=batch.get("positions_BL"))
        return Block(settings).apply(
            {"params": layer}, x_BLD, look, key, path, adapter, kept_share
        )

    alike = len(set(settings.windows)) <= 1
    scan = settings.scan_layers and alike and adapter is None and not watched
    if scan:
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers.values())
        scanned = (stacked, None if dropout_key is None else keys[below:])
        body = functools.partial(_scan_body, one)
        x_BLD, _ = jax.lax.scan(_remembering(settings, body, False), x_BLD, scanned)
    else:
        # traced once for all layers that differ in nothing but their weights
        any_layer = jax.jit(functools.partial(one, path="layers", index=0))
        for i, layer in layers.items():
            if watched:
                watch(i, x_BLD)
            own_BM = read_BM if i == settings.depth - 1 else None
            if alike and adapter is None and own_BM is None:
                here = any_layer
            else:
                path = f"layers/{i}"
                here = functools.partial(one, path=path, index=i, read_BM=own_BM)
            x_BLD = _remembering(settings, here)(x_BLD, layer, keys[i])
        if watched:
            watch(settings.depth, x_BLD)
    if read_BM is not None and (scan or not layers):
        x_BLD = read(x_BLD, read_BM)
    return finish(settings, params, x_BLD)


def _remembering(settings, layer, guarded=True):
    """The layer, of which the backward pass finds what `remat` says, no more.

    none      all that its derivative reads
    products  what products with weights return; norms, rotations, attention and
              activations are computed again: cheap, and most of the memory
    layer     its input alone; a third more work for the smallest memory

    Guarded, XLA cannot undo it by sharing the two computations; inside a scan it does
    not try to.
    """
    if settings.remat == "none":
        return layer
    policies = jax.checkpoint_policies
    policy = {
        "products": policies.dots_with_no_batch_dims_saveable,
        "layer": policies.nothing_saveable,
    }[settings.remat]
    return jax.checkpoint(layer, policy=policy, prevent_cse=guarded)


def _scan_body(one, x_BLD, layer_and_key):
    layer, key = layer_and_key
    return one(x_BLD, layer, key, "layers", 0), None


def embed(
    settings: ModelSettings,
    params: dict,
    batch: dict,
    position_BL: jax.Array,
    adapter: Adapter | None = None,
) -> jax.Array:
    """The stream below the first layer; the arguments are those of `apply`."""
    dtype = product_dtype(settings.dtype)
    tables = params["embedding"]
    x_BLD = tables["tokens"].astype(dtype)[batch["tokens_BL"]]
    if "noise_BLD" in batch:
        x_BLD += batch["noise_BLD"].astype(dtype)
    if adapter:
        x_BLD = adapter("embedding", position_BL, x_BLD)
    if settings.embedding_scale != 1.0:
        x_BLD *= jnp.asarray(settings.embedding_scale, dtype)
    if settings.positions == "learned":
        x_BLD += tables["positions"].astype(dtype)[position_BL]
    if settings.token_types:
        types_BL = batch.get("types_BL", jnp.zeros_like(batch["tokens_BL"]))
        x_BLD += tables["types"].astype(dtype)[types_BL]
    if settings.embedding_norm:
        x_BLD = normalize(settings, params["embedding_norm"], x_BLD)
    return x_BLD


def finish(settings: ModelSettings, params: dict, x_BLD: jax.Array) -> jax.Array:
    """Hidden states of the stream above the last layer."""
    if settings.norm_place == "after":
        return x_BLD
    return normalize(settings, params["final_norm"], x_BLD)


def places_in_segment(segments_BL: jax.Array) -> jax.Array:
    """Each token's place in its segment.

    segments  1 1 1 2 2 0 0
    places    0 1 2 0 1 0 1
    """
    place_BL = jnp.broadcast_to(jnp.arange(segments_BL.shape[1]), segments_BL.shape)
    begins_BL = jnp.diff(segments_BL, axis=1, prepend=segments_BL[:, :1] - 1) != 0
    first_BL = jax.lax.cummax(jnp.where(begins_BL, place_BL, 0), axis=1)
    return place_BL - first_BL


def reach_of(settings: ModelSettings, layer: int) -> attention.Reach:
    """What a layer's queries may see."""
    scale = settings.attention_scale or attention.head_width(settings) ** -0.5
    window = settings.windows[layer] if settings.windows else 0
    return attention.Reach(settings.causal, window, scale)


def look_within(
    settings: ModelSettings,
    layer: int,
    segments_BL: jax.Array | None,
    places_BL: jax.Array | None = None,
    read_BM: jax.Array | None = None,
) -> Look:
    """How the positions of a row, or some of them, look at it: within their segment."""
    reach = reach_of(settings, layer)

    def mix(q_BQHE, k_BKHE, v_BKHE):
        row = q_BQHE, k_BKHE, v_BKHE, segments_BL, reach
        if read_BM is not None:
            return attention.attend_at(*row, read_BM)
        return attention.attend(*row, flash=settings.flash)

    return Look(reach, mix, places_BL=places_BL, read_BM=read_BM)
