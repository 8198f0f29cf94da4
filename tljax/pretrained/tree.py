"""A checkpoint's tensors -> our tree of parameters, and back, with a ledger.

Every leaf must find its tensor, every tensor its leaf: what is left over or missing is
an error. Tensors are read one at a time, the largest first, and placed at once.
"""

import dataclasses
import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from tljax.model import transformer
from tljax.pretrained.checkpoint import Checkpoint, Tensor
from tljax.pretrained.families import Family, Place
from tljax.settings import InputError, ModelSettings
from tljax.transfer.transplant import flat, nested

_HEAD = "lm_head.weight"
_ROWS = 4096  # of a matrix that are turned into float32 at a time


class Line(NamedTuple):
    """One line of the ledger."""

    tensor: str
    leaf: str  # '' = not used
    shape: tuple[int, ...]  # of the leaf, or of a tensor that is not used
    stored: str
    how: str  # 'as it is', 'transposed', 'part 2 of 3', '+ 1', 'not used'


def read_params(
    checkpoint: Checkpoint,
    family: Family,
    settings: ModelSettings,
    place: Callable[[str, np.ndarray], Any],
) -> tuple[dict, list[Line]]:
    """Reads a checkpoint into our tree.

    Args:
      checkpoint: opened.
      family: of its config.
      settings: `read_settings` of its config.
      place: place(path, float32 array) -> the leaf, e.g. a sharded jax.Array.

    Returns:
      (tree of parameters, ledger by leaf).

    Raises:
      InputError: a tensor is missing, left over, there twice, of another shape, not
        finite or not to be read; the line names it and its file.
    """
    leaves = flat(_shapes(settings, checkpoint))
    tensors = _without_prefix(checkpoint, family)
    places = {path: place_of(path, family) for path in leaves}
    _check(checkpoint, family, tensors, leaves, places)
    if settings.tied and _HEAD in tensors:
        _check_tied(tensors[_HEAD], tensors[places["embedding/tokens"].name])
    values, ledger = {}, []
    for path in sorted(leaves, key=lambda path: -leaves[path].size):
        where = places[path]
        value = _ours(tensors[where.name].read(), where)
        if not (np.isfinite(value.min()) and np.isfinite(value.max())):
            raise InputError(
                f"{tensors[where.name].told} holds NaN or infinite values; fetch or"
                " convert the model again"
            )
        values[path] = place(path, value)
        ledger.append(
            Line(
                where.name,
                path,
                tuple(leaves[path].shape),
                tensors[where.name].stored,
                _how(where),
            )
        )
    used = {where.name for where in places.values()}
    for name in sorted(set(tensors) - used):
        one = tensors[name]
        ledger.append(Line(name, "", one.shape, one.stored, "not used"))
    return nested(values), sorted(ledger, key=lambda line: (line.leaf, line.tensor))


def write_tensors(
    params: Mapping[str, Any], family: Family
) -> Mapping[str, np.ndarray]:
    """Our tree under the family's names, as Transformers writes it, float32."""
    tensors: dict[str, Any] = {}
    for path, leaf in flat(params).items():
        where = place_of(path, family)
        value = _theirs(np.asarray(leaf, np.float32), where)
        head = where.name.startswith("lm_head")
        name = where.name if head else family.prefix + where.name
        if where.part:
            tensors.setdefault(name, {})[where.part[0]] = value
        else:
            tensors[name] = value
    return {
        name: np.concatenate([value[k] for k in sorted(value)], axis=-1)
        if isinstance(value, dict)
        else value
        for name, value in tensors.items()
    }


def _shapes(settings: ModelSettings, checkpoint: Checkpoint) -> dict:
    """Of every leaf; layers are alike, so that one stands for them all."""
    vocab_size = checkpoint.config["vocab_size"]
    one = dataclasses.replace(settings, depth=1, windows=())

    def init(key):
        return transformer.init_params(one, vocab_size, key)

    shapes = jax.eval_shape(init, jax.random.key(0))
    layers = {str(i): shapes["layers"]["0"] for i in range(settings.depth)}
    return {**shapes, "layers": layers}


