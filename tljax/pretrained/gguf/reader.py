"""A GGUF file, llama.cpp's, opened as Transformers' config, names and tokenizer.

file --header--> config, names, tokenizer;  Tensor.read() --blocks--> values
Opening reads no tensor but the few numbers that slow rotary angles.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tljax.pretrained.checkpoint import Checkpoint, Tensor, tell
from tljax.pretrained.gguf import config as gguf_config
from tljax.pretrained.gguf import names as gguf_names
from tljax.pretrained.gguf import values as gguf_values
from tljax.pretrained.gguf.header import Header, Stored, read_header
from tljax.pretrained.gguf.names import ROPE_FACTORS, Architecture
from tljax.pretrained.gguf.tokenizer_read import read_tokenizer
from tljax.settings import InputError


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
    names = _names(header, architecture)
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
        tensors[theirs] = Tensor(stored.shape, stored.kind.name, read, tell(path, name))
    return Checkpoint(where, config, tensors, tokenizer_json, tokenizer_config)


def _read(
    stored: Stored, name: str, architecture: Architecture, config: Mapping[str, Any]
) -> np.ndarray:
    values = gguf_values.dequantized(stored.read(), stored.kind)
    return gguf_values.to_transformers(values, name, architecture, config)


def _factors(stored: Stored) -> np.ndarray:
    values = gguf_values.dequantized(stored.read(), stored.kind)
    return values.astype(np.float32)


def _names(header: Header, architecture: Architecture) -> dict[str, str]:
    """GGUF's name -> Transformers', in the order of the file."""
    names = {}
    for name in header.tensors:
        if name != ROPE_FACTORS:
            theirs = gguf_names.to_transformers(name, architecture)
            if theirs is None:
                raise gguf_names.unknown_tensor(name, architecture, str(header.path))
            names[name] = theirs
    return names
