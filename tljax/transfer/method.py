"""What moves and what stays: params -> (moving, frozen), and together again.

A method is an entry of METHODS: which weights of the model move, and what it adds.
    full    moving = all weights              frozen = {}
    lora    moving = {a, b} a matrix, head    frozen = the weights
The head always moves. Both parts have the places of the whole tree.
"""

import dataclasses
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax

from tljax.model.block import Adapter
from tljax.settings import METHOD_KEYS, InputError, ModelSettings, TransferSettings
from tljax.transfer import bottleneck, lora, prefixes, prompts, scaling, weights
from tljax.transfer.addition import Addition
from tljax.transfer.transplant import flat, nested


class Composed(NamedTuple):
    """What the model is applied with."""

    params: dict
    adapter: Adapter | None


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to fine-tune.

    Attributes:
      name: as config.transfer.method has it.
      paper: whose.
      meaning: what moves, in a line.
      trainable: how many numbers that is, the head's not counted.
      memory: beside the weights themselves.
      speed: of a training step.
      when: to use it.
      chosen: chosen(paths, settings) -> the weights of the model that move.
      addition: what it adds; None = nothing.
      example: keys beside the method that its example command sets.
    """

    name: str
    paper: str
    meaning: str
    trainable: str
    memory: str
    speed: str
    when: str
    chosen: Callable[[Collection[str], TransferSettings], set[str]]
    addition: Addition | None = None
    example: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of TransferSettings that it reads."""
        return METHOD_KEYS[self.name]

    @property
    def rests(self) -> bool:
        """Whether nothing of the model moves, and nothing is added."""
        return self.addition is None and self.chosen is weights.none

    @property
    def merges(self) -> bool:
        """Whether plain weights can compute what it computes."""
        return self.addition is None or self.addition.merged is not None


_SHARED = "gradient and two moments of what moves"
_FULL_SPEED = "the slowest: 6 FLOPs a weight and token"
_THROUGH = "about 2/3 of full: 4 FLOPs a weight and token, gradients pass through"
METHODS = {
    method.name: method
    for method in (
        Method(
            "full",
            "Howard & Ruder 2018 (ULMFiT), Devlin et al. 2019 (BERT)",
            "all weights; with frozen_layers, those above; with embeddings_fixed, all"
            " but the embedding",
            "all: V D + N (4 D² + 3 D F) or so",
            "3 more copies of the model for every member of a population",
            _FULL_SPEED,
            "a small model, or labels enough",
            weights.every,
            example=("embeddings_fixed=true",),
        ),
        Method(
            "head",
            "Alain & Bengio 2016 (linear probes)",
            "nothing of the model",
            "none",
            "next to none: the model's output is computed once for every text",
            "the fastest: a product with the head",
            "very few labels, or to see what the model knows already",
            weights.none,
        ),
        Method(
            "bitfit",
            "Ben-Zaken et al. 2022 (BitFit)",
            "the biases of products and norms",
            "up to N (7 D + 2 F) + D",
            "next to none",
            _THROUGH,
            "few labels and a model with biases (BERT, GPT-2)",
            weights.biases,
        ),
        Method(
            "norms",
            "Zhao et al. 2024 (LN-tuning), Qi et al. 2022",
            "scales and biases of the norms",
            "2 N D + D; twice that with LayerNorm",
            "next to none",
            _THROUGH,
            "few labels and a model without biases",
            weights.norms,
        ),
        Method(
            "rule",
            "Lee et al. 2023 (surgical fine-tuning)",
            "the weights whose paths match targets",
            "those weights",
            _SHARED,
            "between full and bitfit",
            "a question about a part of the model",
            weights.matching,
            example=(r"targets=layers/\d+/attention/.*",),
        ),
        Method(
            "lora",
            "Hu et al. 2021 (LoRA); Kalajdzievski 2023 (rsLoRA)",
            "a low-rank addition to every chosen matrix",
            "R (D + F) a matrix of D inputs and F outputs",
            _SHARED,
            _THROUGH + ", and 2 thin products a matrix",
            "a deep model and some hundred labels; the first to try",
            weights.none,
            lora.LORA,
            ("rank=8", "frozen_layers=1"),
        ),
        Method(
            "dora",
            "Liu et al. 2024 (DoRA)",
            "as lora, with the length of every column apart from its direction",
            "R (D + F) + F a matrix of D inputs and F outputs",
            _SHARED,
            "somewhat slower than lora: lengths are computed every step",
            "where lora of a small rank stays behind full",
            weights.none,
            lora.DORA,
            ("rank=8",),
        ),
        Method(
            "bottleneck",
            "Houlsby et al. 2019 (adapters); He et al. 2022 (parallel)",
            "a small network at the output of every branch, and the norms",
            "2 N (2 D R + R + D), R = width, and the norms",
            _SHARED,
            _THROUGH + ", and 2 thin products a branch",
            "comparisons with the literature; cannot be merged, so only `tljax predict`"
            " and `tljax evaluate` use its run",
            weights.norms_if_any,
            bottleneck.BOTTLENECK,
            ("width=64", "placement=parallel"),
        ),
        Method(
            "ia3",
            "Liu et al. 2022 ((IA)³)",
            "scales on keys, values and inner feed-forward activations",
            "N (2 K + F), K = outputs of the key product",
            "next to none",
            _THROUGH + ", and once more the product with down",
            "very few labels, or very many members of a population",
            weights.none,
            scaling.IA3,
        ),
        Method(
            "prompt",
            "Lester et al. 2021 (prompt tuning)",
            "learned vectors before every text",
            "P D, P = prompt_length",
            "next to none, but every text is P tokens longer",
            _THROUGH + ", for P tokens more a text",
            "a large model, many steps and a high learning rate; cannot be merged, so"
            " only `tljax predict` and `tljax evaluate` use its run",
            weights.none,
            prompts.PROMPT,
            ("prompt_length=20",),
        ),
        Method(
            "prefix",
            "Li & Liang 2021 (prefix tuning), He et al. 2022",
            "learned keys and values before those of every attention",
            "2 P K N, P = prefix_length, K = outputs of the key product",
            _SHARED,
            _THROUGH + ", and P more keys for every token",
            "as prompt, where texts have no tokens to spare: more to learn with, and a"
            " high learning rate; cannot be merged, so only `tljax predict` and `tljax"
            " evaluate` use its run",
            weights.none,
            prefixes.PREFIX,
            ("prefix_length=20",),
        ),
    )
}


