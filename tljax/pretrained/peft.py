"""LoRA factors as PEFT keeps them: adapter_config.json and adapter_model.safetensors.

ours  layers/0/attention/query/{a [in, R], b [R, out]}
PEFT  base_model.model.model.layers.0.self_attn.q_proj.lora_{A [R, in], B [out, R]}
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tljax.pretrained.families import Family
from tljax.pretrained.tree import place_of
from tljax.settings import InputError, TransferSettings
from tljax.transfer.transplant import flat


def peft_adapter(
    moving: Mapping[str, Any],
    family: Family,
    settings: TransferSettings,
    *,
    base: str,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The adapter's config and tensors.

    Args:
      moving: what a LoRA run moves.
      family: of the base.
      settings: of the run.
      base: name of the base, for adapter_config.json.

    Raises:
      InputError: no LoRA factors, or a matrix that PEFT has fused with others.
    """
    tensors, modules = {}, []
    for path, leaf in flat(moving).items():
        place, _, name = path.rpartition("/")
        if name not in ("a", "b") or not path.startswith("layers/"):
            continue
        where = place_of(f"{place}/kernel", family)
        if where.part or not where.transposed:
            raise InputError(
                f"{place} is part of {where.name} in {family.name}, and an adapter of a"
                " part cannot be said in PEFT's format; export merged weights"
            )
        module = family.prefix + where.name.removesuffix(".weight")
        values = np.ascontiguousarray(np.asarray(leaf, np.float32).T)
        tensors[f"base_model.model.{module}.lora_{name.upper()}.weight"] = values
        modules.append(module)
    if not tensors:
        raise InputError("the run has no LoRA factors; export it as safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
        "use_rslora": settings.scaling == "rank_stabilized",
        "target_modules": sorted(set(modules)),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    return config, tensors
