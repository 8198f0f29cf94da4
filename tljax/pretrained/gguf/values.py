"""One tensor's values: GGUF's blocks <-> Transformers' array.

bytes --dequantise--> rows as GGUF orders them --deinterleave, less 1--> Transformers'
Knows no file and no names but those that tell a query, a key or a norm.
"""

from collections.abc import Mapping
from typing import Any

import gguf
import ml_dtypes
import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from tljax.pretrained.gguf import names as gguf_names
from tljax.pretrained.gguf.names import Architecture
from tljax.settings import InputError

_PLAIN = {"F32": "<f4", "F16": "<f2", "BF16": ml_dtypes.bfloat16}


def dequantized(raw: np.ndarray, kind: GGMLQuantizationType) -> np.ndarray:
    """A tensor's values, in the file's order.

    Args:
      raw: uint8 [rows, bytes of a row], or [bytes].
      kind: of the tensor.

    Returns:
      float16 or bfloat16 where the file holds those, else float32.
    """
    if kind.name in _PLAIN:
        return raw.view(_PLAIN[kind.name])
    with np.errstate(all="ignore"):  # a damaged block's scale may be infinite
        return gguf.dequantize(raw, kind)


def quantized(values: np.ndarray, kind: GGMLQuantizationType, what: str) -> np.ndarray:
    """The inverse of `dequantized`, to rounding: uint8, as many as `block_bytes`.

    Raises:
      InputError: a value is not finite, or too large for the type.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if kind.name in _PLAIN:
            blocks = values.astype(_PLAIN[kind.name])
            finite = np.isfinite(blocks).all()
        else:  # Q8_0: each block starts with its scale, a float16
            blocks = gguf.quantize(values, kind)
            _, size = GGML_QUANT_SIZES[kind]
            scales = np.ascontiguousarray(blocks.reshape(-1, size)[:, :2])
            finite = np.isfinite(scales.view("<f2")).all()
    if not finite:
        raise InputError(
            f"{what} has values up to {np.abs(values).max():g}, which {kind.name}"
            " cannot hold; write BF16 or F32, or look for what went wrong in training"
        )
    return np.ascontiguousarray(blocks).reshape(-1).view(np.uint8)


def kind_for(shape: tuple[int, ...], stored: str) -> GGMLQuantizationType:
    """The type that a tensor is written in, where matrices are `stored`."""
    if len(shape) == 1:
        return GGMLQuantizationType.F32
    kind = GGMLQuantizationType[stored]
    block, _ = GGML_QUANT_SIZES[kind]
    return GGMLQuantizationType.F16 if shape[-1] % block else kind


def block_bytes(shape: tuple[int, ...], kind: GGMLQuantizationType) -> int:
    """Bytes that a tensor takes in the file, without padding."""
    block, size = GGML_QUANT_SIZES[kind]
    return int(np.prod(shape, dtype=np.int64)) // block * size


def to_transformers(
    values: np.ndarray, name: str, architecture: Architecture, config: Mapping[str, Any]
) -> np.ndarray:
    """GGUF's values -> Transformers'.

    Args:
      values: of the tensor.
      name: GGUF's.
      architecture: of the model.
      config: config.json, for the numbers of heads.
    """
    heads = gguf_names.heads_of(name, config) if architecture.interleaved else 0
    if heads:
        return gguf_names.deinterleave(values, heads)
    if architecture.norm_plus and gguf_names.is_norm(name):
        return values.astype(np.float32) - np.float32(architecture.norm_plus)
    return values


def to_gguf(
    values: np.ndarray, name: str, architecture: Architecture, config: Mapping[str, Any]
) -> np.ndarray:
    """The inverse of `to_transformers`, in float32."""
    values = values.astype(np.float32)
    heads = gguf_names.heads_of(name, config) if architecture.interleaved else 0
    if heads:
        return gguf_names.interleave(values, heads)
    if architecture.norm_plus and gguf_names.is_norm(name):
        return values + np.float32(architecture.norm_plus)
    return values
