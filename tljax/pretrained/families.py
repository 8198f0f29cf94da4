"""Families of other people's models: what a config means, what tensors are called.

config.json --settings()--> ModelSettings;  our leaf --names--> their tensor

A family is a table and two functions, each the other's inverse (docs/families.md shows
how to add one); what it computes stands in model/block.py alone.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tljax.model import attention, transformer
from tljax.settings import InputError, ModelSettings, from_config, suggestion

Config = Mapping[str, Any]


class Place(NamedTuple):
    """Where a leaf's values lie.

    Attributes:
      name: the tensor's, without the family's prefix; {i} stands for the layer.
      transposed: a [out, in] weight, while our kernels are [in, out].
      part: (k, n) = the k-th of n equal parts of the last axis (fused products).
      plus: added to the tensor's values (Gemma keeps norm scales less 1).
    """

    name: str
    transposed: bool = False
    part: tuple[int, int] | None = None
    plus: float = 0.0


@dataclasses.dataclass(frozen=True)
class Family:
    """A kind of checkpoint.

    Attributes:
      name: its model_type in config.json.
      architecture: the class that config.json names.
      prefix: of tensor names, where Transformers wrote the whole model.
      names: our path, with {i} for the layer -> Place.
      ignored: patterns of tensors that hold nothing of the model (buffers, heads).
      settings: config.json -> fields of ModelSettings.
      config: ModelSettings -> config.json, without what all families share.
    """

    name: str
    architecture: str
    prefix: str
    names: Mapping[str, Place]
    ignored: tuple[str, ...]
    settings: Callable[[Config], dict[str, Any]]
    config: Callable[[ModelSettings], dict[str, Any]]


def family_of(config: Config, where: str) -> Family:
    """The family of a config.json.

    Raises:
      InputError: none of ours; the known ones are listed.
    """
    name = str(config.get("model_type"))
    if name not in FAMILIES:
        raise InputError(
            f"{where}: model_type {name!r} is none that is known here"
            f"{suggestion(name, FAMILIES)}; known: {', '.join(FAMILIES)}"
        )
    return FAMILIES[name]


def read_settings(config: Config, where: str) -> ModelSettings:
    """The architecture that a config.json describes.

    Raises:
      InputError: a key is missing, or asks for what no layer here can do.
    """
    try:
        found = family_of(config, where).settings(config)
    except KeyError as error:
        raise InputError(f"{where}: config.json has no {error.args[0]!r}") from error
    except _Unsupported as error:
        raise InputError(f"{where}: {error}") from error
    except (TypeError, ValueError, ArithmeticError) as error:
        raise InputError(f"{where}: config.json has a wrong value ({error})") from error
    whole = {"dropout": 0.0, "scan_layers": False, "dtype": "auto", **found}
    settings = from_config(ModelSettings, whole, f"{where}: model")
    settings = _one_spelling(settings)
    transformer.check(settings, f"{where}: model")
    return settings


def write_config(settings: ModelSettings, vocab_size: int) -> tuple[Family, dict]:
    """The family that can express a model, and its config.json.

    Raises:
      InputError: no family has all that the settings ask for.
    """
    wanted = _bare(settings)
    for family in FAMILIES.values():
        config = {
            "architectures": [family.architecture],
            "model_type": family.name,
            "vocab_size": vocab_size,
            "tie_word_embeddings": settings.tied,
            "dtype": "float32",
            **family.config(settings),
        }
        try:
            if _bare(read_settings(config, "export")) == wanted:
                return family, config
        except InputError:
            continue
    raise InputError(
        "no family of Transformers computes what this model does"
        f" (mlp={settings.mlp!r}, norm={settings.norm!r},"
        f" bias={settings.bias!r}, qk_norm={settings.qk_norm});"
        " a decoder with mlp='swiglu', bias='none' and qk_norm=False is a llama, with"
        " qk_norm=True a qwen3"
    )


def _bare(settings: ModelSettings) -> ModelSettings:
    """What matters for the values that a model computes; how it is run does not."""
    context = settings.context if settings.positions == "learned" else 0
    base = settings.rope_base if settings.positions == "rotary" else 1.0
    return _one_spelling(
        dataclasses.replace(
            settings, dropout=0.0, scan_layers=False, dtype="auto", context=context,
            rope_base=base,
        )
    )  # fmt: skip


def _one_spelling(settings: ModelSettings) -> ModelSettings:
    """Settings that say the same in two ways, said in one."""
    s = settings
    if s.head_width * s.heads == s.width:
        s = dataclasses.replace(s, head_width=0)
    if s.attention_scale == attention.head_width(s) ** -0.5:
        s = dataclasses.replace(s, attention_scale=0.0)
    if not any(s.windows):
        s = dataclasses.replace(s, windows=(), rope_local_base=0.0)
    return s


class _Unsupported(ValueError):
    """A config that asks for what no layer here can do."""


def _only(config: Config, key: str, *allowed: Any, default: Any = None) -> None:
    """Refuses a key whose value is another than those that are implemented."""
    value = config.get(key, default)
    if value not in allowed:
        raise _Unsupported(
            f"config.json has {key}={value!r}; known here:"
            f" {', '.join(map(repr, allowed))}"
        )


def _rope(config: Config, kind: str | None = None) -> dict[str, Any]:
    """Base and scaling, as Transformers 5 ('rope_parameters') or 4 wrote them.

    Args:
      config: of the model.
      kind: of layer, where each has parameters of its own.
    """
    given = config.get("rope_parameters") or {}
    given = (given.get(kind) or given) if kind else given
    scaling = given or config.get("rope_scaling") or {}
    scaling = scaling if isinstance(scaling, Mapping) else {}
    base = given.get("rope_theta", config.get("rope_theta", 10_000.0))
    name = scaling.get("rope_type", scaling.get("type", "default"))
    found: dict[str, Any] = {"rope_base": float(base)}
    if name == "default":
        return found
    if name not in ("linear", "llama3"):
        raise _Unsupported(
            f"config.json has rope_type {name!r}; known here: 'default', 'linear',"
            " 'llama3'"
        )
    found |= {"rope_scaling": name, "rope_factor": float(scaling["factor"])}
    if name == "llama3":
        found |= {
            "rope_low_factor": float(scaling["low_freq_factor"]),
            "rope_high_factor": float(scaling["high_freq_factor"]),
            "rope_context": int(scaling["original_max_position_embeddings"]),
        }
    return found


def _rope_config(s: ModelSettings) -> dict[str, Any]:
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


def _decoder(config: Config) -> dict[str, Any]:
    """What llama and its descendants have in common."""
    heads = config["num_attention_heads"]
    return {
        "width": config["hidden_size"],
        "depth": config["num_hidden_layers"],
        "heads": heads,
        "kv_heads": config.get("num_key_value_heads") or heads,
        "head_width": config.get("head_dim") or 0,
        "mlp": "swiglu",
        "mlp_width": config["intermediate_size"],
        "qk_norm": False,
        "bias": "none",
        "tied": config.get("tie_word_embeddings", False),
        "causal": True,
        "norm_epsilon": config.get("rms_norm_eps", 1e-6),
        "context": config["max_position_embeddings"],
    }


def _decoder_config(s: ModelSettings) -> dict[str, Any]:
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
        **_rope_config(s),
    }


_BIAS = {
    (False, False): "none",
    (True, False): "attention",
    (False, True): "mlp",
    (True, True): "all",
}


def _llama(config: Config) -> dict[str, Any]:
    _only(config, "hidden_act", "silu", default="silu")
    biased = (config.get("attention_bias", False), config.get("mlp_bias", False))
    return {**_decoder(config), **_rope(config), "bias": _BIAS[biased]}


def _llama_config(s: ModelSettings) -> dict[str, Any]:
    return {
        **_decoder_config(s),
        "attention_bias": s.bias in ("attention", "all"),
        "mlp_bias": s.bias in ("mlp", "all"),
    }


def _mistral(config: Config) -> dict[str, Any]:
    _only(config, "hidden_act", "silu", default="silu")
    window = config.get("sliding_window") or 0
    windows = (window,) * config["num_hidden_layers"]
    return {**_decoder(config), **_rope(config), "windows": windows}


def _mistral_config(s: ModelSettings) -> dict[str, Any]:
    return {
        **_decoder_config(s),
        "sliding_window": s.windows[0] if s.windows else None,
    }


def _layer_windows(config: Config, is_local: Callable[[int], bool]) -> tuple[int, ...]:
    """A window a layer: by layer_types, in older files by the family's rule."""
    depth, window = config["num_hidden_layers"], config.get("sliding_window") or 0
    local = config.get("layer_types") or [
        "sliding_attention" if is_local(i) else "full_attention" for i in range(depth)
    ]
    return tuple(window if one == "sliding_attention" else 0 for one in local)


