"""How fast rotary angles turn: GGUF's keys and its tensor of factors <-> config.json.

factor of a pair = 1 (short waves) ... smooth ... `factor` (waves longer than a context)
GGUF holds Llama 3's scaling as that tensor alone: what made it is recovered by trying
Llama 3's numbers and comparing the whole tensor. Other scalings are refused.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tljax.pretrained.gguf.header import Header
from tljax.pretrained.gguf.names import ROPE_FACTORS
from tljax.settings import InputError

Config = Mapping[str, Any]

# config.json's key -> (metadata key after the architecture's name, Llama 3's value)
LLAMA3 = {
    "low_freq_factor": ("rope.scaling.low_freq_factor", 1.0),
    "high_freq_factor": ("rope.scaling.high_freq_factor", 4.0),
    "original_max_position_embeddings": ("rope.scaling.original_context_length", 8192),
}
_TOLERANCE = 1e-4  # of factors that went through float32 and another's arithmetic


def llama3_factors(theta: float, head_dim: int, scaling: Config) -> np.ndarray:
    """How many times slower each pair of a head turns than unscaled.

    Args:
      theta: base of the angles.
      head_dim: width of a head, E.
      scaling: 'factor' and the keys of LLAMA3.

    Returns:
      float32 [E / 2], from 1 to `factor`.

    Source: Llama 3.1, as Transformers' rope type 'llama3' computes it.
    """
    kept = _kept(theta, head_dim, scaling)
    return (1.0 / ((1.0 - kept) / scaling["factor"] + kept)).astype(np.float32)


def _kept(theta: float, head_dim: int, scaling: Config) -> np.ndarray:
    """Share of a pair's turning that is left as it is: 1 short waves, 0 long ones."""
    turns = theta ** -(np.arange(0, head_dim, 2) / head_dim) / (2 * math.pi)
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    waves_in_context = scaling["original_max_position_embeddings"] * turns
    return np.clip((waves_in_context - low) / (high - low), 0.0, 1.0)


def read_scaling(
    header: Header,
    architecture: str,
    theta: float,
    head_dim: int,
    factors: np.ndarray | None,
) -> dict[str, Any] | None:
    """config.json's rope_scaling.

    Args:
      header: of the file.
      architecture: the prefix of its keys.
      theta: base of the angles.
      head_dim: width of a head, E.
      factors: values of the tensor ROPE_FACTORS, float32 [E / 2]; None: no tensor.

    Returns:
      'rope_type' ('linear' or 'llama3') and its numbers; None: angles as they are.

    Raises:
      InputError: another scaling, or factors that are not Llama 3's.
    """
    key = f"{architecture}.rope.scaling.type"
    kind = header.value(key, str, "linear")  # as llama.cpp takes it
    if kind not in ("none", "linear"):
        raise InputError(
            f"{header.path}: metadata {key!r} is {kind!r:.60}; known here: none, linear"
        )
    older = header.value(f"{architecture}.rope.scale_linear", float, 1.0)
    factor = header.value(f"{architecture}.rope.scaling.factor", float, older)
    if not 0.0 <= factor < math.inf:
        raise InputError(f"{header.path}: angles are scaled by {factor}; at least 0")
    slowed = kind == "linear" and factor not in (0.0, 1.0)
    if factors is None or np.all(factors == 1.0):
        return {"rope_type": "linear", "factor": decimal(factor)} if slowed else None
    return _llama3(header, architecture, theta, head_dim, factors, slowed)


def _llama3(
    header: Header,
    architecture: str,
    theta: float,
    head_dim: int,
    factors: np.ndarray,
    slowed: bool,
) -> dict[str, Any]:
    """What made the factors, proved by making them again."""
    found: dict[str, Any] = {"rope_type": "llama3"}
    for ours, (key, usual) in LLAMA3.items():
        given = header.value(f"{architecture}.{key}", type(usual), usual)
        found[ours] = decimal(given) if type(usual) is float else given
    good = not slowed and factors.shape == (head_dim // 2,)
    if good:
        with np.errstate(all="ignore"):  # a damaged file's numbers may be anything
            kept = _kept(theta, head_dim, found)[-1]  # of the slowest pair
            factor = (1.0 - kept) / (1.0 / np.float64(factors[-1]) - kept)
            found["factor"] = round(float(factor), 3)
            expected = llama3_factors(theta, head_dim, found)
            good = np.allclose(factors, expected, rtol=_TOLERANCE, atol=0.0)
    if not good:
        raise InputError(
            f"{header.path}: tensor {ROPE_FACTORS!r} holds other factors than Llama 3's"
            f" (context {found['original_max_position_embeddings']}, low"
            f" {found['low_freq_factor']}, high {found['high_freq_factor']}), the only"
            " ones known here"
        )
    return found


def decimal(value: float) -> float:
    """A float32's shortest decimal: 9.99999974e-06 is config.json's 1e-05."""
    with np.errstate(over="ignore"):
        return float(str(np.float32(value)))
