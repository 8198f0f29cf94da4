"""GGUF's metadata of a model <-> what Transformers' config.json says of it.

'llama.block_count' <--> 'num_hidden_layers'
Where GGUF has no key (Gemma's query scale, activations) it means what llama.cpp does; a
config that llama.cpp would compute otherwise is refused, not bent.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tljax.pretrained.checkpoint import union_of_ends
from tljax.pretrained.gguf import rope as gguf_rope
from tljax.pretrained.gguf.header import Header
from tljax.pretrained.gguf.names import Architecture
from tljax.settings import InputError

Config = Mapping[str, Any]

# config.json's key -> metadata key after the architecture's name, kind
_ALWAYS = {
    "hidden_size": ("embedding_length", int),
    "num_hidden_layers": ("block_count", int),
    "intermediate_size": ("feed_forward_length", int),
    "num_attention_heads": ("attention.head_count", int),
    "max_position_embeddings": ("context_length", int),
    "rms_norm_eps": ("attention.layer_norm_rms_epsilon", float),
}
_ROPE_BASE = 10_000.0  # llama.cpp's, where the metadata does not say
_PATTERN = 6  # of Gemma 3: every sixth layer sees all
_LAYERS_OF_27B = 62  # llama.cpp tells Gemma 3 27B, with its own scale, by these


def layers_of(header: Header, architecture: Architecture) -> int:
    """How many layers the metadata says; nothing has been held against it yet."""
    return _positive(header, f"{architecture.name}.block_count", int)


def read_config(
    header: Header, architecture: Architecture, rope_factors: np.ndarray | None
) -> dict[str, Any]:
    """What config.json would say.

    Args:
      header: of a file whose tensors are complete (names.check_complete).
      architecture: its.
      rope_factors: values of the tensor ROPE_FACTORS, float32 [E / 2]; None: no tensor.

    Raises:
      InputError: a key is missing, or says what no config here can.
    """
    arch, tensors = architecture.name, header.tensors
    config: dict[str, Any] = {"model_type": architecture.model_type}
    for ours, (key, kind) in _ALWAYS.items():
        config[ours] = _positive(header, f"{arch}.{key}", kind)
    config["rms_norm_eps"] = gguf_rope.decimal(config["rms_norm_eps"])
    heads = config["num_attention_heads"]
    key = f"{arch}.attention.head_count_kv"
    config["num_key_value_heads"] = _positive(header, key, int, heads)
    head_dim = _head_dim(header, arch, max(config["hidden_size"] // heads, 1))
    theta = _positive(header, f"{arch}.rope.freq_base", float, _ROPE_BASE)
    theta = gguf_rope.decimal(theta)
    # the embedding's rows, which the list of tokens may not fill
    rows = tensors["token_embd.weight"].shape[0]
    told = header.value(f"{arch}.vocab_size", int, rows)
    if told != rows:
        raise InputError(
            f"{header.path}: metadata '{arch}.vocab_size' is {told}, but tensor"
            f" 'token_embd.weight' has {rows} rows; convert the model anew"
        )
    config |= {
        "head_dim": head_dim,
        "vocab_size": rows,
        "tie_word_embeddings": "output.weight" not in tensors,
        "rope_theta": theta,
        "rope_scaling": gguf_rope.read_scaling(
            header, arch, theta, head_dim, rope_factors
        ),
    }
    if arch == "gemma3":
        config |= _gemma(header, config)
    else:
        config["hidden_act"] = "silu"
    biased = {name.split(".")[2] for name in tensors if name.endswith(".bias")}
    if arch != "qwen2":
        config["attention_bias"] = any(one.startswith("attn") for one in biased)
    if arch == "llama":
        config["mlp_bias"] = any(one.startswith("ffn") for one in biased)
    first, *ends = (
        header.value(f"tokenizer.ggml.{name}_token_id", int, None)
        for name in ("bos", "eos", "eot")  # of a text, of a turn
    )
    last = union_of_ends(*ends, where=header.path)
    found = {"bos_token_id": first, "eos_token_id": last}
    return config | {key: one for key, one in found.items() if one is not None}


def write_config(config: Config, architecture: Architecture) -> dict[str, Any]:
    """Metadata that says what a config.json does; the inverse of `read_config`.

    Returns:
      key -> int, float or text.

    Raises:
      InputError: a key is missing, or GGUF cannot say it.
    """
    arch = architecture.name
    metadata: dict[str, Any] = {
        f"{arch}.{key}": _need(config, ours, kind)
        for ours, (key, kind) in _ALWAYS.items()
    }
    head_dim = head_width(config)
    theta, scaling = _rope(config)
    gemma = arch == "gemma3"
    act = "hidden_activation" if gemma else "hidden_act"
    allowed = "gelu_pytorch_tanh" if gemma else "silu"
    if config.get(act, allowed) != allowed:
        raise _cannot(act, config[act], repr(allowed))
    metadata |= {
        f"{arch}.attention.head_count_kv": _need(config, "num_key_value_heads", int),
        f"{arch}.attention.key_length": head_dim,
        f"{arch}.attention.value_length": head_dim,
        f"{arch}.rope.dimension_count": head_dim,
        f"{arch}.rope.freq_base": theta,
        f"{arch}.vocab_size": _need(config, "vocab_size", int),
    }
    if scaling.get("rope_type") == "linear":
        metadata[f"{arch}.rope.scaling.type"] = "linear"
        metadata[f"{arch}.rope.scaling.factor"] = _need(scaling, "factor", float)
    if scaling.get("rope_type") == "llama3":
        for ours, (key, usual) in gguf_rope.LLAMA3.items():
            metadata[f"{arch}.{key}"] = _need(scaling, ours, type(usual))
    if gemma:
        metadata |= _gemma_metadata(config)
    elif config.get("use_sliding_window") or "sliding_attention" in (
        config.get("layer_types") or ()
    ):
        raise _cannot("layer_types", "sliding_attention", "full attention")
    return metadata


def rope_factors(config: Config) -> np.ndarray | None:
    """The tensor that tells Llama 3's slowed angles; None: none are asked for."""
    theta, scaling = _rope(config)
    if scaling.get("rope_type") != "llama3":
        return None
    kinds = {key: type(usual) for key, (_, usual) in gguf_rope.LLAMA3.items()}
    values = {
        key: _need(scaling, key, kind)
        for key, kind in {"factor": float, **kinds}.items()
    }
    return gguf_rope.llama3_factors(theta, head_width(config), values)


