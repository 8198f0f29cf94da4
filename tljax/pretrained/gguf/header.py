"""A GGUF file's header: metadata, and where each tensor's bytes lie. Reads no tensor.

magic version | tensors keys | key type value ... | name dims type offset ... | bytes
Every length is held against the file's end before it is believed, so that a file cut
off or damaged anywhere ends in one line. (gguf.GGUFReader believes lengths.)
"""

import dataclasses
import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from tljax.pretrained.checkpoint import tell
from tljax.settings import InputError, suggestion

MAGIC = b"GGUF"
VERSIONS = (2, 3)
READABLE = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K",
            "Q5_K", "Q6_K")  # fmt: skip

_ALIGNMENT = 32  # where general.alignment does not say another
_MOST_DIMENSIONS = 4
_STRING, _ARRAY = 8, 9
_NUMBERS = {0: "u1", 1: "i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4",
            7: "?", 10: "<u8", 11: "<i8", 12: "<f8"}  # fmt: skip
_KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    list: "a list of texts",
    np.ndarray: "a list of numbers",
}


@dataclasses.dataclass(frozen=True)
class Stored:
    """A tensor as the file holds it.

    Attributes:
      path: of the file.
      shape: rows first, as numpy counts.
      kind: its ggml type.
      start: where its bytes begin in the file.
    """

    path: Path
    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    start: int

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """(rows, bytes of a row); (bytes,) if it has one axis."""
        block, size = GGML_QUANT_SIZES[self.kind]
        return (*self.shape[:-1], self.shape[-1] // block * size)

    def read(self) -> np.ndarray:
        """Returns its bytes, uint8 of raw_shape, read anew.

        Raises:
          InputError: the file is not what it was.
        """
        size = math.prod(self.raw_shape)
        try:
            with self.path.open("rb") as file:
                file.seek(self.start)
                raw = np.fromfile(file, np.uint8, size)
        except OSError as error:
            raise InputError(f"{self.path} cannot be read: {error.strerror}") from error
        if len(raw) < size:
            raise InputError(f"{self.path} has become shorter since it was opened")
        return raw.reshape(self.raw_shape)


@dataclasses.dataclass(frozen=True)
class Header:
    """What a GGUF file says before its tensors' bytes.

    Attributes:
      path: of the file, for messages.
      metadata: key -> int, float, bool, text, list of texts, or array of numbers.
      tensors: name -> Stored, in the file's order.
    """

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, Stored]

    def value(self, key: str, kind: type, default: Any = dataclasses.MISSING) -> Any:
        """Returns a metadata value of the kind wanted.

        Args:
          key: of the metadata.
          kind: int, float (a whole number serves too), bool, str, list or np.ndarray.
          default: where the key is missing; without one it must be there.

        Raises:
          InputError: it is missing, or of another kind.
        """
        value = self.metadata.get(key, default)
        if value is dataclasses.MISSING:
            raise InputError(
                f"{self.path}: metadata key {key!r} is missing; convert the model anew"
            )
        if key not in self.metadata:
            return default
        if kind is float and type(value) is int:
            return float(value)
        if type(value) is not kind:
            raise InputError(
                f"{self.path}: metadata {key!r} is {_short(value)};"
                f" it must be {_KINDS[kind]}"
            )
        return value