def _without_prefix(checkpoint: Checkpoint, family: Family) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for full, tensor in checkpoint.tensors.items():
        name = full.removeprefix(family.prefix)
        if name in tensors:
            raise InputError(
                f"{tensor.told} and {tensors[name].told} are one tensor under two"
                " names; take one of them out"
            )
        tensors[name] = tensor
    return tensors


def place_of(path: str, family: Family) -> Place:
    """A leaf's place, with its layer's number.

    Raises:
      InputError: the family has none for it.
    """
    number = re.search(r"(?<=^layers/)\d+", path)
    general = re.sub(r"^layers/\d+", "layers/{i}", path)
    if general not in family.names:
        raise InputError(f"the family {family.name} has no tensor for {path}")
    found = family.names[general]
    name = found.name.format(i=number.group()) if number else found.name
    return found._replace(name=name)


def _check(checkpoint, family, tensors, leaves, places) -> None:
    """All there, nothing over, shapes right: before anything is read."""
    prefixed = any(name.startswith(family.prefix) for name in checkpoint.tensors)
    for path, place in places.items():
        if place.name not in tensors:
            name = family.prefix * (prefixed and place.name != _HEAD) + place.name
            raise InputError(
                f"{checkpoint.where} has no tensor {name!r} (for {path}); fetch the"
                " model again, all files of one version"
            )
        wanted = _their_shape(tuple(leaves[path].shape), place)
        found = tuple(tensors[place.name].shape)
        if found != wanted:
            raise InputError(
                f"{tensors[place.name].told} has shape {found}, but by config.json"
                f" it should have {wanted}; fetch the model again, all of one version"
            )
    # of a tied model some writers keep a copy of the output matrix
    allowed = (*family.ignored, re.escape(_HEAD))
    used = {place.name for place in places.values()}
    over = [
        name
        for name in tensors
        if name not in used
        and not any(re.fullmatch(pattern, name) for pattern in allowed)
    ]
    if over:
        more = f" and {len(over) - 1} more have" if over[1:] else " has"
        raise InputError(
            f"{tensors[over[0]].told}{more} no place in a {family.name} as config.json"
            " tells it; correct that, or take out what is not the model's"
        )


def _check_tied(head: Tensor, embedding: Tensor) -> None:
    """A copy of the output matrix is a copy; one of the two in memory at a time."""
    if _digest(head) != _digest(embedding):
        raise InputError(
            f"{head.told} is another than the embedding, but config.json says"
            " tie_word_embeddings=true; set it to false, or take the tensor out"
        )


def _digest(tensor: Tensor) -> str:
    """SHA-256 of the shape and of the values as float32."""
    values = tensor.read()
    digest = hashlib.sha256(str(values.shape).encode())
    for start in range(0, len(values), _ROWS):
        rows = np.ascontiguousarray(values[start : start + _ROWS], np.float32)
        digest.update(rows)
    return digest.hexdigest()


def _their_shape(shape: tuple[int, ...], place: Place) -> tuple[int, ...]:
    if place.part:
        shape = (*shape[:-1], shape[-1] * place.part[1])
    return shape[::-1] if place.transposed else shape


def _ours(value: np.ndarray, place: Place) -> np.ndarray:
    if place.part:
        k, n = place.part
        value = np.split(value, n, axis=-1)[k]
    value = value.T if place.transposed else value
    value = np.ascontiguousarray(value, dtype=np.float32)
    return value + np.float32(place.plus) if place.plus else value


def _theirs(value: np.ndarray, place: Place) -> np.ndarray:
    if place.plus:
        value = value - np.float32(place.plus)
    return np.ascontiguousarray(value.T) if place.transposed else value


def _how(place: Place) -> str:
    if place.part:
        return f"part {place.part[0] + 1} of {place.part[1]}"
    if place.plus:
        return f"+ {place.plus:g}"
    return "transposed" if place.transposed else "as it is"
