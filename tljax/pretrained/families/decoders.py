"""Llama and its descendants: RMSNorm before, gated MLP, rotary positions.

config.json --LLAMA, MISTRAL, QWEN2, QWEN3--> ModelSettings, and back
They differ in biases, norms of queries and keys, windows, and Transformers' defaults.
"""

from collections.abc import Callable
from typing import Any

from tljax.pretrained.families.family import (
    LAYER,
    Config,
    Family,
    Place,
    Unsupported,
    linear,
    norm,
    only,
)
from tljax.pretrained.families.rope import read_rope, rope_config
from tljax.settings import ModelSettings

BUFFERS = (r".*rotary_emb\.inv_freq",)
BIAS = {
    (False, False): "none",
    (True, False): "attention",
    (False, True): "mlp",
    (True, True): "all",
}
NAMES = {
    "embedding/tokens": Place("embed_tokens.weight"),
    "output/kernel": Place("lm_head.weight"),
    **norm("final_norm", "norm"),
    **norm(f"{LAYER}/attention_norm", "layers.{i}.input_layernorm"),
    **norm(f"{LAYER}/mlp_norm", "layers.{i}.post_attention_layernorm"),
    **norm(f"{LAYER}/attention/query_norm", "layers.{i}.self_attn.q_norm"),
    **norm(f"{LAYER}/attention/key_norm", "layers.{i}.self_attn.k_norm"),
    **linear(f"{LAYER}/attention/query", "layers.{i}.self_attn.q_proj"),
    **linear(f"{LAYER}/attention/key", "layers.{i}.self_attn.k_proj"),
    **linear(f"{LAYER}/attention/value", "layers.{i}.self_attn.v_proj"),
    **linear(f"{LAYER}/attention/output", "layers.{i}.self_attn.o_proj"),
    **linear(f"{LAYER}/mlp/gate", "layers.{i}.mlp.gate_proj"),
    **linear(f"{LAYER}/mlp/up", "layers.{i}.mlp.up_proj"),
    **linear(f"{LAYER}/mlp/down", "layers.{i}.mlp.down_proj"),
}
_WINDOW = 4096  # Transformers', where a config does not say


def decoder(
    config: Config, *, kv_heads: int | None = None, head_width: int = 0
) -> dict[str, Any]:
    """What llama and its descendants have in common.

    Args:
      config: of the model.
      kv_heads: where the config does not say; None = as many as heads.
      head_width: where the config does not say; 0 = width / heads.
    """
    heads = config["num_attention_heads"]
    shared = config.get("num_key_value_heads", kv_heads)
    width = config.get("head_dim", head_width)
    if width and width % 2:
        raise Unsupported(f"config.json has head_dim={width}; it must be even")
    return {
        "width": config["hidden_size"],
        "depth": config["num_hidden_layers"],
        "heads": heads,
        "kv_heads": heads if shared is None else shared,
        "head_width": 0 if width is None and not head_width else width,
        "mlp": "swiglu",
        "mlp_width": config["intermediate_size"],
        "qk_norm": False,
        "bias": "none",
        "tied": config.get("tie_word_embeddings", False),
        "causal": True,
        "norm_epsilon": config.get("rms_norm_eps", 1e-6),
        "context": config["max_position_embeddings"],
    }


def decoder_config(s: ModelSettings) -> dict[str, Any]:
    """The inverse of `decoder` and `read_rope`."""
    return {
        "hidden_size": s.width,
        "num_hidden_layers": s.depth,
        "num_attention_heads": s.heads,
        "num_key_value_heads": s.kv_heads,
        "head_dim": s.head_width or s.width // s.heads,
        "intermediate_size": s.mlp_width,
        "hidden_act": "silu",
        "rms_norm_eps": s.norm_epsilon,
        "max_position_embeddings": s.context or 2048,
        **rope_config(s),
    }


def bias_of(config: Config) -> str:
    """Which products have a bias, of 'attention_bias' and 'mlp_bias'."""
    for key in ("attention_bias", "mlp_bias"):
        only(config, key, False, True, default=False)
    return BIAS[config.get("attention_bias", False), config.get("mlp_bias", False)]


