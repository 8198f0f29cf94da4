"""Learned scales on keys, values and inner feed-forward activations: (IA)^3.

    key, value  y l             = x (W columns x l) + bias l      l [F] of the outputs
    down        (x l) W + bias  = x (W rows x l) + bias           l [D] of the inputs

Both are merged exactly. l = 1 at first, and nothing changes.
"""

import re
from typing import Any

import jax.numpy as jnp

from tljax.model.product import product
from tljax.settings import InputError
from tljax.transfer.addition import Addition, Leaves, places, row

_SCALED = r"(layers/\d+/(?:attention/(?:key|value)|mlp/down))/kernel"


def of_inputs(place: str) -> bool:
    """Whether a place's scale is of its inputs: of `down`, the inner activations."""
    return place.endswith("/down")


def _first(above: Leaves, settings, key) -> dict[str, Any]:
    """Ones (Liu et al. 2022, section 3.3)."""
    added = {}
    for path, leaf in above.items():
        if found := re.fullmatch(_SCALED, path):
            place = found.group(1)
            added[f"{place}/ia3"] = jnp.ones(leaf.shape[0 if of_inputs(place) else 1])
    if not added:
        raise InputError(
            "config.transfer.frozen_layers leaves no layer that ia3 could scale; take"
            " fewer"
        )
    return added


def _hook(own: Leaves, weights: Leaves, settings, dropout_key):
    """Liu et al. 2022, section 3.3.

    The hook sees `down` after its product: (x l) W = x W + (x (l - 1)) W. Keys are
    scaled as they come from their product, before any norm or rotation.
    """

    def adapter(path, x, y):
        scale = own.get(f"{path}/ia3")
        if scale is None:
            return y
        if not of_inputs(path):
            return y * row(scale, y)
        more = x * row(scale - 1, x)
        kernel = weights[f"{path}/kernel"]
        return y + product(more.reshape(-1, x.shape[-1]), kernel).reshape(y.shape)

    return adapter


def _merged(own: Leaves, weights: Leaves, settings) -> dict[str, Any]:
    """The kernels with their rows or columns scaled, and the columns' biases."""
    changed = {}
    for place in places(own, "ia3"):
        scale, kernel = own[f"{place}/ia3"], weights[f"{place}/kernel"]
        if of_inputs(place):
            changed[f"{place}/kernel"] = kernel * scale[:, None]
            continue
        changed[f"{place}/kernel"] = kernel * scale[None]
        if f"{place}/bias" in weights:
            changed[f"{place}/bias"] = weights[f"{place}/bias"] * scale
    return changed


IA3 = Addition(("ia3",), _first, _hook, _merged)
