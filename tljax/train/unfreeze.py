"""Whose turn it is: layers that begin to move one after another.

Phases of equal length; places from the top, here 0 the head, 1 and 2 the layers, 3 the
embedding, of a model of two layers:

    gradual  0 | 0 1 | 0 1 2 | 0 1 2 3        chain  0 | 3 | 2 | 1 | 0 1 2 3
"""

import jax
import jax.numpy as jnp

from tljax.transfer.transplant import flat


def turns(
    kind: str, params: dict, step: jax.Array, steps: jax.Array
) -> dict[str, jax.Array]:
    """Whether each leaf moves at a step.

    Args:
      kind: one of OptimSettings.unfreeze.
      params: what moves at all; the final norm goes with the top layer, the
        embedding's norm with the embedding.
      step: int32 scalar, steps done.
      steps: float32 scalar, of the whole run.

    Returns:
      {path: bool scalar}; {} where every leaf always moves.

    Source: gradual: ULMFiT, Howard & Ruder 2018, section 3.3, where a phase is an
    epoch; chain-thaw: Felbo et al. 2017, section 3.3, where it lasts to convergence.
    """
    if kind == "none":
        return {}
    places = _places(params)
    last = count_phases(kind, params) - 1
    phase = step * (last + 1) // steps.astype(jnp.int32)
    if kind == "gradual":
        return {path: phase >= place for path, place in places.items()}
    lowest = max(places.values())
    own = {path: place and lowest + 1 - place for path, place in places.items()}
    return {path: (phase == own[path]) | (phase == last) for path in places}


def count_phases(kind: str, params: dict) -> int:
    """Phases of a kind; a run with fewer steps leaves some out."""
    lowest = max(_places(params).values())
    return {"none": 1, "gradual": lowest + 1, "chain": lowest + 2}[kind]


def _places(params: dict) -> dict[str, int]:
    """Each leaf's place from the top, counted without gaps; 0 = the head."""
    depth = 1 + max(map(int, params.get("layers", {})), default=-1)
    fixed = {"head": 0, "embedding": depth + 1, "embedding_norm": depth + 1}

    def level(path):
        room, *rest = path.split("/")
        return depth - int(rest[0]) if room == "layers" else fixed.get(room, 1)

    levels = {path: level(path) for path in flat(params)}
    order = sorted(set(levels.values()))
    return {path: order.index(one) for path, one in levels.items()}