def layer_windows(config: Config, is_local: Callable[[int], bool]) -> tuple[int, ...]:
    """A window a layer: by layer_types, in older files by the family's rule."""
    depth, window = config["num_hidden_layers"], config.get("sliding_window", _WINDOW)
    given = config.get("layer_types")
    if given is not None and not isinstance(given, list | tuple):
        raise Unsupported(
            f"config.json has layer_types={given!r:.80}; it must be a list"
        )
    local = given or [
        "sliding_attention" if is_local(i) else "full_attention" for i in range(depth)
    ]
    for one in local:
        only({"layer_types": one}, "layer_types", "sliding_attention", "full_attention")
    return tuple((window or 0) if one == "sliding_attention" else 0 for one in local)


def layer_types(s: ModelSettings) -> list[str]:
    """The inverse of `layer_windows`."""
    windows = s.windows or (0,) * s.depth
    return ["sliding_attention" if one else "full_attention" for one in windows]


def _llama(config: Config) -> dict[str, Any]:
    only(config, "hidden_act", "silu", default="silu")
    return {**decoder(config), **read_rope(config), "bias": bias_of(config)}


def _llama_config(s: ModelSettings) -> dict[str, Any]:
    return {
        **decoder_config(s),
        "attention_bias": s.bias in ("attention", "all"),
        "mlp_bias": s.bias in ("mlp", "all"),
    }


def _mistral(config: Config) -> dict[str, Any]:
    only(config, "hidden_act", "silu", default="silu")
    window = config.get("sliding_window", _WINDOW) or 0  # null: none
    windows = (window,) * config["num_hidden_layers"]
    return {**decoder(config, kv_heads=8), **read_rope(config), "windows": windows}


def _mistral_config(s: ModelSettings) -> dict[str, Any]:
    return {
        **decoder_config(s),
        "sliding_window": s.windows[0] if s.windows else None,
    }


def _qwen_windows(config: Config) -> tuple[int, ...]:
    only(config, "use_sliding_window", False, True, default=False)
    first = config.get("max_window_layers", 28)
    windows = layer_windows(config, lambda i: i >= first)
    if config.get("use_sliding_window"):
        return windows
    if "sliding_attention" in (config.get("layer_types") or ()):  # theirs fails, late
        raise Unsupported(
            "config.json has use_sliding_window=False, but 'sliding_attention' in"
            " layer_types; correct one of the two"
        )
    return ()


def _qwen_config(s: ModelSettings) -> dict[str, Any]:
    first = next((i for i, one in enumerate(s.windows) if one), s.depth)
    return {
        **decoder_config(s),
        "use_sliding_window": any(s.windows),
        "sliding_window": max(s.windows) if any(s.windows) else None,
        "max_window_layers": first,
        "layer_types": layer_types(s),
    }


def _qwen2(config: Config) -> dict[str, Any]:
    only(config, "hidden_act", "silu", default="silu")
    found = {**decoder(config, kv_heads=32), **read_rope(config), "bias": "qkv"}
    return {**found, "windows": _qwen_windows(config)}


def _qwen3(config: Config) -> dict[str, Any]:
    only(config, "hidden_act", "silu", default="silu")
    return {
        **decoder(config, kv_heads=32, head_width=128),
        **read_rope(config),
        "qk_norm": True,
        "bias": bias_of({**config, "mlp_bias": False}),
        "windows": _qwen_windows(config),
    }


def _qwen3_config(s: ModelSettings) -> dict[str, Any]:
    return {**_qwen_config(s), "attention_bias": s.bias == "attention"}


LLAMA = Family(
    "llama", "LlamaForCausalLM", "model.", NAMES, BUFFERS, _llama, _llama_config
)
MISTRAL = Family(
    "mistral", "MistralForCausalLM", "model.", NAMES, BUFFERS, _mistral, _mistral_config
)
QWEN2 = Family(
    "qwen2", "Qwen2ForCausalLM", "model.", NAMES, BUFFERS, _qwen2, _qwen_config
)
QWEN3 = Family(
    "qwen3", "Qwen3ForCausalLM", "model.", NAMES, BUFFERS, _qwen3, _qwen3_config
)
