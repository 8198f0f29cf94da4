"""Safetensors files: told without reading, read tensor by tensor, written by hand.

8 bytes N | N bytes of JSON {name: {dtype, shape, data_offsets}} | the tensors
A model in shards has an index that says what is where:
  {"weight_map": {"a.weight": "model-1.safetensors", "b.weight": "model-2.safetensors"}}
"""

import functools
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from tljax.pretrained.checkpoint import Tensor, tell
from tljax.pretrained.json_files import read_object
from tljax.settings import InputError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
# What is read and written; other types can be told, not read.
STORED = {
    np.dtype(np.float32): "F32",
    np.dtype(np.float16): "F16",
    np.dtype(ml_dtypes.bfloat16): "BF16",
}
ITEM_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}
LONGEST_NAME = 255  # bytes; file systems take no more
LONGEST_HEADER = 100_000_000  # bytes; the library takes no more


def open_tensors(folder: pathlib.Path) -> dict[str, Tensor]:
    """Every tensor of every shard, each in just one; all that the index names.

    Raises:
      InputError: no safetensors, or one that is not whole; the line names the file
        and the tensor.
    """
    index = folder / INDEX
    if index.is_file() and not (folder / WEIGHTS).is_file():
        shard_of = _read_index(index)
        shards = sorted(set(shard_of.values()))
    else:
        shard_of, shards = {}, [_only_file(folder)]
    tensors: dict[str, Tensor] = {}
    found: dict[str, str] = {}
    for shard in shards:
        for name, tensor in _open_file(folder / shard).items():
            if name in tensors:
                raise InputError(
                    f"{tell(folder, name)} is in {found[name]} and in {shard};"
                    " fetch the shards of one model again"
                )
            tensors[name], found[name] = tensor, shard
    for name, shard in shard_of.items():
        if found.get(name) != shard:
            raise InputError(
                f"{tell(index, name)} should be in {shard} and is not; fetch the"
                " index and its shards again"
            )
    return tensors


