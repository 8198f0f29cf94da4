"""Adapters as PEFT keeps them: adapter_config.json and adapter_model.safetensors.

ours  layers/0/attention/query/{a [in, R], b [R, out], magnitude [out]}; .../key/ia3
PEFT  base_model.model.model.layers.0.self_attn.q_proj.lora_{A [R, in], B [out, R]},
      .lora_magnitude_vector [out]; .k_proj.ia3_l [out, 1], .down_proj.ia3_l [1, in]
What stands before a text, of prompt and prefix: `peft_virtual`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tljax.pretrained.families import Family
from tljax.pretrained.peft_virtual import VIRTUAL, virtual_tokens
from tljax.pretrained.tree import place_of
from tljax.settings import InputError, ModelSettings, TransferSettings
from tljax.transfer.method import METHODS
from tljax.transfer.scaling import of_inputs
from tljax.transfer.transplant import flat

_NAMES = {
    "a": "lora_A.weight",
    "b": "lora_B.weight",
    "magnitude": "lora_magnitude_vector",
    "ia3": "ia3_l",
}
_METHODS = ("lora", "dora", "ia3", *VIRTUAL)


def peft_adapter(
    moving: Mapping[str, Any],
    family: Family,
    settings: TransferSettings,
    *,
    model: ModelSettings,
    base: str,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The adapter's config and tensors.

    Args:
      moving: what a run of such a method moves.
      family: of the base.
      settings: of the run.
      model: the base's sizes and positions.
      base: name of the base, for adapter_config.json.

    Raises:
      InputError: a method that PEFT has no format for, a matrix that is fused with
        others, or a prefix that PEFT would compute otherwise.
    """
    if settings.method not in _METHODS:
        raise InputError(
            "PEFT's format holds adapters of config.transfer.method="
            f"{', '.join(map(repr, _METHODS))}; this run's is {settings.method!r}:"
            " export it as safetensors"
        )
    writes = "LM" in family.architecture  # else PEFT is given the bare encoder
    shared = {
        "task_type": "CAUSAL_LM" if writes else "FEATURE_EXTRACTION",
        "base_model_name_or_path": base,
        "inference_mode": True,
    }
    if settings.method in VIRTUAL:
        described, tensors = virtual_tokens(flat(moving), settings, model)
        return shared | described, tensors
    prefix = family.prefix if writes else ""
    tensors, modules = {}, {}
    for path, leaf in flat(moving).items():
        place, _, name = path.rpartition("/")
        if name not in METHODS[settings.method].addition.names:
            continue
        if not path.startswith("layers/"):
            continue
        where = place_of(f"{place}/kernel", family)
        if where.part or not where.transposed:
            raise InputError(
                f"{place} is part of {where.name} in {family.name}, and an adapter of a"
                " part cannot be said in PEFT's format; export merged weights"
            )
        module = prefix + where.name.removesuffix(".weight")
        tensors[f"base_model.model.{module}.{_NAMES[name]}"] = _theirs(leaf, path)
        modules[module] = place
    shared |= {"target_modules": sorted(modules), "fan_in_fan_out": False}
    own = _scaling if settings.method == "ia3" else _low_rank
    return shared | own(settings, modules), tensors


def _theirs(leaf: Any, path: str) -> np.ndarray:
    """A leaf as PEFT's tensor: matrices transposed, ia3's scales as a row or column."""
    values = np.asarray(leaf, np.float32)
    place, _, name = path.rpartition("/")
    if name == "ia3":
        values = values[None] if of_inputs(place) else values[:, None]
        return np.ascontiguousarray(values)
    return np.ascontiguousarray(values.T)


def _low_rank(settings: TransferSettings, modules: Mapping[str, str]) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
        "use_rslora": settings.scaling == "rank_stabilized",
        "use_dora": settings.method == "dora",
        "bias": "none",
    }


def _scaling(settings: TransferSettings, modules: Mapping[str, str]) -> dict[str, Any]:
    inner = sorted(module for module, place in modules.items() if of_inputs(place))
    return {"peft_type": "IA3", "feedforward_modules": inner}
