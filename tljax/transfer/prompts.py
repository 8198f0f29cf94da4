"""Learned vectors in the place of the first tokens of every text: a soft prompt.

    tokens     t t t a b c      t: room that whoever makes the batch leaves
    embedding  p q r a b c      p, q, r: the prompt, of [L, D]

It enters before positions, scales and norms do, as a token's row would.
"""

from typing import Any

import jax
import jax.numpy as jnp

from tljax.transfer.addition import Addition, Leaves, path_key

_PATH = "embedding/prompt"


def _first(above: Leaves, settings, key) -> dict[str, Any]:
    """Rows of the embedding, of tokens drawn at random.

    Source: Lester et al. 2021, section 3.2; departure: from all tokens, not from the
    most frequent.
    """
    tokens_VD = jnp.asarray(above["embedding/tokens"])
    own, shape = path_key(key, _PATH), (settings.prompt_length,)
    return {_PATH: tokens_VD[jax.random.randint(own, shape, 0, len(tokens_VD))]}


def _hook(own: Leaves, weights: Leaves, settings, dropout_key):
    """Lester et al. 2021, section 2: [P; X] in the place of X."""

    def adapter(path, x, y):
        if path != "embedding":
            return y
        place_BL, prompt_LD = x, own[_PATH].astype(y.dtype)
        last = len(prompt_LD) - 1
        found_BLD = prompt_LD[jnp.minimum(place_BL, last)]
        return jnp.where((place_BL <= last)[..., None], found_BLD, y)

    return adapter


PROMPT = Addition(
    ("prompt",), _first, _hook, room=lambda settings: settings.prompt_length
)