def _qwen_windows(config: Config) -> tuple[int, ...]:
    if not config.get("use_sliding_window"):
        return ()
    first = config.get("max_window_layers", 28)
    return _layer_windows(config, lambda i: i >= first)


def _layer_types(s: ModelSettings) -> list[str]:
    windows = s.windows or (0,) * s.depth
    return ["sliding_attention" if one else "full_attention" for one in windows]


def _qwen_config(s: ModelSettings) -> dict[str, Any]:
    first = next((i for i, one in enumerate(s.windows) if one), s.depth)
    return {
        **_decoder_config(s),
        "use_sliding_window": any(s.windows),
        "sliding_window": max(s.windows) if any(s.windows) else None,
        "max_window_layers": first,
        "layer_types": _layer_types(s),
    }


def _qwen2(config: Config) -> dict[str, Any]:
    _only(config, "hidden_act", "silu", default="silu")
    found = {**_decoder(config), **_rope(config), "bias": "qkv"}
    return {**found, "windows": _qwen_windows(config)}


def _qwen3(config: Config) -> dict[str, Any]:
    _only(config, "hidden_act", "silu", default="silu")
    found = {**_decoder(config), **_rope(config), "qk_norm": True}
    found["bias"] = _BIAS[config.get("attention_bias", False), False]
    return {**found, "windows": _qwen_windows(config)}


