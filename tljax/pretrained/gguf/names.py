"""What GGUF calls the tensors of each architecture, and how it lays their values out.

'blk.3.attn_q.weight' <--table--> 'model.layers.3.self_attn.q_proj.weight'
llama's query and key rows are interleaved (pairs of a rotation side by side), Gemma's
norms have 1 added. Each function here stands beside its inverse.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tljax.settings import InputError, suggestion

ROPE_FACTORS = "rope_freqs.weight"

_OUTER = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_LINEAR = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
_HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_GEMMA_NORMS = {
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_QKV = ("attn_q", "attn_k", "attn_v")


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A kind of model that GGUF and Transformers both know.

    Attributes:
      name: general.architecture.
      model_type: Transformers'.
      layer: GGUF's name -> Transformers', within a layer.
      biases: GGUF's names, within a layer, that must have a bias; others may.
      interleaved: query and key rows are.
      norm_plus: what GGUF's norms have more than Transformers'.
    """

    name: str
    model_type: str
    layer: Mapping[str, str]
    biases: tuple[str, ...] = ()
    interleaved: bool = False
    norm_plus: float = 0.0


ARCHITECTURES = {
    one.name: one
    for one in (
        Architecture("llama", "llama", _LINEAR | _NORMS, interleaved=True),
        Architecture("qwen2", "qwen2", _LINEAR | _NORMS, biases=_QKV),
        Architecture("qwen3", "qwen3", _LINEAR | _NORMS | _HEAD_NORMS),
        Architecture(
            "gemma3", "gemma3_text", _LINEAR | _GEMMA_NORMS | _HEAD_NORMS, norm_plus=1.0
        ),
    )
}


def to_transformers(name: str, architecture: Architecture) -> str | None:
    """'blk.0.attn_q.bias' -> 'model.layers.0.self_attn.q_proj.bias'; None: unknown."""
    found = re.fullmatch(r"(?:blk\.(0|[1-9][0-9]{0,5})\.)?(\w+)\.(weight|bias)", name)
    if not found:
        return None
    layer, stem, kind = found.groups()
    table = _OUTER if layer is None else architecture.layer
    if stem not in table or (kind == "bias" and stem not in _LINEAR):
        return None
    prefix = "" if layer is None else f"model.layers.{layer}."
    return f"{prefix}{table[stem]}.{kind}"


def to_gguf(name: str, architecture: Architecture) -> str | None:
    """The inverse of `to_transformers`."""
    found = re.fullmatch(
        r"(?:model\.layers\.(0|[1-9][0-9]{0,5})\.)?(.+)\.(weight|bias)", name
    )
    if not found:
        return None
    layer, stem, kind = found.groups()
    table = _OUTER if layer is None else architecture.layer
    ours = next((gguf for gguf, theirs in table.items() if theirs == stem), None)
    if ours is None or (kind == "bias" and ours not in _LINEAR):
        return None
    return f"{ours}.{kind}" if layer is None else f"blk.{layer}.{ours}.{kind}"


def check_complete(
    names: Iterable[str], architecture: Architecture, layers: int, where: str
) -> None:
    """Holds GGUF's names against those that so many layers need.

    Raises:
      InputError: a tensor is missing, or of a layer that there should not be.
    """
    names = set(names)
    numbers = {int(name.split(".")[1]) for name in names if name.startswith("blk.")}
    if numbers != set(range(len(numbers))) or len(numbers) != layers:
        raise InputError(
            f"{where}: the config says {layers} layers, the tensors' names"
            f" {_span(numbers)}; a file of one part of a model is not enough"
        )
    wanted = ["token_embd.weight", "output_norm.weight"]
    for i in range(layers):
        wanted += [f"blk.{i}.{stem}.weight" for stem in architecture.layer]
        wanted += [f"blk.{i}.{stem}.bias" for stem in architecture.biases]
    missing = [name for name in wanted if name not in names]
    if missing:
        raise InputError(
            f"{where}: tensor {missing[0]!r} is missing"
            f"{f', and {len(missing) - 1} more' if missing[1:] else ''};"
            f" a {architecture.name} has it"
        )


