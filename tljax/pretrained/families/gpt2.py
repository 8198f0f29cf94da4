"""GPT-2: learned positions, LayerNorm, biases, one fused product.

    c_attn [width, 3 width] = [query | key | value]

Its kernels lie as ours do, [in, out].
"""

from typing import Any

from tljax.pretrained.families.family import (
    LAYER,
    Config,
    Family,
    Place,
    linear,
    norm,
    only,
)
from tljax.settings import ModelSettings

_NAMES = {
    "embedding/tokens": Place("wte.weight"),
    "embedding/positions": Place("wpe.weight"),
    "output/kernel": Place("lm_head.weight"),
    **norm("final_norm", "ln_f"),
    **norm(f"{LAYER}/attention_norm", "h.{i}.ln_1"),
    **norm(f"{LAYER}/mlp_norm", "h.{i}.ln_2"),
    **{
        f"{LAYER}/attention/{name}/{ours}": Place(
            "h.{i}.attn.c_attn." + theirs, part=(k, 3)
        )
        for k, name in enumerate(("query", "key", "value"))
        for ours, theirs in (("kernel", "weight"), ("bias", "bias"))
    },
    **linear(f"{LAYER}/attention/output", "h.{i}.attn.c_proj", transposed=False),
    **linear(f"{LAYER}/mlp/up", "h.{i}.mlp.c_fc", transposed=False),
    **linear(f"{LAYER}/mlp/down", "h.{i}.mlp.c_proj", transposed=False),
}


def _gpt2(config: Config) -> dict[str, Any]:
    tanh = ("gelu_new", "gelu_pytorch_tanh")
    only(config, "activation_function", *tanh, default="gelu_new")
    only(config, "scale_attn_weights", True, default=True)
    only(config, "scale_attn_by_inverse_layer_idx", False, default=False)
    width, heads = config["n_embd"], config["n_head"]
    inner = config.get("n_inner")
    return {
        "width": width,
        "depth": config["n_layer"],
        "heads": heads,
        "kv_heads": heads,
        "mlp": "gelu",
        "mlp_width": 4 * width if inner is None else inner,
        "qk_norm": False,
        "bias": "all",
        "tied": config.get("tie_word_embeddings", True),
        "causal": True,
        "rope_base": 1.0,
        "norm": "layer",
        "norm_epsilon": config.get("layer_norm_epsilon", 1e-5),
        "positions": "learned",
        "context": config["n_positions"],
    }


def _gpt2_config(s: ModelSettings) -> dict[str, Any]:
    return {
        "n_embd": s.width,
        "n_layer": s.depth,
        "n_head": s.heads,
        "n_inner": s.mlp_width,
        "n_positions": s.context,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": s.norm_epsilon,
    }


GPT2 = Family(
    "gpt2",
    "GPT2LMHeadModel",
    "transformer.",
    _NAMES,
    (r"h\.\d+\.attn\.(masked_)?bias",),
    _gpt2,
    _gpt2_config,
)