def _qwen3_config(s: ModelSettings) -> dict[str, Any]:
    return {**_qwen_config(s), "attention_bias": s.bias == "attention"}


def _gemma3(config: Config) -> dict[str, Any]:
    act = "gelu_pytorch_tanh"
    _only(config, "hidden_activation", act, default=act)
    for key in ("final_logit_softcapping", "attn_logit_softcapping"):
        _only(config, key, None)
    _only(config, "use_bidirectional_attention", False, None)
    every = config.get("sliding_window_pattern") or 6
    own = config.get("rope_parameters") or {}
    local = own.get("sliding_attention", {})
    width = config["hidden_size"]
    bias = _BIAS[config.get("attention_bias", False), False]
    return {
        **_decoder(config),
        **_rope(config, "full_attention"),
        "rope_local_base": float(
            local.get("rope_theta", config.get("rope_local_base_freq", 10_000.0))
        ),
        "tied": config.get("tie_word_embeddings", True),
        "mlp": "geglu",
        "qk_norm": True,
        "bias": bias,
        "norm_place": "both",
        "windows": _layer_windows(config, lambda i: bool((i + 1) % every)),
        "attention_scale": config["query_pre_attn_scalar"] ** -0.5,
        "embedding_scale": width**0.5,
    }


def _gemma3_config(s: ModelSettings) -> dict[str, Any]:
    width = s.head_width or s.width // s.heads
    return {
        **_decoder_config(s),
        "hidden_activation": "gelu_pytorch_tanh",
        "rope_local_base_freq": s.rope_local_base or s.rope_base,
        "attention_bias": s.bias == "attention",
        "query_pre_attn_scalar": _whole(s.attention_scale**-2)
        if s.attention_scale
        else width,
        "sliding_window": max(s.windows, default=0) or None,
        "layer_types": _layer_types(s),
    }


def _whole(value: float) -> float | int:
    """256.00000000000006 -> 256."""
    near = round(value)
    return near if abs(value - near) < 1e-6 * near else value


