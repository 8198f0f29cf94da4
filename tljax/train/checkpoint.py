"""Checkpoints: a tree of arrays and some JSON facts, whole on disk or not there at all.

    checkpoints/STEP/{arrays, extra}    while training: the newest `kept` steps
    params/                             what a run ends with: its parameters only

Orbax writes behind while training goes on; what kill -9 cuts off is never seen again.
"""

import contextlib
import copy
import hashlib
import logging
import os
import pathlib
import shutil
import types
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from tljax.settings import InputError
from tljax.train.files import disk_full

_SMALL_BYTES = 32e6  # what small leaves may take together, beside the largest

Tree = Any

# Orbax tells of every step it takes; what fails is raised, so nothing is lost.
logging.getLogger("absl").addFilter(
    lambda record: f"{os.sep}orbax{os.sep}" not in record.pathname
)


def _orbax() -> types.ModuleType:
    """Imported when something is read or written: a run's first step comes before."""
    import orbax.checkpoint

    return orbax.checkpoint


class Restored(NamedTuple):
    """What a checkpoint held."""

    tree: Tree
    extra: dict[str, Any]
    step: int


class Checkpoints:
    """The checkpoints of one run or population.

    Args:
      folder: where they are; made if missing. Half-written ones in it are removed.
      kept: how many of the newest are kept.
    """

    def __init__(self, folder: pathlib.Path | str, kept: int):
        self.folder, self._kept = pathlib.Path(folder).absolute(), kept
        self._manager = None  # as long as there is nothing to read or write
        with self._clear_errors():
            self.folder.mkdir(parents=True, exist_ok=True)
            if any(self.folder.iterdir()):
                self._open()

    def _open(self) -> Any:
        ocp = _orbax()
        if self._manager is None:
            self._manager = ocp.CheckpointManager(
                self.folder,
                options=ocp.CheckpointManagerOptions(
                    max_to_keep=self._kept, cleanup_tmp_directories=True
                ),
                item_names=("arrays", "extra"),
            )
        return self._manager

    def save(self, step: int, tree: Tree, extra: Mapping[str, Any]) -> None:
        """Waits for the save before, copies what is given and writes it behind.

        Args:
          step: names the checkpoint; the newest is not written twice.
          tree: any pytree whose leaves are arrays.
          extra: JSON-able facts, e.g. the state of the data pipeline.

        Raises:
          InputError: the disk is full, now or when the save before was written.
        """
        leaves = flatten(tree)
        facts = {"extra": copy.deepcopy(extra), "leaves": _describe(leaves)}
        ocp = _orbax()
        with self._clear_errors():
            manager = self._open()
            manager.wait_until_finished()
            if step == self.latest_step():
                return
            manager.save(
                step,
                args=ocp.args.Composite(
                    arrays=ocp.args.PyTreeSave(leaves), extra=ocp.args.JsonSave(facts)
                ),
                force=True,
            )

    def wait(self) -> None:
        """Returns when the last save is on disk; raises as `save` does."""
        if self._manager is not None:
            with self._clear_errors():
                self._manager.wait_until_finished()

    def latest_step(self) -> int | None:
        """The step of the newest whole checkpoint; None if there is none."""
        return max(self.steps(), default=None)

    def steps(self) -> list[int]:
        """The steps of all whole checkpoints, as the disk has them.

        Orbax's own list forgets the oldest before its successor is safe.
        """
        if self._manager is None:
            return []
        return sorted(_orbax().utils.checkpoint_steps(self.folder))

    def restore(self, template: Tree, step: int | None = None) -> Restored:
        """Reads a checkpoint, bit for bit.

        Args:
          template: a tree as it was saved, of arrays or `jax.ShapeDtypeStruct`; a leaf
            comes back with its sharding, or as a numpy array where it has none.
          step: which one; None = the newest.

        Raises:
          InputError: no such checkpoint, or the template's leaves are not those saved.
        """
        step = self.latest_step() if step is None else step
        if step is None or step not in self.steps():
            raise InputError(f"{self.folder} holds no checkpoint of step {step}")
        ocp = _orbax()
        facts = self._manager.restore(
            step, args=ocp.args.Composite(extra=ocp.args.JsonRestore())
        )["extra"]
        wanted = flatten(template)
        _check_leaves(facts["leaves"], _describe(wanted), self.folder / str(step))
        leaves = self._manager.restore(
            step,
            args=ocp.args.Composite(
                arrays=ocp.args.PyTreeRestore(
                    wanted, restore_args=jax.tree.map(_restore_args, wanted)
                )
            ),
        )["arrays"]
        structure = jax.tree.structure(template)
        tree = jax.tree.unflatten(structure, [leaves[path] for path in wanted])
        return Restored(tree=tree, extra=facts["extra"], step=step)

    def close(self) -> None:
        """Waits for the last save and ends the threads; raises as `save` does."""
        try:
            self.wait()
        finally:
            if self._manager is not None:
                with contextlib.suppress(Exception):
                    self._manager.close()

    @contextlib.contextmanager
    def _clear_errors(self) -> Iterator[None]:
        """A full disk, told in one line that says what survives."""
        try:
            yield
        except Exception as error:
            reason = disk_full(error)
            if reason is None:
                raise
            last = self.latest_step() if self.folder.exists() else None
            safe = "there is none" if last is None else f"that of step {last} is whole"
            raise InputError(
                f"cannot write a checkpoint to {self.folder}: {reason}; {safe}; free"
                " some space, then the same command goes on"
            ) from error


