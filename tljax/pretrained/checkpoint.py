"""A checkpoint of other people's: opened, not read; what it holds, tensor by tensor.

Whatever the file format, config and tensor names are those that Transformers writes, so
that a family needs one table. Readers make it; families and the tree's builder use it.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tljax.settings import InputError


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor that is told before it is read.

    Attributes:
      shape: as Transformers has it (a linear map's weight is [out, in]).
      stored: the type in the file, e.g. 'F32', 'BF16', 'Q4_1'.
      read: reads it from the file, anew at each call: float32, or bfloat16 or float16
        where the file holds those.
      told: its file and its name there, for messages (`tell`).
    """

    shape: tuple[int, ...]
    stored: str
    read: Callable[[], np.ndarray]
    told: str


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint.

    Attributes:
      where: file or folder, for messages.
      config: what config.json says or would say ('model_type', 'hidden_size' ...);
        'eos_token_id' is every token that ends a text: one id, or a list of several.
      tensors: name, e.g. 'model.layers.0.self_attn.q_proj.weight' -> Tensor.
      tokenizer_json: text of a tokenizer.json (HF tokenizers); None if there is none.
      tokenizer_config: what tokenizer_config.json says or would say: 'bos_token',
        'eos_token', 'pad_token' (strings), 'add_bos_token', 'chat_template'.
      sentence: how it makes sentence vectors, where it says so: 'pooling' (a kind of
        `heads.pool`), 'normalize' (bool), 'length' (most tokens).
    """

    where: str
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    tokenizer_json: str | None
    tokenizer_config: Mapping[str, Any]
    sentence: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def tell(file: Any, tensor: str) -> str:
    """'model.safetensors: tensor 'a.weight'', on one line and not without end."""
    return f"{file}: tensor {tensor!r:.80}"


def union_of_ends(*given: Any, where: str) -> int | list[int] | None:
    """All tokens that end a text, of those that several files tell.

    Args:
      given: an id, a list of ids, or None, a file each.
      where: file or folder, for messages.

    Returns:
      The ids in order, none twice; one alone as it is; None if there are none.

    Raises:
      InputError: something else was given.
    """
    ends: list[int] = []
    for one in given:
        ids = one if isinstance(one, list) else [] if one is None else [one]
        if not all(type(number) is int and number >= 0 for number in ids):
            raise InputError(
                f"{where}: eos_token_id is {one!r:.80}; it must be the id of a token,"
                " or a list of such"
            )
        ends += [number for number in ids if number not in ends]
    ends = list(dict.fromkeys(ends))
    return ends[0] if len(ends) == 1 else ends or None
