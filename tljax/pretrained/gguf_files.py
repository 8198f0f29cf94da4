"""GGUF files, llama.cpp's, read and written as Transformers' config and tensors.

file --header--> config, names, tokenizer;  Tensor.read() --blocks--> values
Opening reads no tensor; writing leaves a whole file or what was there before.
"""

import contextlib
import functools
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from tljax.pretrained import gguf_config, gguf_names, gguf_values
from tljax.pretrained.checkpoint import Checkpoint, Tensor
from tljax.pretrained.gguf_header import Stored, read_header
from tljax.pretrained.gguf_names import ROPE_FACTORS, Architecture
from tljax.pretrained.gguf_tokenizer import read_tokenizer
from tljax.pretrained.gguf_tokenizer_write import write_tokenizer
from tljax.settings import InputError, suggestion

# What a file may be written in, and general.file_type's number for it.
STORED = {"F32": 0, "F16": 1, "BF16": 32, "Q8_0": 7}

_ALIGNMENT = 32  # bytes; each tensor starts at a multiple
_MOST = float(np.finfo(np.float32).max)


def open_gguf(path: Path) -> Checkpoint:
    """Opens a GGUF file of a llama (or mistral), qwen2, qwen3 or gemma3.

    Args:
      path: one file; version 2 or 3, little-endian.

    Returns:
      Checkpoint with Transformers' names, shapes and values: query and key rows in its
      order, Gemma's norms less 1. No tensor has been read; those of quantised types
      are read as float32.

    Raises:
      InputError: no such file, not a GGUF, cut off or damaged, of an architecture, a
        tensor type or a tokenizer that is not known here, or of a part of a model.
    """
    header = read_header(path)
    where = str(path)
    parts = header.value("split.count", int, 0)
    if parts > 1:
        raise InputError(
            f"{where} is one of {parts} parts; join them with llama.cpp's gguf-split"
        )
    architecture = gguf_names.find_architecture(
        header.value("general.architecture", str), where
    )
    names = {}
    for name in header.tensors:
        if name != ROPE_FACTORS:
            theirs = gguf_names.to_transformers(name, architecture)
            if theirs is None:
                raise gguf_names.unknown_tensor(name, architecture, where)
            names[name] = theirs
    layers = gguf_config.layers_of(header, architecture)
    gguf_names.check_complete(names, architecture, layers, where)
    factors = header.tensors.get(ROPE_FACTORS)
    config = gguf_config.read_config(
        header, architecture, None if factors is None else _factors(factors)
    )
    shapes = {name: header.tensors[name].shape for name in names}
    gguf_names.check_shapes(shapes, config, where)
    tokenizer_json, tokenizer_config = read_tokenizer(header, config["vocab_size"])
    tensors = {}
    for name, theirs in names.items():
        stored = header.tensors[name]
        read = functools.partial(_read, stored, name, architecture, config)
        tensors[theirs] = Tensor(stored.shape, stored.kind.name, read)
    return Checkpoint(where, config, tensors, tokenizer_json, tokenizer_config)


