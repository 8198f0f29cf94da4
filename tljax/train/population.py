"""Members of a population, lifted from one run over a leading axis S.

'turn': members run one after another through one compiled program (CPU: their products
already fill the cores); 'vmap': together (accelerators: small ones alone would not).
Either way a lone run is a population of one, through the same program.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Tree = Any


def choose_mode() -> str:
    """'turn' on CPU, 'vmap' on accelerators."""
    return "turn" if jax.default_backend() == "cpu" else "vmap"


def lift(function: Callable, mode: str, shared: int = 0) -> Callable:
    """Maps a function of one member over the leading axis of its arguments.

    Args:
      function: takes and returns trees of one member.
      mode: 'turn' or 'vmap'.
      shared: how many leading arguments all members share, without axis S.
    """
    if mode == "vmap":

        def vmapped(*args):
            axes = [None] * shared + [0] * (len(args) - shared)
            return jax.vmap(function, in_axes=axes)(*args)

        return vmapped

    def in_turn(*args):
        common, own = args[:shared], args[shared:]
        if jax.tree.leaves(own)[0].shape[0] == 1:  # a loop would cost copies
            return stack([function(*common, *member(own, 0))])
        return jax.lax.map(lambda member: function(*common, *member), own)

    return in_turn


def stack(trees: list[Tree]) -> Tree:
    """Members' trees -> one tree with axis S."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def member(tree: Tree, index: int) -> Tree:
    """One member's tree."""
    return jax.tree.map(lambda leaf: leaf[index], tree)


def make_train_rounds(train_step: Callable, take: Callable) -> Callable:
    """Returns advance(data, state, plan, hparams, until) -> (state, sums), of a member.

    Steps state.step, ..., until - 1 run in one dispatch; step t trains on
    take(data, plan, t). sums are added up over the steps taken.
    """

    def advance(data, state, plan, hparams, until):
        batch = take(data, plan, state.step)
        shapes = jax.eval_shape(train_step, state, batch, hparams)[1]
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

        def body(carry):
            state, sums = carry
            state, more = train_step(state, take(data, plan, state.step), hparams)
            return state, jax.tree.map(jnp.add, sums, more)

        return jax.lax.while_loop(
            lambda carry: carry[0].step < until, body, (state, zeros)
        )

    return advance
