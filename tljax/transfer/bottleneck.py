"""A small network at each branch's output: y + gelu(t narrow + bias) widen + bias.

    serial    t = y, what the branch computed        x --> branch --+--> net --(+)-->
    parallel  t = x, what the branch was given       x --> branch --> (+) <-- net <-- x

It stands at layers/0/attention and layers/0/mlp: no plain weights compute the same.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp

from tljax.model.product import product
from tljax.settings import InputError
from tljax.transfer.addition import Addition, Leaves, draw, row


def _first(above: Leaves, settings, key) -> dict[str, Any]:
    """widen = 0, so that nothing is added at first; narrow as LoRA's a."""
    added = {}
    for path, leaf in above.items():
        if not re.fullmatch(r"layers/\d+/(attention/output|mlp/down)/kernel", path):
            continue
        place, width = path.rsplit("/", 2)[0], leaf.shape[1]
        added[f"{place}/narrow"] = draw(key, place, width, settings.width)
        added[f"{place}/narrow_bias"] = jnp.zeros(settings.width)
        added[f"{place}/widen"] = jnp.zeros((settings.width, width))
        added[f"{place}/widen_bias"] = jnp.zeros(width)
    if not added:
        raise InputError(
            "config.transfer.frozen_layers leaves no layer to which a bottleneck could"
            " be added; take fewer"
        )
    return added


def _hook(own: Leaves, weights: Leaves, settings, dropout_key):
    """Houlsby et al. 2019, section 2.1; parallel: He et al. 2022, table 1."""

    def adapter(path, x, y):
        if f"{path}/narrow" not in own:
            return y
        names = ("narrow", "narrow_bias", "widen", "widen_bias")
        narrow_DR, bias_R, widen_RD, bias_D = (own[f"{path}/{one}"] for one in names)
        taken = x if settings.placement == "parallel" else y
        taken_ND = taken.reshape(-1, taken.shape[-1])
        inner_NR = product(taken_ND, narrow_DR)
        inner_NR = jax.nn.gelu(inner_NR + row(bias_R, inner_NR))
        added_ND = product(inner_NR, widen_RD)
        added_ND += row(bias_D, added_ND)
        return y + added_ND.reshape(y.shape)

    return adapter


BOTTLENECK = Addition(("narrow", "narrow_bias", "widen", "widen_bias"), _first, _hook)