def write_gguf(
    path: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    tokenizer_json: str | None,
    tokenizer_config: Mapping[str, Any],
    stored: str,
) -> None:
    """Writes a model as GGUF, whole or not at all.

    Args:
      path: the file; one that is there is replaced.
      config: config.json of a llama, qwen2, qwen3 or gemma3_text.
      tensors: Transformers' names -> values of any floating type; asked for one at a
        time, each twice (its shape, then its values).
      tokenizer_json: text of a tokenizer.json, a BPE; None = no tokenizer.
      tokenizer_config: what its tokenizer_config.json says.
      stored: a key of STORED: the type of matrices. Vectors are F32; a matrix whose
        rows are no multiple of Q8_0's 32 values is F16.

    Raises:
      InputError: what GGUF cannot say; a tensor that is missing, unknown, of a wrong
        shape or has too large a value for the type; a file that cannot be written.
    """
    if stored not in STORED:
        raise InputError(
            f"a GGUF is written in one of {', '.join(STORED)}, not"
            f" {stored!r:.40}{suggestion(str(stored), STORED)}"
        )
    architecture = gguf_names.find_architecture(
        str(config.get("model_type")), "config.json", of="model_type"
    )
    metadata = {
        "general.name": path.stem,
        "general.file_type": STORED[stored],
        "general.quantization_version": 2,
        **gguf_config.write_config(config, architecture),
        **write_tokenizer(tokenizer_json, tokenizer_config, config),
    }
    names = _names(config, tensors, architecture)
    shapes = {name: tuple(tensors[theirs].shape) for name, theirs in names.items()}
    config = {**config, "head_dim": gguf_config.head_width(config)}
    gguf_names.check_shapes(shapes, config, "the model to write")
    factors = gguf_config.rope_factors(config)
    if factors is not None:
        shapes = {ROPE_FACTORS: factors.shape, **shapes}
    kinds = {name: gguf_values.kind_for(shapes[name], stored) for name in shapes}

    def blocks() -> Iterator[np.ndarray]:
        for name, kind in kinds.items():
            if name == ROPE_FACTORS:
                values = factors
            else:
                values = np.asarray(tensors[names[name]])
                values = gguf_values.to_gguf(values, name, architecture, config)
            yield gguf_values.quantized(values, kind, f"tensor {name!r}")

    writer = gguf.GGUFWriter(None, architecture.name)
    for key, value in metadata.items():
        _add(writer, key, value)
    for name, kind in kinds.items():
        size = gguf_values.block_bytes(shapes[name], kind)
        # any type but uint8, whose shape would be taken for that of blocks
        writer.add_tensor_info(name, shapes[name], np.dtype("f4"), size, raw_dtype=kind)
    _write(path, writer, blocks())


def _write(path: Path, writer: gguf.GGUFWriter, blocks: Iterable[np.ndarray]) -> None:
    """A file beside the old one, then a rename."""
    fresh = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writer.write_header_to_file(fresh)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        file = writer.fout[0]
        for block in blocks:
            # by hand: the writer's own way tells no reason when the disk is full
            file.write(bytes(-file.tell() % _ALIGNMENT))
            file.write(block)
        file.write(bytes(-file.tell() % _ALIGNMENT))
        file.flush()
        os.fsync(file.fileno())
        writer.close()
        os.replace(fresh, path)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; make room or give another"
            " folder"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            writer.close()
        with contextlib.suppress(OSError):
            fresh.unlink()


def _read(
    stored: Stored, name: str, architecture: Architecture, config: Mapping[str, Any]
) -> np.ndarray:
    values = gguf_values.dequantized(stored.read(), stored.kind)
    return gguf_values.to_transformers(values, name, architecture, config)


def _factors(stored: Stored) -> np.ndarray:
    values = gguf_values.dequantized(stored.read(), stored.kind)
    return values.astype(np.float32)


def _names(
    config: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    architecture: Architecture,
) -> dict[str, str]:
    """GGUF's name -> Transformers', in the order of the file."""
    names = {}
    for theirs in tensors:
        if theirs == "lm_head.weight" and config.get("tie_word_embeddings"):
            continue  # the embedding, told twice
        name = gguf_names.to_gguf(theirs, architecture)
        if name is None:
            raise gguf_names.unknown_tensor(theirs, architecture, "the model to write")
        names[name] = theirs
    if "output.weight" not in names and config.get("tie_word_embeddings") is False:
        raise InputError(
            "the model to write has no 'lm_head.weight', but its config.json says"
            " tie_word_embeddings=False"
        )
    layers = config["num_hidden_layers"]
    gguf_names.check_complete(names, architecture, layers, "the model to write")
    return names


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    """One key of the metadata, as the type that llama.cpp asks for."""
    if type(value) is int and not 0 <= value < 2**32:
        raise InputError(f"{key} is {value}; a GGUF holds from 0 to {2**32 - 1}")
    if type(value) is float and not abs(value) <= _MOST:
        raise InputError(f"{key} is {value}; a GGUF holds what float32 can")
    add = {
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
        str: writer.add_string,
        list: writer.add_array,
    }
    add[type(value)](key, value)