def head_width(config: Config) -> int:
    """Width of a head, which an older config.json leaves to be worked out."""
    if config.get("head_dim") is not None:
        return _need(config, "head_dim", int)
    return _need(config, "hidden_size", int) // _need(
        config, "num_attention_heads", int
    )


def _head_dim(header: Header, arch: str, usual: int) -> int:
    head_dim = _positive(header, f"{arch}.attention.key_length", int, usual)
    for key in ("attention.value_length", "rope.dimension_count"):
        other = header.value(f"{arch}.{key}", int, head_dim)
        if other != head_dim:
            raise InputError(
                f"{header.path}: metadata '{arch}.{key}' is {other}, a head has"
                f" {head_dim}; only heads of one width, rotated whole, are known here"
            )
    return head_dim


def _gemma(header: Header, config: Config) -> dict[str, Any]:
    """What only Gemma 3's config.json has."""
    cap = header.value("gemma3.final_logit_softcapping", float, 0.0)
    if cap:
        raise InputError(
            f"{header.path}: metadata 'gemma3.final_logit_softcapping' is {cap};"
            " logits are not capped here"
        )
    every = _positive(header, "gemma3.attention.sliding_window_pattern", int, _PATTERN)
    local = _positive(header, "gemma3.rope.freq_base_swa", float, _ROPE_BASE)
    return {
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": _positive(header, "gemma3.attention.sliding_window", int),
        "layer_types": _layer_types(config["num_hidden_layers"], every),
        "rope_local_base_freq": gguf_rope.decimal(local),
        "query_pre_attn_scalar": _query_scalar(config),
    }