def split(
    params: Mapping[str, Any], settings: TransferSettings, key: jax.Array
) -> tuple[dict, dict]:
    """Divides a tree, and adds what the method adds to it.

    Args:
      params: the whole tree, head included.
      settings: of the method.
      key: of what it adds.

    Returns:
      (moving, frozen); composed, they compute what params computes.

    Raises:
      InputError: more frozen layers than there are, or nothing that the method could
        move: a pattern that matches nothing, a rank above the sides of the matrices.
    """
    depth = len(params["layers"])
    if settings.frozen_layers > depth:
        raise InputError(
            f"config.transfer.frozen_layers={settings.frozen_layers}, but the model has"
            f" {depth} layers"
        )
    method, leaves = METHODS[settings.method], flat(params)
    heads = {path for path in leaves if path.startswith("head/")}
    above = {
        path: leaf
        for path, leaf in leaves.items()
        if path not in heads and not _lies_below(path, settings)
    }
    moves = heads | method.chosen(above.keys(), settings)
    moving = {path: leaf for path, leaf in leaves.items() if path in moves}
    frozen = {path: leaf for path, leaf in leaves.items() if path not in moves}
    if method.addition:
        moving |= method.addition.first(above, settings, key)
    return nested(moving), nested(frozen)


def compose(
    moving: Mapping[str, Any],
    frozen: Mapping[str, Any],
    settings: TransferSettings,
    dropout_key: jax.Array | None = None,
    hparams: Mapping[str, Any] | None = None,
) -> Composed:
    """The tree and the adapter that the model is applied with.

    What hparams has of the adapter's numbers (`lora.hyperparameters`) takes the place
    of those in the settings.
    """
    addition = METHODS[settings.method].addition
    settings = lora.traced(settings, hparams or {})
    own, whole = _parts(moving, frozen, addition)
    adapter = addition.hook(own, whole, settings, dropout_key) if own else None
    return Composed(nested(whole), adapter)


def merge(
    moving: Mapping[str, Any], frozen: Mapping[str, Any], settings: TransferSettings
) -> dict:
    """One plain tree that computes the same without an adapter, e.g. for export.

    Raises:
      InputError: there is none, since the method adds what no weights of the model do.
    """
    method = METHODS[settings.method]
    own, whole = _parts(moving, frozen, method.addition)
    if not method.merges:
        raise InputError(
            f"config.transfer.method={method.name!r} adds to the model what its own"
            " weights cannot compute, so nothing can be merged; `tljax predict` and"
            " `tljax evaluate` use such a run as it is"
        )
    changed = method.addition.merged(own, whole, settings) if own else {}
    return nested({**whole, **changed})


def untouched_layers(model: ModelSettings, settings: TransferSettings) -> int:
    """Layers, from the bottom, through which no gradient is wanted."""
    rests = METHODS[settings.method].rests
    return model.depth if rests else settings.frozen_layers


def prompt_places(settings: TransferSettings) -> int:
    """Tokens before every text that the method puts its own vectors in the place of."""
    addition = METHODS[settings.method].addition
    return addition.room(settings) if addition and addition.room else 0


def _parts(moving, frozen, addition: Addition | None) -> tuple[dict, dict]:
    """(the method's own leaves, all weights of the model), by path."""
    names = addition.names if addition else ()
    leaves = flat(moving)
    own = {
        path: leaf for path, leaf in leaves.items() if path.rpartition("/")[2] in names
    }
    whole = {path: leaf for path, leaf in leaves.items() if path not in own}
    return own, {**flat(frozen), **whole}


def _lies_below(path: str, settings: TransferSettings) -> bool:
    """Whether a leaf belongs to the frozen bottom."""
    if not settings.frozen_layers:
        return False
    if path.startswith("embedding"):
        return True
    layer = re.match(r"layers/(\d+)/", path)
    return bool(layer) and int(layer.group(1)) < settings.frozen_layers
