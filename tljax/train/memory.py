"""Memory: what one more member of a population needs, against what is free.

    state (parameters, moments, average) + kept best + gradients and directions
    + under vmap what the backward pass reads of the forward pass

Counted from shapes, without compiling; 13 to 26 % above what XLA plans for a member of
a small decoder. What members share is not counted.
"""

import math
from collections.abc import Callable

import jax
import psutil

from tljax.settings import InputError

USED = 0.9  # of what is free; the rest is for what is not counted


def tree_bytes(tree) -> int:
    """Of the arrays of a tree, or of their shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def free_bytes(devices: int = 1) -> int:
    """Free on each of so many devices; those that do not say share the machine's."""
    told = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" in told:
        return told["bytes_limit"] - told["bytes_in_use"]
    return psutil.virtual_memory().available // devices


def member_bytes(state, chosen: dict, *, keeps_best: bool) -> int:
    """Of a member while it trains, without activations.

    Args:
      state: its TrainState, or the shapes of it.
      chosen: the parameters that are validated.
      keeps_best: whether those of the best validation are kept beside.
    """
    best = tree_bytes(chosen) if keeps_best else 0
    return tree_bytes(state) + best + 2 * tree_bytes(state.params)


def activation_bytes(loss: Callable, params: dict, batch: dict) -> int:
    """Of what the backward pass of a loss reads of the forward pass.

    Arrays shaped as a weight count as the weight, which members share or which is in
    their state: they are left out.

    Args:
      loss: loss(params, batch, key) -> (nats, sums).
      params: shapes of what moves.
      batch: shapes; batch["frozen"] is what does not move.
    """

    def pull(params, batch):
        key = jax.random.key(0)
        return jax.vjp(lambda params: loss(params, batch, key)[0], params)[1]

    weights = jax.tree.leaves((params, batch.get("frozen", {})))
    shapes = {shape for leaf in weights for shape in (leaf.shape, leaf.shape[::-1])}
    kept = jax.tree.leaves(jax.eval_shape(pull, params, batch))
    return tree_bytes([leaf for leaf in kept if leaf.shape not in shapes])


def members_together(
    members: int, *, needed: int, free: int, devices: int = 1, block: int = 1
) -> tuple[int, str]:
    """How many members train at once, and a line if those are not all of them.

    Args:
      members: of the population.
      needed: bytes of one.
      free: bytes on each device.
      devices: over which members are spread.
      block: so many in a row stay together where they fit, e.g. a trial's seeds.

    Raises:
      InputError: not even one fits.
    """
    fit = math.floor(USED * free / max(needed, 1)) * devices
    if not fit:
        raise InputError(
            f"a run needs {_gigabytes(needed)} beside the model, but"
            f" {_gigabytes(free)} are free; let less move, e.g. with"
            " config.transfer.method='lora', or take a smaller config.optim.batch"
        )
    if fit >= members:
        return members, ""
    fit = fit // block * block or fit
    return fit, (
        f"{members} members need {_gigabytes(members * needed)},"
        f" {_gigabytes(free * devices)} are free: {fit} are trained at a time"
    )


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:,.2f} GB"
