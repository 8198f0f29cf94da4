"""What a method adds to a model: leaves of its own, a hook that reads them, a merge.

    layers/0/attention/query/{kernel, bias}  +  layers/0/attention/query/{a, b}

Its leaves stand in the model's tree under names that no weight of the model has.
The head is no place for them.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tljax.model.block import Adapter
from tljax.settings import TransferSettings

Leaves = Mapping[str, Any]  # {"layers/0/...": array}


class Addition(NamedTuple):
    """What an adapter is made of.

    Attributes:
      names: last parts of its leaves' paths.
      first: first(above, settings, key) -> its leaves, of the model's leaves that lie
        above the frozen layers; raises InputError where there is no place for them.
      hook: hook(own, weights, settings, dropout_key) -> the model's adapter.
      merged: merged(own, weights, settings) -> those weights that change so that the
        model computes the same without the hook; None = there are none.
      room: room(settings) -> tokens before every text that it puts its own vectors in
        the place of; None = it needs none.
    """

    names: tuple[str, ...]
    first: Callable[[Leaves, TransferSettings, jax.Array], dict[str, Any]]
    hook: Callable[[Leaves, Leaves, TransferSettings, jax.Array | None], Adapter]
    merged: Callable[[Leaves, Leaves, TransferSettings], dict[str, Any]] | None = None
    room: Callable[[TransferSettings], int] | None = None


def places(own: Leaves, name: str) -> list[str]:
    """Where leaves of a name stand: 'layers/0/attention/query' of '.../query/a'."""
    return [path.rpartition("/")[0] for path in own if path.endswith(f"/{name}")]


def draw(key: jax.Array, path: str, depth: int, width: int) -> jax.Array:
    """A first matrix [depth, width], uniform within 1 / sqrt(depth), the path's own."""
    bound = depth**-0.5
    own = path_key(key, path)
    return jax.random.uniform(own, (depth, width), minval=-bound, maxval=bound)


def path_key(key: jax.Array, path: str) -> jax.Array:
    """A key of the path's own, the same in every program: by 31 bits of its bytes."""
    number = 0
    for byte in path.encode():
        number = (number * 31 + byte) % 2**31
    return jax.random.fold_in(key, number)


def row(x_X: jax.Array, like: jax.Array) -> jax.Array:
    """A vector [X] as [1, .., X], in the other's dtype, to be multiplied with it."""
    return jnp.reshape(x_X, (1,) * (like.ndim - 1) + (-1,)).astype(like.dtype)