def check_shapes(
    shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any], where: str
) -> None:
    """Holds tensors' shapes, by GGUF's names, against what a config.json asks for.

    Raises:
      InputError: one has another.
    """
    width, inner, head = (
        config[key] for key in ("hidden_size", "intermediate_size", "head_dim")
    )
    queries = config["num_attention_heads"] * head
    keys = config["num_key_value_heads"] * head
    wanted = {
        "token_embd": (config["vocab_size"], width),
        "output": (config["vocab_size"], width),
        "attn_q": (queries, width),
        "attn_k": (keys, width),
        "attn_v": (keys, width),
        "attn_output": (width, queries),
        "ffn_gate": (inner, width),
        "ffn_up": (inner, width),
        "ffn_down": (width, inner),
        **dict.fromkeys(_HEAD_NORMS, (head,)),
    }
    for name, shape in shapes.items():
        stem, kind = name.split(".")[-2:]
        needed = wanted.get(stem, (width,))  # the others are norms
        needed = needed[:1] if kind == "bias" else needed
        if tuple(shape) != needed:
            raise InputError(
                f"{where}: tensor {name!r} has shape {tuple(shape)}; by the config it"
                f" should have {needed}"
            )


def unknown_tensor(name: str, architecture: Architecture, where: str) -> InputError:
    """One line about a tensor that the architecture does not have."""
    return InputError(
        f"{where}: tensor {name!r} is none that a {architecture.name} has; only text"
        " models without experts or adapters are known here"
    )


def find_architecture(name: str, where: str, *, of: str = "name") -> Architecture:
    """The architecture of a name.

    Args:
      name: what the file or config says.
      where: for the message.
      of: 'name' or 'model_type', whose value it is.

    Raises:
      InputError: none of ours; the known ones are listed.
    """
    known = {getattr(one, of): one for one in ARCHITECTURES.values()}
    if name not in known:
        raise InputError(
            f"{where}: {'architecture' if of == 'name' else of} {name!r:.60} is none"
            f" that is known here{suggestion(name, known)}; known: {', '.join(known)}"
        )
    return known[name]


def heads_of(name: str, config: Mapping[str, int]) -> int:
    """Heads whose rows GGUF interleaves in this tensor; 0 = it has none of them."""
    found = re.fullmatch(r"blk\.\d+\.attn_([qk])\.(weight|bias)", name)
    if not found:
        return 0
    key = {"q": "num_attention_heads", "k": "num_key_value_heads"}[found[1]]
    return config[key]


def is_norm(name: str) -> bool:
    """Whether it is a norm's scale, by GGUF's name."""
    return name.endswith("norm.weight")


def interleave(values: np.ndarray, heads: int) -> np.ndarray:
    """Transformers' rows -> GGUF's, head by head: 0 1 2 | 3 4 5 -> 0 3 1 4 2 5.

    Args:
      values: [heads * E, ...], where row i of a head rotates with row i + E / 2.
      heads: how many.
    """
    halves = values.reshape(heads, 2, -1, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)


def deinterleave(values: np.ndarray, heads: int) -> np.ndarray:
    """GGUF's rows -> Transformers': 0 3 1 4 2 5 -> 0 1 2 | 3 4 5."""
    pairs = values.reshape(heads, -1, 2, *values.shape[1:])
    return pairs.swapaxes(1, 2).reshape(values.shape)


def _span(numbers: set[int]) -> str:
    """'0 to 3 with gaps', for a message."""
    if not numbers:
        return "none"
    gaps = " with gaps" if len(numbers) <= max(numbers) else ""
    return f"{min(numbers)} to {max(numbers)}{gaps}"