def _gemma_metadata(config: Config) -> dict[str, Any]:
    """The inverse of `_gemma`."""
    for key in ("final_logit_softcapping", "attn_logit_softcapping"):
        if config.get(key) is not None:
            raise _cannot(key, config[key], "none")
    if config.get("use_bidirectional_attention"):
        raise _cannot("use_bidirectional_attention", True, "False")
    given, scalar = _need(config, "query_pre_attn_scalar", float), _query_scalar(config)
    if given != scalar:
        raise _cannot("query_pre_attn_scalar", given, str(scalar))
    layers = _need(config, "num_hidden_layers", int)
    types = list(config.get("layer_types") or _layer_types(layers, _PATTERN))
    patterns = (_PATTERN, *range(1, layers + 2))  # the last: no layer sees all
    every = next((n for n in patterns if types == _layer_types(layers, n)), None)
    if every is None:
        raise _cannot("layer_types", types, "every n-th 'full_attention'")
    metadata: dict[str, Any] = {
        "gemma3.attention.sliding_window": _need(config, "sliding_window", int)
    }
    if every != _PATTERN:
        metadata["gemma3.attention.sliding_window_pattern"] = every
    local = (config.get("rope_parameters") or {}).get("sliding_attention")
    base = (
        _need(local, "rope_theta", float)
        if local
        else _need(config, "rope_local_base_freq", float)
    )
    if base != _ROPE_BASE:
        metadata["gemma3.rope.freq_base_swa"] = base
    return metadata


def _layer_types(layers: int, every: int) -> list[str]:
    """Each n-th layer sees all, the others a window."""
    return [
        "sliding_attention" if (i + 1) % every else "full_attention"
        for i in range(layers)
    ]


def _query_scalar(config: Config) -> int:
    """query_pre_attn_scalar as llama.cpp takes it: GGUF has no key for it."""
    if config["num_hidden_layers"] == _LAYERS_OF_27B:
        return int(config["hidden_size"]) // int(config["num_attention_heads"])
    return head_width(config)


def _rope(config: Config) -> tuple[float, dict[str, Any]]:
    """(base, scaling or {}), as Transformers 5 ('rope_parameters') or 4 wrote them."""
    given = config.get("rope_parameters") or {}
    given = given.get("full_attention", given)
    theta = _need(given if "rope_theta" in given else config, "rope_theta", float)
    scaling = dict(given or config.get("rope_scaling") or {})
    kind = scaling.setdefault("rope_type", scaling.pop("type", "default"))
    if kind not in ("default", "linear", "llama3"):
        raise _cannot("rope_type", kind, "'default', 'linear', 'llama3'")
    return theta, scaling if kind != "default" else {}


def _positive(header: Header, key: str, kind: type, *default: Any) -> Any:
    value = header.value(key, kind, *default)
    if not 0 < value < math.inf:
        raise InputError(f"{header.path}: metadata {key!r} is {value}; more than 0")
    return value


def _need(config: Config, key: str, kind: type) -> Any:
    """A number of config.json, as int or float."""
    value = config.get(key)
    if type(value) not in (int, kind):
        raise InputError(
            f"config.json has {key}={value!r:.60}; a GGUF needs a"
            f" {'whole number' if kind is int else 'number'} there"
        )
    return kind(value)


def _cannot(key: str, value: Any, allowed: str) -> InputError:
    return InputError(
        f"config.json has {key}={value!r:.60}; a GGUF can say only {allowed}: write"
        " safetensors instead"
    )
