"""What PEFT puts before every text: the vectors of prompt, the keys of prefix.

prompt_embeddings  prompt [P, D]; prefix [P, N x 2 x F]: key and value, layer by layer

PEFT counts a text's positions behind its prefix, tljax from the text's first token.
Rotary angles enter a score as the difference of two positions: keys that are turned by
P positions, once, give equal scores.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tljax.model import attention
from tljax.settings import InputError, ModelSettings, TransferSettings

VIRTUAL = ("prompt", "prefix")


def virtual_tokens(
    moving: Mapping[str, Any], settings: TransferSettings, model: ModelSettings
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What adapter_config.json says of them, and their tensor.

    Args:
      moving: what a run of such a method moves, by paths.
      settings: of the run.
      model: the base's sizes and positions.

    Raises:
      InputError: a prefix that PEFT would compute otherwise.
    """
    own = _prompt if settings.method == "prompt" else _prefix
    described, values_PX = own(moving, settings, model)
    # one model, not an encoder and a decoder; each of its layers has virtual tokens
    described |= {
        "num_virtual_tokens": len(values_PX),
        "num_layers": model.depth,
        "num_transformer_submodules": 1,
    }
    return described, {"prompt_embeddings": np.ascontiguousarray(values_PX)}


def _prompt(moving, settings, model):
    """The vectors; PEFT puts them behind the embedding's scale, tljax before it."""
    prompt_PD = np.asarray(moving["embedding/prompt"], np.float32)
    described = {
        "peft_type": "PROMPT_TUNING",
        "prompt_tuning_init": "RANDOM",
        "token_dim": model.width,
        "num_attention_heads": model.heads,
    }
    return described, prompt_PD * np.float32(model.embedding_scale)


def _prefix(moving, settings, model):
    """Each layer's keys, turned by P positions, and its values."""
    _check_prefix(settings, model)
    heads, width = model.kv_heads, attention.head_width(model)
    frequency_E = attention.rotary_frequencies(model, window=0)
    parts = []
    for layer in range(model.depth):
        key_PF, value_PF = (
            np.asarray(moving[f"layers/{layer}/attention/prefix_{name}"], np.float32)
            for name in ("key", "value")
        )
        length = len(key_PF)
        key_BLHE = key_PF.reshape(1, length, heads, width)
        turned = attention.rotate(key_BLHE, frequency_E, np.full((1, length), length))
        parts += [np.asarray(turned).reshape(length, -1), value_PF]
    described = {
        "peft_type": "PREFIX_TUNING",
        "prefix_projection": False,
        "token_dim": heads * width,
        "num_attention_heads": heads,
    }
    return described, np.concatenate(parts, axis=1)


def _check_prefix(settings: TransferSettings, model: ModelSettings) -> None:
    """Refuses what PEFT's prefix has no words for."""
    why = None
    if settings.frozen_layers:
        why = f"config.transfer.frozen_layers={settings.frozen_layers} layers have none"
    elif model.positions != "rotary":
        why = "PEFT moves learned positions on behind it"
    elif any(model.windows):
        why = "windows would hide it"
    if why:
        raise InputError(
            f"this prefix cannot be said in PEFT's format: {why}; use the run by"
            " `tljax predict` and `tljax evaluate`"
        )
