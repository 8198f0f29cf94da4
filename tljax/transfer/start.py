"""Staying near the weights that fine-tuning began with.

    pull     direction += strength x (w - start)      at every step
    mixout   w = start + dropout(w - start)           in every pass of training
    between  w = (1 - share) x start + share x w      once, at the end

start holds what moves as the pre-trained model had it, without the head; all members
of a population share it.
"""

import jax
import jax.numpy as jnp
import optax

from tljax.transfer.addition import path_key
from tljax.transfer.transplant import flat, nested


def pull(directions: dict, params: dict, start: dict, strength: jax.Array) -> dict:
    """Adds the gradient of strength / 2 x |w - start|^2 to directions of descent.

    Args:
      directions: of the optimizer, before any rate.
      params: what moves.
      start: where it began; what is not in it (the head) is pulled to zero.
      strength: float32 scalar, the paper's alpha, here also its beta.

    Returns:
      The directions, of the same shapes.

    Source: L2-SP, Li et al. 2018, equations 2 and 3. There it stands in the loss, under
    plain SGD. Under Adam that would divide the pull by the size of each parameter's
    gradient, so it is decoupled, as weight decay is (Loshchilov & Hutter 2019).
    """
    now, began = flat(params), flat(start)
    return nested(
        {
            path: ascent + strength * (now[path] - began.get(path, 0.0))
            for path, ascent in flat(directions).items()
        }
    )


def mixout(params: dict, start: dict, share: jax.Array, key: jax.Array) -> dict:
    """Puts a share of the layers' matrix entries back to where they began.

    With u = start, p = share and m drawn 0 with probability p, else 1, per entry:
        ((1 - m) u + m w - p u) / (1 - p)  =  u + m (w - u) / (1 - p),
    whose mean is w.

    Args:
      params: what moves.
      start: where it began.
      share: float32 scalar in [0, 1).
      key: of the pass; each matrix draws from a key of its own path.

    Returns:
      What the pass computes with. Embeddings, norms, biases and the head stay.

    Source: Lee et al. 2020, equation 5; on linear layers only, as in the authors' code.
    """
    began, mixed = flat(start), flat(params)
    for path, leaf in mixed.items():
        if path in began and path.startswith("layers/") and leaf.ndim == 2:
            moved = jax.random.bernoulli(path_key(key, path), 1 - share, leaf.shape)
            gone = (leaf - began[path]) / (1 - share)
            mixed[path] = began[path] + jnp.where(moved, gone, 0)
    return nested(mixed)


def between(params: dict, start: dict, share: float) -> dict:
    """The weights a share of the way from start to params; the head as it is.

    Source: WiSE-FT, Wortsman et al. 2022, equation 1. There a zero-shot head is mixed
    too; here the first head was random and is left out.
    """
    began = flat(start)
    return nested(
        {
            path: optax.incremental_update(leaf, began[path], share)
            if path in began
            else leaf
            for path, leaf in flat(params).items()
        }
    )
