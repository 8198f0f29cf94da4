"""What moves and what stays: params -> (moving, frozen), and together again.

    full        moving = all weights            frozen = {}
    lora        moving = {a, b} a matrix, head  frozen = the weights
    head        moving = head                   frozen = the weights

Both have the places of the whole tree; LoRA's a and b stand where its kernel does:
    layers/0/attention/query/{kernel, bias}  +  layers/0/attention/query/{a, b}
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tljax.model.block import Adapter
from tljax.model.product import product
from tljax.settings import InputError, ModelSettings, TransferSettings, suggestion
from tljax.transfer.transplant import flat, nested


class Composed(NamedTuple):
    """What the model is applied with."""

    params: dict
    adapter: Adapter | None


def split(
    params: Mapping[str, Any], settings: TransferSettings, key: jax.Array
) -> tuple[dict, dict]:
    """Divides a tree, and adds what the method adds to it.

    Args:
      params: the whole tree, head included.
      settings: of the method.
      key: of LoRA's first matrices.

    Returns:
      (moving, frozen); composed, they compute what params computes.

    Raises:
      InputError: more frozen layers than there are, a pattern that matches nothing,
        or a rank above the sides of the matrices.

    Source: LoRA, Hu et al. 2021, section 4.1 (b = 0; a as in the authors' code,
    uniform); rsLoRA, Kalajdzievski 2023.
    """
    depth = len(params["layers"])
    if settings.frozen_layers > depth:
        raise InputError(
            f"config.transfer.frozen_layers={settings.frozen_layers}, but the model has"
            f" {depth} layers"
        )
    leaves = flat(params)
    moves = {
        path: settings.method == "full" and not _lies_below(path, settings)
        for path in leaves
    }
    moves |= {path: True for path in leaves if path.startswith("head/")}
    moving = {path: leaf for path, leaf in leaves.items() if moves[path]}
    frozen = {path: leaf for path, leaf in leaves.items() if not moves[path]}
    if settings.method == "lora":
        moving |= _low_rank(frozen, settings, key)
    return nested(moving), nested(frozen)


def compose(
    moving: Mapping[str, Any],
    frozen: Mapping[str, Any],
    settings: TransferSettings,
    dropout_key: jax.Array | None = None,
) -> Composed:
    """The tree and the adapter that the model is applied with."""
    leaves = flat(moving)
    factors = {path: leaves.pop(path) for path in list(leaves) if _is_factor(path)}
    params = nested({**flat(frozen), **leaves})
    if not factors:
        return Composed(params, None)
    scale = scale_of(settings)

    def adapter(path: str, x: jax.Array, y: jax.Array) -> jax.Array:
        if f"{path}/a" not in factors:
            return y
        a_DR, b_RF = (factors[f"{path}/{name}"].astype(x.dtype) for name in "ab")
        if dropout_key is not None and settings.dropout:
            key = jax.random.fold_in(dropout_key, path_number(path))
            kept = jax.random.bernoulli(key, 1 - settings.dropout, x.shape)
            x = jnp.where(kept, x / (1 - settings.dropout), 0)
        x_ND = x.reshape(-1, x.shape[-1])
        added = product(product(x_ND, a_DR), b_RF) * jnp.asarray(scale, x.dtype)
        return y + added.reshape(y.shape)

    return Composed(params, adapter)


def merge(
    moving: Mapping[str, Any], frozen: Mapping[str, Any], settings: TransferSettings
) -> dict:
    """One plain tree that computes the same without an adapter, e.g. for export."""
    leaves = flat(moving)
    whole = {**flat(frozen), **leaves}
    for path in leaves:
        if _is_factor(path) and path.endswith("/a"):
            place = path.removesuffix("/a")
            a_DR, b_RF = whole.pop(path), whole.pop(f"{place}/b")
            kernel = whole[f"{place}/kernel"]
            whole[f"{place}/kernel"] = kernel + (a_DR @ b_RF) * scale_of(settings)
    return nested(whole)


def untouched_layers(model: ModelSettings, settings: TransferSettings) -> int:
    """Layers, from the bottom, through which no gradient is wanted."""
    return model.depth if settings.method == "head" else settings.frozen_layers


def scale_of(settings: TransferSettings) -> float:
    """Of LoRA's addition: alpha / R, or alpha / sqrt(R)."""
    power = 0.5 if settings.scaling == "rank_stabilized" else 1.0
    return settings.alpha / settings.rank**power


def _lies_below(path: str, settings: TransferSettings) -> bool:
    """Whether a leaf belongs to the frozen bottom."""
    if not settings.frozen_layers:
        return False
    if path.startswith("embedding"):
        return True
    layer = re.match(r"layers/(\d+)/", path)
    return bool(layer) and int(layer.group(1)) < settings.frozen_layers


def _low_rank(frozen, settings: TransferSettings, key: jax.Array) -> dict[str, Any]:
    matrices = {
        path.removesuffix("/kernel"): leaf.shape
        for path, leaf in frozen.items()
        if re.match(r"layers/.*/kernel$", path) and not _lies_below(path, settings)
    }
    chosen = {
        path: shape
        for path, shape in matrices.items()
        if re.fullmatch(settings.targets, path)
    }
    if not chosen:
        some = ", ".join(list(matrices)[-3:])
        raise InputError(
            f"config.transfer.targets={settings.targets!r} matches no matrix of the"
            f" layers that move{suggestion(settings.targets, matrices)}; there are,"
            f" e.g. {some}"
        )
    longest = max(side for shape in chosen.values() for side in shape)
    if settings.rank > longest:
        raise InputError(
            f"config.transfer.rank={settings.rank} is more than the longest side of the"
            f" chosen matrices; take at most {longest}, e.g. 8"
        )
    added = {}
    for path, (depth, width) in chosen.items():
        own = jax.random.fold_in(key, path_number(path))
        bound = depth**-0.5
        shape = (depth, settings.rank)
        added[f"{path}/a"] = jax.random.uniform(own, shape, minval=-bound, maxval=bound)
        added[f"{path}/b"] = jnp.zeros((settings.rank, width))
    return added


def _is_factor(path: str) -> bool:
    return path.startswith("layers/") and path.endswith(("/a", "/b"))


def path_number(path: str) -> int:
    """A number of the path's own, the same in every program: 31 bits of its bytes."""
    number = 0
    for byte in path.encode():
        number = (number * 31 + byte) % 2**31
    return number
