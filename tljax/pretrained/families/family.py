"""What a family is: a table of names and two functions, with what tables are made of.

Place: our leaf -> their tensor, e.g. [in, out] kernel -> transposed [out, in] weight
What a config asks for and no layer can do is `Unsupported`, never bent.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tljax.settings import ModelSettings

Config = Mapping[str, Any]

LAYER = "layers/{i}"


class Unsupported(ValueError):
    """A config that asks for what no layer here can do."""


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
      settings: config.json -> fields of ModelSettings; where a key is missing, what
        Transformers' config class would take.
      config: ModelSettings -> config.json, without what all families share.
    """

    name: str
    architecture: str
    prefix: str
    names: Mapping[str, Place]
    ignored: tuple[str, ...]
    settings: Callable[[Config], dict[str, Any]]
    config: Callable[[ModelSettings], dict[str, Any]]


def linear(ours: str, theirs: str, *, transposed: bool = True) -> dict[str, Place]:
    """The places of a product's kernel and bias."""
    return {
        f"{ours}/kernel": Place(f"{theirs}.weight", transposed),
        f"{ours}/bias": Place(f"{theirs}.bias"),
    }


def norm(ours: str, theirs: str, *, plus: float = 0.0) -> dict[str, Place]:
    """The places of a norm's scale and bias."""
    return {
        f"{ours}/scale": Place(f"{theirs}.weight", plus=plus),
        f"{ours}/bias": Place(f"{theirs}.bias"),
    }


def only(config: Config, key: str, *allowed: Any, default: Any = None) -> None:
    """Refuses a key whose value is another than those that are implemented.

    Raises:
      Unsupported: it is; the line names those that are known.
    """
    value = config.get(key, default)
    if value not in allowed:
        raise Unsupported(
            f"config.json has {key}={value!r:.80}; known here:"
            f" {', '.join(map(repr, allowed))}"
        )


def number(config: Config, key: str, *default: float) -> float:
    """The number under a key, or the default; without one the key must be there.

    Raises:
      Unsupported: there is something else, or a number that is not above 0.
    """
    value = config.get(key, *default) if default else config[key]
    if type(value) not in (int, float) or not value > 0:
        raise Unsupported(
            f"config.json has {key}={value!r:.80}; it must be a number above 0"
        )
    return float(value)


def group(config: Config, key: str) -> Config:
    """The mapping under a key; empty where there is none, or null.

    Raises:
      Unsupported: there is something else.
    """
    value = config.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise Unsupported(f"config.json has {key}={value!r:.80}; it must be an object")
    return value