def flatten(tree: Tree) -> dict[str, Any]:
    """Returns {path: leaf}, the path's parts joined by dots, in the tree's order."""
    pairs = jax.tree_util.tree_flatten_with_path(tree)[0]
    leaves = {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in pairs
    }
    if len(leaves) != len(pairs):
        raise ValueError("two leaves have one path; no name may hold a dot")
    return leaves


def _describe(leaves: Mapping[str, Any]) -> dict[str, str]:
    """{path: 'float32[3,4]'}."""
    return {
        path: f"{np.dtype(leaf.dtype).name}[{','.join(map(str, leaf.shape))}]"
        for path, leaf in leaves.items()
    }


def _check_leaves(
    saved: Mapping[str, str], wanted: Mapping[str, str], where: pathlib.Path
) -> None:
    """Orbax would cast, cut and skip in silence; here a difference is an error."""
    for path in sorted(saved.keys() | wanted.keys()):
        there, asked = saved.get(path, "missing"), wanted.get(path, "none")
        if there != asked:
            raise InputError(f"{where} has {path} {there}, this run expects {asked}")


def _restore_args(leaf: Any) -> Any:
    ocp = _orbax()
    if getattr(leaf, "sharding", None) is None:
        return ocp.RestoreArgs(restore_type=np.ndarray)
    return ocp.ArrayRestoreArgs(sharding=leaf.sharding, global_shape=leaf.shape)


def save_params(folder: pathlib.Path | str, params: Mapping[str, Any]) -> None:
    """Writes parameters (nested dicts of arrays) to a folder, replacing what it held.

    Takes no memory to speak of for arrays on a device; Orbax copies those of numpy.

    Raises:
      InputError: the disk is full; what the folder held before is still there.
    """
    ocp = _orbax()
    folder = pathlib.Path(folder).absolute()
    fresh, old = (folder.with_name(folder.name + end) for end in (".new", ".old"))
    _remove_rests(folder)
    try:
        largest = max((leaf.nbytes for leaf in jax.tree.leaves(params)), default=0)
        # a leaf after the other, as it is: packing it would need the whole tree twice
        handler = ocp.PyTreeCheckpointHandler(
            save_concurrent_gb=(largest + _SMALL_BYTES) / 1e9, use_compression=False
        )
        with contextlib.closing(ocp.Checkpointer(handler)) as writer:
            writer.save(fresh, ocp.args.PyTreeSave(params))
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except Exception as error:
        reason = disk_full(error)
        if reason is None:
            raise
        _remove_rests(folder)
        raise InputError(
            f"cannot write parameters to {folder}: {reason}; free some space and give"
            " the same command again"
        ) from error


def _remove_rests(folder: pathlib.Path) -> None:
    """What a `save_params` that failed or was killed left beside the folder."""
    for end in (".new*", ".old"):
        for rest in folder.parent.glob(folder.name + end):
            shutil.rmtree(rest, ignore_errors=True)


def load_params(folder: pathlib.Path | str) -> dict[str, Any]:
    """Reads what `save_params` wrote, as nested dicts of numpy arrays.

    Raises:
      InputError: there are no whole parameters in the folder.
    """
    folder = pathlib.Path(folder).absolute()
    fresh = folder.with_name(folder.name + ".new")
    if not folder.exists() and fresh.exists():
        fresh.rename(folder)  # save_params was killed between its renames
    if not folder.exists():
        raise InputError(f"{folder} does not exist: its run has not ended; train it")
    with _reading(folder) as (reader, tree):
        args = _orbax().RestoreArgs(restore_type=np.ndarray)
        plain = jax.tree.map(lambda _: args, tree)
        return reader.restore(folder, restore_args=plain)


def params_shapes(folder: pathlib.Path | str) -> dict[str, Any]:
    """The shapes of what `save_params` wrote, in its tree; reads no values.

    Raises:
      InputError: there are no whole parameters in the folder.
    """
    with _reading(pathlib.Path(folder).absolute()) as (_, tree):
        return jax.tree.map(lambda leaf: tuple(leaf.shape), tree)


@contextlib.contextmanager
def _reading(folder: pathlib.Path) -> Iterator[tuple[Any, Tree]]:
    """Orbax's reader of parameters and their tree; what is not whole, in one line."""
    try:
        with contextlib.closing(_orbax().PyTreeCheckpointer()) as reader:
            yield reader, reader.metadata(folder).item_metadata.tree
    # Orbax stumbles over a damaged file wherever it first needs what is not in it
    except (AttributeError, LookupError, OSError, TypeError, ValueError) as error:
        told = f" ({str(error)[:90]} ...)" if type(error) is ValueError else ""
        raise InputError(
            f"{folder} holds no whole parameters{told}; bring it back, or train again"
        ) from error


def params_sha256(tree: Tree) -> str:
    """Hex SHA-256 over the raw bytes of the leaves, sorted by path (contract 5)."""
    digest = hashlib.sha256()
    for _, leaf in sorted(flatten(tree).items()):
        digest.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8))
    return digest.hexdigest()
