"""A checkpoint's tensors -> our tree of parameters, and back, with a ledger.

Every leaf must find its tensor, every tensor its leaf: what is left over or missing is
an error. Tensors are read one at a time, the largest first, and placed at once.
"""

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
      InputError: a tensor is missing, left over, of another shape or not to be read.
    """
    leaves = flat(_shapes(settings, checkpoint))
    tensors = _without_prefix(checkpoint, family)
    places = {path: place_of(path, family) for path in leaves}
    _check(checkpoint, family, tensors, leaves, places)
    if settings.tied and _HEAD in tensors:
        _check_tied(checkpoint.where, tensors, places["embedding/tokens"].name)
    values, ledger = {}, []
    for path in sorted(leaves, key=lambda path: -leaves[path].size):
        where = places[path]
        values[path] = place(path, _ours(tensors[where.name].read(), where))
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
    vocab_size = checkpoint.config["vocab_size"]

    def init(key):
        return transformer.init_params(settings, vocab_size, key)

    return jax.eval_shape(init, jax.random.key(0))


def _without_prefix(checkpoint: Checkpoint, family: Family) -> dict[str, Tensor]:
    return {
        name.removeprefix(family.prefix): tensor
        for name, tensor in checkpoint.tensors.items()
    }


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
    where = checkpoint.where
    for path, place in places.items():
        if place.name not in tensors:
            raise InputError(
                f"{where} has no tensor {place.name} (for {path}); is it whole, and"
                " does its config.json belong to it?"
            )
        wanted = _their_shape(tuple(leaves[path].shape), place)
        found = tuple(tensors[place.name].shape)
        if found != wanted:
            raise InputError(
                f"{where}: tensor {place.name} has shape {found}, but its config.json"
                f" makes it {wanted}"
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
        more = f" and {len(over) - 3} more" * (len(over) > 3)
        raise InputError(
            f"{where}: the family {family.name} has no place for"
            f" {', '.join(over[:3])}{more}"
        )


def _check_tied(where: str, tensors: Mapping[str, Tensor], embedding: str) -> None:
    """A copy of the output matrix is a copy; one of the two in memory at a time."""
    if _digest(tensors[_HEAD]) != _digest(tensors[embedding]):
        raise InputError(
            f"{where}: config.json says tie_word_embeddings=true, but {_HEAD} is not"
            f" {embedding}; set it to false, or take {_HEAD} out"
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
