"""A model of Transformers' names and values -> a GGUF file, llama.cpp's, or none.

config --> metadata;  tensors --> plan (name, shape, type) --> blocks, one at a time
What GGUF cannot say is refused before anything is written.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from tljax.pretrained.gguf import config as gguf_config
from tljax.pretrained.gguf import names as gguf_names
from tljax.pretrained.gguf import values as gguf_values
from tljax.pretrained.gguf.names import ROPE_FACTORS, Architecture
from tljax.pretrained.gguf.tokenizer_write import write_tokenizer
from tljax.settings import InputError, suggestion

# What a file may be written in, and general.file_type's number for it.
STORED = {"F32": 0, "F16": 1, "BF16": 32, "Q8_0": 7}

_ALIGNMENT = 32  # bytes; each tensor starts at a multiple
_MOST = float(np.finfo(np.float32).max)


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What the file will hold, in its order.

    Attributes:
      names: GGUF's -> Transformers', without ROPE_FACTORS.
      shapes: GGUF's name -> shape.
      kinds: GGUF's name -> type of its blocks.
      factors: values of ROPE_FACTORS; None = the file has no such tensor.
    """

    names: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    kinds: Mapping[str, gguf.GGMLQuantizationType]
    factors: np.ndarray | None


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
    config = {**config, "head_dim": gguf_config.head_width(config)}
    plan = _plan(config, tensors, architecture, stored)
    writer = _header(architecture, metadata, plan)
    _write(path, writer, _blocks(plan, config, tensors, architecture))


def _plan(
    config: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    architecture: Architecture,
    stored: str,
) -> _Plan:
    """Names and shapes, held against the config."""
    names = _names(config, tensors, architecture)
    shapes = {name: tuple(tensors[theirs].shape) for name, theirs in names.items()}
    gguf_names.check_shapes(shapes, config, "the model to write")
    factors = gguf_config.rope_factors(config)
    if factors is not None:
        shapes = {ROPE_FACTORS: factors.shape, **shapes}
    kinds = {name: gguf_values.kind_for(shapes[name], stored) for name in shapes}
    return _Plan(names, shapes, kinds, factors)


def _header(
    architecture: Architecture, metadata: Mapping[str, Any], plan: _Plan
) -> gguf.GGUFWriter:
    """A writer that knows the metadata and where each tensor will lie."""
    writer = gguf.GGUFWriter(None, architecture.name)
    for key, value in metadata.items():
        _add(writer, key, value)
    for name, kind in plan.kinds.items():
        shape = plan.shapes[name]
        size = gguf_values.block_bytes(shape, kind)
        # any type but uint8, whose shape would be taken for that of blocks
        writer.add_tensor_info(name, shape, np.dtype("f4"), size, raw_dtype=kind)
    return writer


def _blocks(
    plan: _Plan,
    config: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    architecture: Architecture,
) -> Iterator[np.ndarray]:
    """Each tensor's bytes, made when they are asked for."""
    for name, kind in plan.kinds.items():
        if name == ROPE_FACTORS:
            values = plan.factors
        else:
            values = np.asarray(tensors[plan.names[name]])
            values = gguf_values.to_gguf(values, name, architecture, config)
        yield gguf_values.quantized(values, kind, f"tensor {name!r}")


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