def read_header(path: Path) -> Header:
    """Reads the header of a GGUF file (version 2 or 3, little-endian).

    Raises:
      InputError: no such file, not a GGUF, of another version, cut off or damaged, or a
        tensor of a type that is not in READABLE.

    Source: github.com/ggml-org/ggml, docs/gguf.md.
    """
    data = _mapped(path)
    cursor = _Cursor(path, data)
    if bytes(data[: len(MAGIC)]) != MAGIC:
        raise InputError(
            f"{path} is not a GGUF file: it starts with {bytes(data[:4])!r}, not"
            f" {MAGIC!r}"
        )
    cursor.at = len(MAGIC)
    version = cursor.number("<u4", "the version")
    if version not in VERSIONS:
        raise InputError(
            f"{path} is of GGUF version {version}; known here, little-endian:"
            f" {', '.join(map(str, VERSIONS))}; convert the model anew"
        )
    tensor_count = cursor.number("<u8", "the count of tensors")
    key_count = cursor.number("<u8", "the count of metadata keys")
    metadata: dict[str, Any] = {}
    for _ in range(key_count):
        key = cursor.text("a metadata key")
        if key in metadata:
            raise InputError(f"{path} is damaged: two metadata keys {_short(key)}")
        metadata[key] = cursor.value(key)
    places: dict[str, tuple] = {}
    for _ in range(tensor_count):
        name = cursor.text("a tensor's name")
        if name in places:
            raise InputError(f"{path} is damaged: two tensors {_short(name)}")
        places[name] = cursor.place(name)
    alignment = _alignment(Header(path, metadata, {}))
    start = -(-cursor.at // alignment) * alignment
    tensors = {
        name: _stored(path, len(data), name, shape, code, start + offset)
        for name, (shape, code, offset) in places.items()
    }
    _check_places(path, tensors, alignment)
    return Header(path, metadata, tensors)


def _mapped(path: Path) -> np.ndarray:
    if not path.exists():
        names = os.listdir(path.parent) if path.parent.is_dir() else []
        raise InputError(f"{path} does not exist{suggestion(path.name, names)}")
    if not path.is_file():
        raise InputError(f"{path} is not a file; give a .gguf file")
    if path.stat().st_size < len(MAGIC):
        raise InputError(
            f"{path} is not a GGUF file: it has {path.stat().st_size} bytes"
        )
    try:
        return np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


class _Cursor:
    """Where reading has come to; it never passes the file's end."""

    def __init__(self, path: Path, data: np.ndarray):
        self.path, self.bytes, self.at = path, memoryview(data), 0

    def take(self, size: int, what: str) -> memoryview:
        if size > len(self.bytes) - self.at:
            raise InputError(
                f"{self.path} is cut off or damaged: it ends at byte"
                f" {len(self.bytes)}, in {what}; fetch it again"
            )
        self.at += size
        return self.bytes[self.at - size : self.at]

    def number(self, kind: str, what: str) -> Any:
        kind = np.dtype(kind)
        return np.frombuffer(self.take(kind.itemsize, what), kind)[0].item()

    def text(self, what: str) -> str:
        (size,) = struct.unpack("<Q", self.take(8, what))
        try:
            return str(self.take(size, what), "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{self.path} is damaged: {what} is not UTF-8 ({error.reason})"
            ) from error

    def value(self, key: str) -> Any:
        what = f"metadata {_short(key)}"
        kind = self.number("<u4", what)
        if kind == _STRING:
            return self.text(what)
        if kind in _NUMBERS:
            return self.number(_NUMBERS[kind], what)
        if kind != _ARRAY:
            raise InputError(f"{self.path} is damaged: {what} has value type {kind}")
        kind, count = self.number("<u4", what), self.number("<u8", what)
        if kind == _STRING:
            return [self.text(what) for _ in range(count)]
        if kind not in _NUMBERS:
            raise InputError(f"{self.path}: {what} is a list of value type {kind}")
        number = np.dtype(_NUMBERS[kind])
        raw = self.take(count * number.itemsize, what)
        return np.frombuffer(raw, number).copy()

    def place(self, name: str) -> tuple[tuple[int, ...], int, int]:
        """(shape, type, offset) of a tensor."""
        what = f"tensor {_short(name)}"
        axes = self.number("<u4", what)
        if not 1 <= axes <= _MOST_DIMENSIONS:
            raise InputError(f"{self.path} is damaged: {what} has {axes} dimensions")
        shape = tuple(self.number("<u8", what) for _ in range(axes))
        return shape[::-1], self.number("<u4", what), self.number("<u8", what)


def _alignment(header: Header) -> int:
    """Of whose multiples tensors begin at one, counted from the file's start."""
    alignment = header.value("general.alignment", int, _ALIGNMENT)
    if alignment <= 0 or alignment & (alignment - 1):
        raise InputError(
            f"{header.path} is damaged: general.alignment is {alignment};"
            " it must be a power of two"
        )
    return alignment


def _check_places(path: Path, tensors: Mapping[str, Stored], alignment: int) -> None:
    """Tensors begin where they may, none within another."""
    end, last = 0, ""
    for name, one in sorted(tensors.items(), key=lambda item: item[1].start):
        fault = f"begins within tensor {_short(last)}" if one.start < end else ""
        if one.start % alignment:
            fault = f"begins at byte {one.start}, no multiple of {alignment}"
        if fault:
            raise InputError(
                f"{tell(path, name)} {fault}; the file is damaged: fetch or convert it"
                " again"
            )
        end, last = one.start + math.prod(one.raw_shape), name


def _stored(
    path: Path, size: int, name: str, shape: tuple[int, ...], code: int, start: int
) -> Stored:
    """A tensor that lies within a file of `size` bytes."""
    what = tell(path, name)
    known = GGMLQuantizationType.__members__.values()
    kind = GGMLQuantizationType(code) if code in known else None
    if kind is None or kind.name not in READABLE:
        raise InputError(
            f"{what} is of type {kind.name if kind is not None else code}; known here:"
            f" {', '.join(READABLE)}"
        )
    block, _ = GGML_QUANT_SIZES[kind]
    if 0 in shape or shape[-1] % block:
        raise InputError(
            f"{what} has shape {shape}; a row of {kind.name} has a multiple of"
            f" {block} values"
        )
    stored = Stored(path, shape, kind, start)
    end = start + math.prod(stored.raw_shape)  # Python's integers: no overflow
    if end > size:
        raise InputError(
            f"{what} ends at byte {end}, the file at {size}; it is cut off or damaged:"
            " fetch it again"
        )
    return stored


def _short(value: Any) -> str:
    """A value on one line of at most 60 characters."""
    text = f"{len(value)} values" if isinstance(value, np.ndarray) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
