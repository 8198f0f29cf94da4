"""Learned keys and values before every attention's own: a prefix.

    keys    p q | a b c      p, q: of the prefix, [P, F]; a, b, c: of a text
    values  r s | d e f

Every position of every text sees the prefix, whatever masks and windows hide from it.
Its keys are not turned by rotary angles; a text's count from its own first token.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp

from tljax.settings import InputError
from tljax.transfer.addition import Addition, Leaves, path_key

_KEY = r"(layers/\d+/attention)/key/kernel"


def _first(above: Leaves, settings, key) -> dict[str, Any]:
    """Keys drawn from a normal distribution, values of zero.

    No prefix is neutral: its keys take some share of every softmax. With values of zero
    an attention's output is at first its own, times the share that is left, and nothing
    random is mixed in. Departure from Li & Liang 2021, section 4.3: learned directly,
    not as the output of a network (as in He et al. 2022, and PEFT).
    """
    added = {}
    for path, leaf in above.items():
        if found := re.fullmatch(_KEY, path):
            place, shape = found.group(1), (settings.prefix_length, leaf.shape[1])
            added[f"{place}/prefix_key"] = jax.random.normal(
                path_key(key, place), shape
            )
            added[f"{place}/prefix_value"] = jnp.zeros(shape)
    if not added:
        raise InputError(
            "config.transfer.frozen_layers leaves no layer to which a prefix could be"
            " added; take fewer"
        )
    return added


def _hook(own: Leaves, weights: Leaves, settings, dropout_key):
    """Li & Liang 2021, equation 3; as in He et al. 2022, equation 6: keys and values.

    head = softmax(q [P_k; K]^T x scale) [P_v; V]
    """

    def adapter(path, x, y):
        if not path.endswith("/prefix") or f"{path}_key" not in own:
            return y
        batch, _, heads, width = x.shape
        return tuple(
            jnp.broadcast_to(
                own[f"{path}_{name}"].astype(x.dtype).reshape(1, -1, heads, width),
                (batch, settings.prefix_length, heads, width),
            )
            for name in ("key", "value")
        )

    return adapter


PREFIX = Addition(("prefix_key", "prefix_value"), _first, _hook)
