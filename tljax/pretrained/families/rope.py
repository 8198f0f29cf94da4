"""Rotary positions as config.json tells them: a base, and how angles are slowed.

Transformers 5: rope_parameters {rope_theta, rope_type, factor ...}, of Gemma 3 one for
each kind of layer; Transformers 4: rope_theta, and rope_scaling {rope_type, factor ...}
"""

from typing import Any

from tljax.pretrained.families.family import (
    Config,
    Unsupported,
    group,
    number,
    only,
)
from tljax.settings import ModelSettings

BASE = 10_000.0  # Transformers', where a config does not say
KINDS = ("full_attention", "sliding_attention")


def read_rope(config: Config) -> dict[str, Any]:
    """Base and scaling, the same in every layer."""
    given = group(config, "rope_scaling") or group(config, "rope_parameters")
    only(config, "partial_rotary_factor", 1.0, None)
    return _fields({"rope_theta": config.get("rope_theta", BASE), **given})


def read_rope_by_kind(config: Config, *, base: float) -> dict[str, Any]:
    """Base and scaling of the layers that see all, and the base of those that do not.

    Args:
      config: of the model.
      base: of the layers that see all, where the config does not say.
    """
    given = group(config, "rope_parameters")
    if given.keys() - set(KINDS):
        raise Unsupported(
            f"config.json has rope_parameters={dict(given)!r:.80}; this family has one"
            f" for each of {', '.join(KINDS)}"
        )
    whole = {
        "rope_theta": config.get("rope_theta", base),
        **group(given, "full_attention"),
        **group(config, "rope_scaling"),
    }
    local = {
        "rope_theta": config.get("rope_local_base_freq", BASE),
        **group(given, "sliding_attention"),
    }
    only(local, "rope_type", "default", default="default")
    return {**_fields(whole), "rope_local_base": number(local, "rope_theta")}


def rope_config(s: ModelSettings) -> dict[str, Any]:
    """As Transformers 4 wrote it; 5 reads it too."""
    scaling: dict[str, Any] | None = None
    if s.rope_scaling != "none":
        scaling = {"rope_type": s.rope_scaling, "factor": s.rope_factor}
    if scaling and s.rope_scaling == "llama3":
        scaling |= {
            "low_freq_factor": s.rope_low_factor,
            "high_freq_factor": s.rope_high_factor,
            "original_max_position_embeddings": s.rope_context,
        }
    return {"rope_theta": s.rope_base, "rope_scaling": scaling}


def _fields(given: Config) -> dict[str, Any]:
    only(given, "partial_rotary_factor", 1.0, None)
    name = given.get("rope_type", given.get("type", "default"))
    found: dict[str, Any] = {"rope_base": number(given, "rope_theta")}
    if name == "default":
        return found
    if name not in ("linear", "llama3"):
        raise Unsupported(
            f"config.json has rope_type {name!r:.80}; known here: 'default', 'linear',"
            " 'llama3'"
        )
    found |= {"rope_scaling": name, "rope_factor": number(given, "factor")}
    if name == "llama3":
        low, high = (number(given, f"{end}_freq_factor") for end in ("low", "high"))
        if low >= high:
            raise Unsupported(
                f"config.json has low_freq_factor={low}, which must be less than"
                f" high_freq_factor={high}"
            )
        found |= {
            "rope_low_factor": low,
            "rope_high_factor": high,
            "rope_context": int(number(given, "original_max_position_embeddings")),
        }
    return found