def write_tensors(path: pathlib.Path, tensors: Mapping[str, np.ndarray]) -> None:
    """The format by hand: one tensor in memory, not a copy of them all.

    Args:
      path: the file.
      tensors: of STORED's types; each asked for twice, written before the next.

    Raises:
      ValueError: a tensor of another type.
      OSError: the file cannot be written.
    """
    told = {}
    for name, array in tensors.items():
        if array.dtype not in STORED:
            allowed = ", ".join(map(str, STORED))
            raise ValueError(f"tensor {name!r} is {array.dtype}; allowed: {allowed}")
        told[name] = (array.dtype, array.shape, array.nbytes)
    # Wide types first, as the library has it: so each starts at a multiple of its size.
    order = sorted(told, key=lambda name: (-told[name][0].itemsize, name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name in order:
        dtype, shape, size = told[name]
        header[name] = {
            "dtype": STORED[dtype],
            "shape": shape,
            "data_offsets": (start, start + size),
        }
        start += size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            array = np.require(tensors[name], requirements="C")
            file.write(array.reshape(-1).view(np.uint8))  # bfloat16 has no buffer
        file.flush()
        os.fsync(file.fileno())


def is_plain(name: Any) -> bool:
    """A name that stays in its folder: 'a.json', not 'b/a.json', '../a' or '/a'."""
    return (
        isinstance(name, str)
        and name not in ("", ".", "..")
        and name.isprintable()
        and not set(name) & set("/\\")
        and len(name.encode()) <= LONGEST_NAME
    )


def _read_index(path: pathlib.Path) -> dict[str, str]:
    """The shard of each tensor, all of them files of the index's folder."""
    shard_of = read_object(path).get("weight_map")
    if not isinstance(shard_of, dict) or not shard_of:
        raise InputError(f"{path} has no 'weight_map' of tensors to files")
    for tensor, shard in shard_of.items():
        if not is_plain(shard) or not shard.endswith(".safetensors"):
            raise InputError(
                f"{tell(path, tensor)} is said to be in {shard!r:.80}; allowed is the"
                " plain name of a .safetensors file beside the index"
            )
        if not (path.parent / shard).is_file():
            raise InputError(
                f"{tell(path, tensor)} is said to be in {shard}, which is missing;"
                " fetch that file too"
            )
    return shard_of


def _only_file(folder: pathlib.Path) -> str:
    names = sorted(one.name for one in folder.iterdir() if one.is_file())
    files = [name for name in names if name.endswith(".safetensors")]
    if WEIGHTS in files:
        return WEIGHTS
    if len(files) == 1:
        return files[0]
    if files:
        raise InputError(
            f"{folder} holds {len(files)} .safetensors files, {files[0]} ..., and no"
            f" {INDEX}; fetch the index too"
        )
    pickles = [name for name in names if name.endswith(PICKLES)]
    if pickles:
        raise InputError(
            f"{folder} has its weights only in {pickles[0]}, a pickle: pickles are"
            " programs and never loaded; convert it, e.g. by save_pretrained() of"
            f" Transformers, to {WEIGHTS}"
        )
    raise InputError(f"{folder} holds no {WEIGHTS}; give a folder that does")


def _open_file(path: pathlib.Path) -> dict[str, Tensor]:
    """The tensors that the header tells; the library checks it against the file."""
    told = {}
    try:
        with safe_open(path, framework="numpy", backend="pread") as file:
            for name in file.keys():
                tensor = file.get_slice(name)
                told[name] = (tuple(tensor.get_shape()), tensor.get_dtype())
    except (SafetensorError, OSError) as error:
        fault = _fault(path) or str(error)
        raise InputError(
            f"{path} is not a whole safetensors file: {fault}; fetch or save it again"
        ) from error
    if not told:
        raise InputError(f"{path} holds no tensor; fetch or save it again")
    return {
        name: Tensor(
            shape,
            stored,
            functools.partial(_read_tensor, path, name, shape, stored),
            tell(path, name),
        )
        for name, (shape, stored) in told.items()
    }


def _read_tensor(
    path: pathlib.Path, name: str, shape: tuple[int, ...], stored: str
) -> np.ndarray:
    if stored not in STORED.values():
        raise InputError(
            f"{tell(path, name)} is stored as {stored}; allowed:"
            f" {', '.join(STORED.values())}; save the model in one of these"
        )
    try:
        # pread, not mmap: no other page counts as memory, no signal if the file shrinks
        with safe_open(path, framework="numpy", backend="pread") as file:
            array = file.get_tensor(name)
    except (SafetensorError, OSError, ValueError, OverflowError) as error:
        raise InputError(
            f"{tell(path, name)} cannot be read: {error}; fetch or save it again"
        ) from error
    if STORED.get(array.dtype) != stored or array.shape != shape:
        raise InputError(f"{tell(path, name)} has changed since it was opened")
    return array


def _fault(path: pathlib.Path) -> str | None:
    """Why the library refuses a file, with the tensor's name; None if unknown."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8:
                return f"it has only {size} bytes"
            if length > min(size - 8, LONGEST_HEADER):
                return f"it has {size} bytes, and its header alone should have {length}"
            header = json.loads(file.read(length))
    except OSError as error:
        return error.strerror
    except (ValueError, RecursionError):
        return "its header is not JSON"
    if not isinstance(header, dict):
        return "its header is not a JSON object"
    header.pop("__metadata__", None)
    for name, one in header.items():
        if not _is_told(one):
            return f"tensor {name!r:.80} is told as {one!r:.80}"
    at, end = 0, size - 8 - length
    for name, one in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        start, stop = one["data_offsets"]
        if stop > end:
            return f"tensor {name!r:.80} should end at byte {stop} of {end}"
        if start != at or stop < start:
            lies = f"lies at bytes {start} to {stop}, not from {at} on"
            return f"tensor {name!r:.80} {lies}"
        item = ITEM_BYTES.get(one["dtype"])
        if item is None:
            return f"tensor {name!r:.80} is of type {one['dtype']!r:.20}, not known"
        if math.prod(one["shape"]) * item != stop - start:
            return (
                f"tensor {name!r:.80} of shape {one['shape']!s:.80} in {one['dtype']}"
                f" does not take {stop - start} bytes"
            )
        at = stop
    return f"its last tensor ends at byte {at} of {end}" if at < end else None


def _is_told(one: Any) -> bool:
    """{"dtype": str, "shape": [sizes], "data_offsets": [start, stop]}."""
    if not isinstance(one, dict) or not isinstance(one.get("dtype"), str):
        return False
    offsets, shape = one.get("data_offsets"), one.get("shape")
    if not isinstance(offsets, list) or not isinstance(shape, list):
        return False
    sizes = [*offsets, *shape]
    return len(offsets) == 2 and all(type(n) is int and n >= 0 for n in sizes)