def _gpt2(config: Config) -> dict[str, Any]:
    tanh = ("gelu_new", "gelu_pytorch_tanh")
    _only(config, "activation_function", *tanh, default="gelu_new")
    _only(config, "scale_attn_weights", True, default=True)
    _only(config, "scale_attn_by_inverse_layer_idx", False, default=False)
    width, heads = config["n_embd"], config["n_head"]
    return {
        "width": width,
        "depth": config["n_layer"],
        "heads": heads,
        "kv_heads": heads,
        "mlp": "gelu",
        "mlp_width": config.get("n_inner") or 4 * width,
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


def _bert(config: Config) -> dict[str, Any]:
    _only(config, "hidden_act", "gelu", default="gelu")
    _only(config, "position_embedding_type", "absolute", default="absolute")
    heads = config["num_attention_heads"]
    return {
        "width": config["hidden_size"],
        "depth": config["num_hidden_layers"],
        "heads": heads,
        "kv_heads": heads,
        "mlp": "gelu_exact",
        "mlp_width": config["intermediate_size"],
        "qk_norm": False,
        "bias": "all",
        "tied": True,
        "causal": False,
        "rope_base": 1.0,
        "norm": "layer",
        "norm_place": "after",
        "norm_epsilon": config.get("layer_norm_eps", 1e-12),
        "positions": "learned",
        "context": config["max_position_embeddings"],
        "embedding_norm": True,
        "token_types": config.get("type_vocab_size", 2),
    }


def _bert_config(s: ModelSettings) -> dict[str, Any]:
    return {
        "hidden_size": s.width,
        "num_hidden_layers": s.depth,
        "num_attention_heads": s.heads,
        "intermediate_size": s.mlp_width,
        "hidden_act": "gelu",
        "layer_norm_eps": s.norm_epsilon,
        "max_position_embeddings": s.context,
        "type_vocab_size": s.token_types,
    }


_LAYER = "layers/{i}"


def _linear(ours: str, theirs: str, *, transposed: bool = True) -> dict[str, Place]:
    return {
        f"{ours}/kernel": Place(f"{theirs}.weight", transposed),
        f"{ours}/bias": Place(f"{theirs}.bias"),
    }


def _norm(ours: str, theirs: str, *, plus: float = 0.0) -> dict[str, Place]:
    return {
        f"{ours}/scale": Place(f"{theirs}.weight", plus=plus),
        f"{ours}/bias": Place(f"{theirs}.bias"),
    }


_LLAMA_NAMES = {
    "embedding/tokens": Place("embed_tokens.weight"),
    "output/kernel": Place("lm_head.weight"),
    **_norm("final_norm", "norm"),
    **_norm(f"{_LAYER}/attention_norm", "layers.{i}.input_layernorm"),
    **_norm(f"{_LAYER}/mlp_norm", "layers.{i}.post_attention_layernorm"),
    **_norm(f"{_LAYER}/attention/query_norm", "layers.{i}.self_attn.q_norm"),
    **_norm(f"{_LAYER}/attention/key_norm", "layers.{i}.self_attn.k_norm"),
    **_linear(f"{_LAYER}/attention/query", "layers.{i}.self_attn.q_proj"),
    **_linear(f"{_LAYER}/attention/key", "layers.{i}.self_attn.k_proj"),
    **_linear(f"{_LAYER}/attention/value", "layers.{i}.self_attn.v_proj"),
    **_linear(f"{_LAYER}/attention/output", "layers.{i}.self_attn.o_proj"),
    **_linear(f"{_LAYER}/mlp/gate", "layers.{i}.mlp.gate_proj"),
    **_linear(f"{_LAYER}/mlp/up", "layers.{i}.mlp.up_proj"),
    **_linear(f"{_LAYER}/mlp/down", "layers.{i}.mlp.down_proj"),
}
_GEMMA_NORMS = {
    "attention_norm": "input_layernorm",
    "attention_post_norm": "post_attention_layernorm",
    "mlp_norm": "pre_feedforward_layernorm",
    "mlp_post_norm": "post_feedforward_layernorm",
    "attention/query_norm": "self_attn.q_norm",
    "attention/key_norm": "self_attn.k_norm",
}
_GEMMA_NAMES = {
    **_LLAMA_NAMES,
    **_norm("final_norm", "norm", plus=1.0),
    **{
        f"{_LAYER}/{ours}/scale": Place("layers.{i}." + theirs + ".weight", plus=1.0)
        for ours, theirs in _GEMMA_NORMS.items()
    },
}
_GPT2_NAMES = {
    "embedding/tokens": Place("wte.weight"),
    "embedding/positions": Place("wpe.weight"),
    "output/kernel": Place("lm_head.weight"),
    **_norm("final_norm", "ln_f"),
    **_norm(f"{_LAYER}/attention_norm", "h.{i}.ln_1"),
    **_norm(f"{_LAYER}/mlp_norm", "h.{i}.ln_2"),
    **{
        f"{_LAYER}/attention/{name}/{ours}": Place(
            "h.{i}.attn.c_attn." + theirs, part=(k, 3)
        )
        for k, name in enumerate(("query", "key", "value"))
        for ours, theirs in (("kernel", "weight"), ("bias", "bias"))
    },
    **_linear(f"{_LAYER}/attention/output", "h.{i}.attn.c_proj", transposed=False),
    **_linear(f"{_LAYER}/mlp/up", "h.{i}.mlp.c_fc", transposed=False),
    **_linear(f"{_LAYER}/mlp/down", "h.{i}.mlp.c_proj", transposed=False),
}
_BERT_LAYER = "encoder.layer.{i}"
_BERT_NAMES = {
    "embedding/tokens": Place("embeddings.word_embeddings.weight"),
    "embedding/positions": Place("embeddings.position_embeddings.weight"),
    "embedding/types": Place("embeddings.token_type_embeddings.weight"),
    **_norm("embedding_norm", "embeddings.LayerNorm"),
    **_norm(f"{_LAYER}/attention_norm", f"{_BERT_LAYER}.attention.output.LayerNorm"),
    **_norm(f"{_LAYER}/mlp_norm", f"{_BERT_LAYER}.output.LayerNorm"),
    **_linear(f"{_LAYER}/attention/query", f"{_BERT_LAYER}.attention.self.query"),
    **_linear(f"{_LAYER}/attention/key", f"{_BERT_LAYER}.attention.self.key"),
    **_linear(f"{_LAYER}/attention/value", f"{_BERT_LAYER}.attention.self.value"),
    **_linear(f"{_LAYER}/attention/output", f"{_BERT_LAYER}.attention.output.dense"),
    **_linear(f"{_LAYER}/mlp/up", f"{_BERT_LAYER}.intermediate.dense"),
    **_linear(f"{_LAYER}/mlp/down", f"{_BERT_LAYER}.output.dense"),
}
_BUFFERS = (r".*rotary_emb\.inv_freq",)

FAMILIES = {
    family.name: family
    for family in (
        Family("llama", "LlamaForCausalLM", "model.", _LLAMA_NAMES, _BUFFERS,
               _llama, _llama_config),
        Family("mistral", "MistralForCausalLM", "model.", _LLAMA_NAMES, _BUFFERS,
               _mistral, _mistral_config),
        Family("qwen2", "Qwen2ForCausalLM", "model.", _LLAMA_NAMES, _BUFFERS,
               _qwen2, _qwen_config),
        Family("qwen3", "Qwen3ForCausalLM", "model.", _LLAMA_NAMES, _BUFFERS,
               _qwen3, _qwen3_config),
        Family("gemma3_text", "Gemma3ForCausalLM", "model.", _GEMMA_NAMES, _BUFFERS,
               _gemma3, _gemma3_config),
        Family("gpt2", "GPT2LMHeadModel", "transformer.", _GPT2_NAMES,
               (r"h\.\d+\.attn\.(masked_)?bias",), _gpt2, _gpt2_config),
        Family("bert", "BertModel", "bert.", _BERT_NAMES,
               (r"embeddings\.position_ids", r"pooler\..*", r"cls\..*"),
               _bert, _bert_config),
    )
}  # fmt: skip
