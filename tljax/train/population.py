"""Members of a population, lifted from one run over a leading axis S.

'turn': members run one after another through one compiled program (CPU: their products
already fill the cores); 'vmap': together (accelerators: small ones alone would not).
Either way a lone run is a population of one, through the same program. Over the mesh's
axis 'run' each device has members and a loop of its own, without a word to the others.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tljax.settings import ModelSettings

Tree = Any


def choose_mode(members: int) -> str:
    """'turn' on CPU, 'vmap' on accelerators where there are several members."""
    return "turn" if members == 1 or jax.default_backend() == "cpu" else "vmap"


def member_model(settings: ModelSettings, mode: str) -> ModelSettings:
    """The model as members of a mode compute it: under vmap without flash attention.

    JAX's rule for cuDNN attention under vmap wants a mask a head, not one for all; and
    the rows of members that are small enough to share a device are short.
    """
    return dataclasses.replace(settings, flash=False) if mode == "vmap" else settings


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


def spread(lifted: Callable, mesh: Mesh, shared: int = 0) -> Callable:
    """The lifted function on every device of the axis 'run', for the members there.

    Args:
      lifted: of `lift`.
      mesh: whose axes, but for 'run', have size 1.
      shared: as for `lift`; these arguments lie on every device.
    """
    if mesh.shape["run"] == 1:
        return lifted
    own, whole = PartitionSpec("run"), PartitionSpec()

    def spread_out(*args):
        specs = (whole,) * shared + (own,) * (len(args) - shared)
        return jax.shard_map(
            lifted, mesh=mesh, in_specs=specs, out_specs=own, check_vma=False
        )(*args)

    return spread_out


def stack(trees: list[Tree]) -> Tree:
    """Members' trees -> one tree with axis S."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def assemble(trees: Iterable[Tree], mesh: Mesh) -> Tree:
    """Members' trees -> one tree with axis S, spread over the axis 'run'.

    S is padded to a multiple of the axis with the last member once more, which is to
    take no step. Passes through the host, for no device need hold all members.
    """
    if mesh.shape["run"] == 1:
        return stack(list(trees))
    trees = padded([jax.device_get(tree) for tree in trees], mesh)
    place = NamedSharding(mesh, PartitionSpec("run"))
    return jax.tree.map(lambda *leaves: jax.device_put(np.stack(leaves), place), *trees)


def shapes(tree: Tree, members: int, mesh: Mesh) -> Tree:
    """What `assemble` makes of so many trees (a multiple of the axis 'run') like this.

    Args:
      tree: of one member; shapes and dtypes are read.
      members: S.
      mesh: as for `assemble`.
    """
    place = NamedSharding(mesh, PartitionSpec("run")) if mesh.shape["run"] > 1 else None
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            (members, *leaf.shape), leaf.dtype, sharding=place
        ),
        tree,
    )


def padded(members: list, mesh: Mesh, fill: Any = None) -> list:
    """As many as the axis 'run' divides: the last once more, or `fill`."""
    missing = -len(members) % mesh.shape["run"]
    return members + [members[-1] if fill is None else fill] * missing


def copied(tree: Tree, mesh: Mesh) -> Tree:
    """What members share, on every device of the mesh."""
    if mesh.shape["run"] == 1:
        return tree
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def member(tree: Tree, index: int, mesh: Mesh | None = None) -> Tree:
    """One member's tree; of a mesh of several devices on the first of them."""
    found = jax.tree.map(lambda leaf: leaf[index], tree)
    if mesh is None or mesh.shape["run"] == 1:
        return found
    return jax.device_put(found, mesh.devices.flat[0])


def make_train_rounds(train_step: Callable, take: Callable) -> Callable:
    """Returns advance(data, state, plan, hparams, until) -> (state, sums), of a member.

    Steps state.step, ..., until - 1 run in one dispatch; step t trains on
    take(data, plan, t). sums are added up over the steps taken.
    """

    train_step = jax.jit(train_step)  # traced once for both that follow

    def advance(data, state, plan, hparams, until):
        batch = take(data, plan, state.step)
        sums = jax.eval_shape(train_step, state, batch, hparams)[1]
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), sums)

        def body(carry):
            state, sums = carry
            state, more = train_step(state, take(data, plan, state.step), hparams)
            return state, jax.tree.map(jnp.add, sums, more)

        return jax.lax.while_loop(
            lambda carry: carry[0].step < until, body, (state, zeros)
        )

    return advance
