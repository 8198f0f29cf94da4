"""Gemma 3, text: norms on both sides of a branch, local layers, a scaled embedding.

    scale in the file = our scale - 1;  x = embedding sqrt(width)

Layers that see a window have a rotary base of their own. Only the text model is known.
"""

from typing import Any

from tljax.pretrained.families.decoders import (
    BUFFERS,
    NAMES,
    bias_of,
    decoder,
    decoder_config,
    layer_types,
    layer_windows,
)
from tljax.pretrained.families.family import (
    LAYER,
    Config,
    Family,
    Place,
    norm,
    number,
    only,
)
from tljax.pretrained.families.rope import read_rope_by_kind
from tljax.settings import ModelSettings

_NORMS = {
    "attention_norm": "input_layernorm",
    "attention_post_norm": "post_attention_layernorm",
    "mlp_norm": "pre_feedforward_layernorm",
    "mlp_post_norm": "post_feedforward_layernorm",
    "attention/query_norm": "self_attn.q_norm",
    "attention/key_norm": "self_attn.k_norm",
}
_NAMES = {
    **NAMES,
    **norm("final_norm", "norm", plus=1.0),
    **{
        f"{LAYER}/{ours}/scale": Place("layers.{i}." + theirs + ".weight", plus=1.0)
        for ours, theirs in _NORMS.items()
    },
}


def _gemma3(config: Config) -> dict[str, Any]:
    act = "gelu_pytorch_tanh"
    only(config, "hidden_activation", act, default=act)
    for key in ("final_logit_softcapping", "attn_logit_softcapping"):
        only(config, key, None)
    only(config, "use_bidirectional_attention", False, None)
    every = config.get("sliding_window_pattern") or 6
    return {
        **decoder(config, kv_heads=4, head_width=256),
        **read_rope_by_kind(config, base=1_000_000.0),
        "tied": config.get("tie_word_embeddings", True),
        "mlp": "geglu",
        "qk_norm": True,
        "bias": bias_of({**config, "mlp_bias": False}),
        "norm_place": "both",
        "windows": layer_windows(config, lambda i: bool((i + 1) % every)),
        "attention_scale": number(config, "query_pre_attn_scalar", 256) ** -0.5,
        "embedding_scale": config["hidden_size"] ** 0.5,
    }


def _gemma3_config(s: ModelSettings) -> dict[str, Any]:
    width = s.head_width or s.width // s.heads
    return {
        **decoder_config(s),
        "hidden_activation": "gelu_pytorch_tanh",
        "rope_local_base_freq": s.rope_local_base or s.rope_base,
        "attention_bias": s.bias == "attention",
        "query_pre_attn_scalar": _whole(s.attention_scale**-2)
        if s.attention_scale
        else width,
        "sliding_window": max(s.windows, default=0) or None,
        "layer_types": layer_types(s),
    }


def _whole(value: float) -> float | int:
    """256.00000000000006 -> 256."""
    near = round(value)
    return near if abs(value - near) < 1e-6 * near else value


GEMMA3 = Family(
    "gemma3_text",
    "Gemma3ForCausalLM",
    "model.",
    _NAMES,
    BUFFERS,
    _gemma3,
    _gemma3_config,
)
