"""What can be set, as frozen dataclasses, and the one border that a config crosses.

ConfigDict --from_config()--> Settings (every key known, present, typed, in range).
Never defaults a learning rate, a seed or a number of steps: configs/ holds decisions.
Each field's `help` is what `tljax train --help` and `--print_config` print. A field
with a default is one that only other people's models need; it may be left out.
"""

import dataclasses
import difflib
import math
import pathlib
import re
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

LARGEST = 2**31 - 1  # of a whole number that names no high: JAX counts in 32 bits
LONGEST = 2**20  # tokens of a row
LAST_SEED = 2**32 - 1  # JAX takes 32 bits: larger seeds would repeat smaller ones


class InputError(ValueError):
    """What the user gave cannot be used: one line, shown without traceback, exit 2."""


def suggestion(name: str, allowed: Iterable[str]) -> str:
    """Returns '; did you mean 'X'?' of the nearest allowed name, '' if none is near."""
    near = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def setting(
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple | None = None,
    default: Any = dataclasses.MISSING,
) -> Any:
    """A dataclass field with its meaning, range (inclusive) or allowed values.

    With a default, which must mean 'off', a config may leave the key out.
    """
    return dataclasses.field(
        default=default,
        metadata={"help": help, "low": low, "high": high, "choices": choices},
    )


@dataclasses.dataclass(frozen=True)
class CorpusSettings:
    """Unlabelled text for next-word prediction."""

    source: str = setting("URI of the text: pkg:, tfds:, text:, jsonl: or csv:")
    length: int = setting("tokens of one packed row", low=8, high=LONGEST)
    heldout_split: str = setting(
        "split scored for bits per byte at the end", choices=("validation", "test")
    )
    heldout_documents: int = setting(
        "documents of heldout_split that are scored; 0 = all", low=0
    )


@dataclasses.dataclass(frozen=True)
class TokenizerSettings:
    """The byte-level BPE vocabulary."""

    source: str = setting(
        "run folder or URI whose tokenizer is taken; '' = init.source's, else train one"
    )
    vocab_size: int = setting("tokens of a tokenizer that is trained", low=258)
    normalization: str = setting(
        "text as the tokenizer sees it: 'none', 'lower', or 'lower_joined' (lower case,"
        " no space before .,!? so that spaced and plain punctuation agree)",
        choices=("none", "lower", "lower_joined"),
    )


@dataclasses.dataclass(frozen=True)
class TaskSettings:
    """A labelled set and the part of it that a run may learn from."""

    source: str = setting("URI of the labelled set, e.g. csv:a.csv?text=review&label=y")
    n: int = setting("labelled training items, balanced and nested; 0 = all", low=0)
    length: int = setting(
        "tokens of one packed row; longer items are cut", low=8, high=LONGEST
    )
    validation_items: int = setting("validation items scored; 0 = all", low=0)
    score_test: bool = setting("predict the test split once, at the end")
    others: tuple[str, ...] = setting(
        "URIs of sets with the same classes, e.g. of another domain, whose test splits"
        " are predicted too",
        default=(),
    )

    @property
    def named_others(self) -> dict[str, str]:
        """{'product_reviews': 'pkg:product_reviews'}: what predictions/ calls them."""
        places = {uri: uri.partition(":")[2].partition("?")[0] for uri in self.others}
        return {pathlib.PurePath(place).stem: uri for uri, place in places.items()}

    def check(self, where: str) -> None:
        """Refuses other sets that are not predicted, or whose names collide."""
        if self.others and not self.score_test:
            raise InputError(
                f"{where}.others is predicted where {where}.score_test is true only;"
                " set that, or leave it out"
            )
        names = list(self.named_others)
        if len(names) < len(self.others) or {"", "train", "validation", "test"} & set(
            names
        ):
            raise InputError(
                f"{where}.others are named {', '.join(names)} by their URIs; they need"
                " names of their own, not those of splits: rename a file"
            )


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """A Transformer; the keys with defaults tell other people's models from ours."""

    width: int = setting("residual stream, D", low=8)
    depth: int = setting("layers, N", low=1, high=1000)
    heads: int = setting("query heads, H", low=1)
    kv_heads: int = setting("key/value heads (GQA); divides heads", low=1)
    mlp: str = setting(
        "feed-forward kind: gated by SiLU or GELU, or plain; gelu and geglu take the"
        " tanh form, gelu_exact the error function",
        choices=("swiglu", "geglu", "gelu", "gelu_exact", "relu2"),
    )
    mlp_width: int = setting("inner width, F", low=8)
    qk_norm: bool = setting("RMSNorm queries and keys per head")
    bias: str = setting(
        "linear maps with a bias", choices=("none", "qkv", "attention", "mlp", "all")
    )
    tied: bool = setting("output matrix = token embedding")
    causal: bool = setting("a position sees only itself and what comes before")
    rope_base: float = setting("base of the rotary angles", low=1.0)
    dropout: float = setting("share of each block's output dropped", low=0.0, high=0.9)
    scan_layers: bool = setting(
        "lax.scan over layers (compiles fast) or unrolled; layers whose windows differ"
        " are always unrolled"
    )
    dtype: str = setting(
        "of products; 'auto' = bfloat16 where the device multiplies it faster; for"
        " decoding, where it multiplies it at all",
        choices=("auto", "float32", "bfloat16"),
    )
    head_width: int = setting("width of a head, E; 0 = width / heads", low=0, default=0)
    norm: str = setting("RMSNorm or LayerNorm", choices=("rms", "layer"), default="rms")
    norm_place: str = setting(
        "before a branch, after its sum with the stream (BERT), or on both sides of"
        " the branch (Gemma 3)",
        choices=("before", "after", "both"),
        default="before",
    )
    norm_epsilon: float = setting("added to the variance", low=0.0, default=1e-6)
    positions: str = setting(
        "how positions enter", choices=("rotary", "learned"), default="rotary"
    )
    context: int = setting(
        "longest segment; 0 = any (learned positions need one)", low=0, default=0
    )
    rope_local_base: float = setting(
        "rope_base of layers with a window, unscaled; 0 = as the others",
        low=0.0,
        default=0.0,
    )
    rope_scaling: str = setting(
        "how angles are slowed for longer contexts",
        choices=("none", "linear", "llama3"),
        default="none",
    )
    rope_factor: float = setting("angles are slowed by this", low=1.0, default=1.0)
    rope_low_factor: float = setting(
        "llama3: waves longer than rope_context / this are slowed", low=0.0, default=1.0
    )
    rope_high_factor: float = setting(
        "llama3: waves shorter than rope_context / this are not", low=0.0, default=4.0
    )
    rope_context: int = setting(
        "llama3: context before the scaling", low=1, default=8192
    )
    windows: tuple[int, ...] = setting(
        "of each layer, how many positions it sees, itself counted; 0 = all; () = all"
        " in every layer",
        low=0,
        default=(),
    )
    attention_scale: float = setting(
        "of the scores; 0 = 1 / sqrt(head width)", low=0.0, default=0.0
    )
    embedding_scale: float = setting("of the embedding", low=0.0, default=1.0)
    embedding_norm: bool = setting("a norm on the embedding", default=False)
    token_types: int = setting("rows of a token-type embedding", low=0, default=0)
    flash: bool = setting(
        "cuDNN's flash attention where the device, dtype and sizes allow it",
        default=True,
    )
    remat: str = setting(
        "what the backward pass computes again to save memory: none; all but the"
        " products of matrices with weights; or each whole layer",
        choices=("none", "products", "layer"),
        default="none",
    )


@dataclasses.dataclass(frozen=True)
class OptimSettings:
    """Optimizer, schedule and batch."""

    name: str = setting(
        "'adamw', or 'muon' (inner matrices by Muon, the rest by AdamW)",
        choices=("adamw", "muon"),
    )
    lr_peak: float = setting("peak learning rate of AdamW's parameters", low=0.0)
    lr_muon: float = setting("peak learning rate of Muon's matrices", low=0.0)
    weight_decay: float = setting("decoupled, on matrices only", low=0.0)
    b1: float = setting("AdamW first moment", low=0.0, high=0.9999)
    b2: float = setting("AdamW second moment", low=0.0, high=0.99999)
    clip_norm: float = setting("global gradient norm; 0 = off", low=0.0)
    warmup: float = setting("share of steps that ramp up", low=0.0, high=1.0)
    cooldown: float = setting(
        "share of steps, at the end, that ramp linearly to zero", low=0.0, high=1.0
    )
    layer_decay: float = setting(
        "learning rate of a layer = next layer's x this (ULMFiT 1/2.6); 1 = off",
        low=0.01,
        high=1.0,
    )
    batch: int = setting("pre-training: rows a step; fine-tuning: items a step", low=1)
    schedule: str = setting(
        "rate after the warm-up: flat, then down (trapezoid); half a cosine to zero; or"
        " a line to 1/32 (slanted, ULMFiT)",
        choices=("trapezoid", "cosine", "slanted"),
        default="trapezoid",
    )
    bias_correction: bool = setting(
        "AdamW's moments corrected for their start at zero; False = BERTAdam",
        default=True,
    )
    lora_plus: float = setting(
        "lora, dora: rate of the b matrices = that of the a matrices x this (LoRA+);"
        " 1 = off",
        low=0.01,
        default=1.0,
    )
    unfreeze: str = setting(
        "which layers move when, in equal shares of the steps: all always; gradual: the"
        " head, then one more layer from the top each time; chain: the head, then each"
        " layer alone from the bottom up, then all",
        choices=("none", "gradual", "chain"),
        default="none",
    )

    def check(self, where: str) -> None:
        """Refuses a rate that stays zero, and a cooldown that is not read."""
        if self.name == "muon" and not self.lr_muon:
            raise InputError(
                f"{where}.name='muon' moves the layers' matrices at {where}.lr_muon,"
                " which is 0: set it, e.g. to 0.02"
            )
        if self.schedule != "trapezoid" and self.cooldown:
            raise InputError(
                f"{where}.cooldown={self.cooldown} is read by"
                f" {where}.schedule='trapezoid' only; the schedule is"
                f" {self.schedule!r}: set the cooldown to 0"
            )


@dataclasses.dataclass(frozen=True)
class MeshSettings:
    """Devices per mesh axis; their product is the number of devices used."""

    run: int = setting("members of a population in parallel; a CPU: cores", low=1)
    data: int = setting("batch rows in parallel", low=1)
    fsdp: int = setting("batch rows in parallel, parameters sharded", low=1)
    tensor: int = setting("heads and inner width in parallel", low=1)


@dataclasses.dataclass(frozen=True)
class InitSettings:
    """Where the first weights come from."""

    source: str = setting(
        "run folder, or URI of a checkpoint (hf:DIR, gguf:FILE, pkg:NAME), to start"
        " from; '' = scratch"
    )
    reinit_layers: int = setting(
        "layers, from the top, that are drawn anew, the final norm with them",
        low=0,
        default=0,
    )


# What each way to fine-tune reads of TransferSettings; what it is: transfer/method.py
_LOW_RANK_KEYS = ("frozen_layers", "rank", "alpha", "scaling", "targets", "dropout")
METHOD_KEYS: dict[str, tuple[str, ...]] = {
    "full": ("frozen_layers", "embeddings_fixed"),
    "head": (),
    "bitfit": ("frozen_layers",),
    "norms": ("frozen_layers",),
    "rule": ("frozen_layers", "targets"),
    "lora": _LOW_RANK_KEYS,
    "dora": _LOW_RANK_KEYS,
    "bottleneck": ("frozen_layers", "width", "placement"),
    "ia3": ("frozen_layers",),
    "prompt": ("prompt_length",),
    "prefix": ("frozen_layers", "prefix_length"),
}
WEIGHT_METHODS = ("full", "bitfit", "norms", "rule")  # move weights of the model alone


@dataclasses.dataclass(frozen=True)
class TransferSettings:
    """What of a pre-trained model moves when it is fine-tuned; left out: all of it."""

    method: str = setting(
        "what moves beside the head: `tljax methods list` tells what each one is",
        choices=tuple(METHOD_KEYS),
        default="full",
    )
    frozen_layers: int = setting(
        "layers, from the bottom, that stay as they are, the embedding with them; their"
        " output is computed once for every text",
        low=0,
        default=0,
    )
    rank: int = setting("lora, dora: R", low=1, default=8)
    alpha: float = setting(
        "lora, dora: the addition is scaled by alpha / R", default=16.0
    )
    scaling: str = setting(
        "lora, dora: by alpha / R, or alpha / sqrt(R) (rsLoRA)",
        choices=("standard", "rank_stabilized"),
        default="standard",
    )
    targets: str = setting(
        "lora, dora: which matrices, a pattern on paths such as"
        " layers/0/attention/query; rule: which weights, on paths such as"
        " layers/0/attention/query/kernel",
        default=r"layers/\d+/(attention|mlp)/\w+",
    )
    dropout: float = setting(
        "lora, dora: share of the addition's inputs dropped",
        low=0.0,
        high=0.9,
        default=0.0,
    )
    embeddings_fixed: bool = setting("full: the embedding stays", default=False)
    width: int = setting("bottleneck: R, its inner width", low=1, default=64)
    placement: str = setting(
        "bottleneck: behind a branch, or beside it",
        choices=("serial", "parallel"),
        default="serial",
    )
    prompt_length: int = setting(
        "prompt: learned vectors before every text; they count as tokens of its length",
        low=1,
        default=20,
    )
    prefix_length: int = setting(
        "prefix: learned keys and values before those of every attention",
        low=1,
        default=20,
    )

    def check(self, where: str) -> None:
        """Refuses keys that the method does not read, and what contradicts itself."""
        for field in dataclasses.fields(self)[1:]:
            value, name = getattr(self, field.name), field.name
            if value != field.default and name not in METHOD_KEYS[self.method]:
                readers = [
                    repr(one) for one, keys in METHOD_KEYS.items() if name in keys
                ]
                raise InputError(
                    f"{where}.{name}={value!r} is not read with"
                    f" {where}.method={self.method!r}, only with {', '.join(readers)};"
                    " leave it out or take another method"
                )
        if self.embeddings_fixed and self.frozen_layers:
            raise InputError(
                f"{where}.embeddings_fixed says nothing where"
                f" {where}.frozen_layers={self.frozen_layers}: the embedding stays with"
                " them; leave it out"
            )
        try:
            re.compile(self.targets)
        except re.error as error:
            raise InputError(
                f"{where}.targets={self.targets!r} is no regular expression: {error}"
            ) from error


@dataclasses.dataclass(frozen=True)
class RegularizeSettings:
    """What keeps fine-tuning from learning its few labels by heart; all off."""

    label_smoothing: float = setting(
        "share of a label spread over all classes", low=0.0, high=0.5, default=0.0
    )
    l2_start: float = setting(
        "decoupled pull of the weights to where they began, of the head to zero (L2-SP;"
        " optim.weight_decay acts beside it)",
        low=0.0,
        default=0.0,
    )
    mixout: float = setting(
        "share of the layers' weights that stand where they began, drawn every step",
        low=0.0,
        high=0.9,
        default=0.0,
    )
    rdrop: float = setting(
        "R-Drop's alpha: two passes of other dropout must agree", low=0.0, default=0.0
    )
    neftune: float = setting(
        "NEFTune's alpha: uniform noise on the embedding; 5 to 15", low=0.0, default=0.0
    )
    lm_weight: float = setting(
        "of the next-word loss on the labelled texts; GPT-1 took 0.5",
        low=0.0,
        default=0.0,
    )
    ema: float = setting(
        "decay, a step, of the average of parameters that is validated and kept",
        low=0.0,
        high=0.99999,
        default=0.0,
    )
    replay: float = setting(
        "of the next-word loss on other text (replay_source)", low=0.0, default=0.0
    )
    replay_every: int = setting("steps between two replays", low=1, default=1)
    replay_source: str = setting(
        "URI of the text of replay and ewc, e.g. what the model was pre-trained on",
        default="",
    )
    ewc: float = setting(
        "pull of the weights to where they began, as strong as each matters for the"
        " words of replay_source (EWC's lambda)",
        low=0.0,
        default=0.0,
    )
    wise: float = setting(
        "at the end weights = (1 - this) x first + this x fine-tuned (WiSE-FT)",
        low=0.0,
        high=1.0,
        default=1.0,
    )

    def check(self, where: str) -> None:
        """Refuses to throw away what was learned, and half a replay."""
        if self.wise == 0:
            raise InputError(
                f"{where}.wise is 0, which gives back the first weights; it must be"
                " above 0 (1 = off)"
            )
        for name in ("replay", "ewc"):
            if getattr(self, name) and not self.replay_source:
                raise InputError(
                    f"{where}.{name}={getattr(self, name)} needs {where}.replay_source,"
                    " the URI of a text"
                )
        if self.replay_source and not (self.replay or self.ewc):
            raise InputError(
                f"{where}.replay_source={self.replay_source!r} is read where"
                f" {where}.replay or {where}.ewc is above 0 only; set one of them"
            )
        if self.replay_every != 1 and not self.replay:
            raise InputError(
                f"{where}.replay_every={self.replay_every} is read where"
                f" {where}.replay is above 0 only; set that, or leave it out"
            )


UNREGULARIZED = RegularizeSettings()


@dataclasses.dataclass(frozen=True)
class HeadSettings:
    """How token states become one classification."""

    pooling: str = setting(
        "token states to one vector; cls = the first token's",
        choices=("mean", "last", "cls", "max"),
    )
    start: str = setting(
        "what the head begins as: small random weights, or the ridge probe on the"
        " features of the labelled items (LP-FT)",
        choices=("random", "probe"),
        default="random",
    )


@dataclasses.dataclass(frozen=True)
class SeedSettings:
    """One seed a source of chance; left out (-1), it is the run's `seed`."""

    subset: int = setting(
        "which items are labelled; -1 = seed", low=-1, high=LAST_SEED, default=-1
    )
    init: int = setting(
        "head (and scratch, and adapter) weights; -1 = seed",
        low=-1,
        high=LAST_SEED,
        default=-1,
    )
    order: int = setting(
        "data order, and what a step draws, as dropout does; -1 = seed",
        low=-1,
        high=LAST_SEED,
        default=-1,
    )

    def of_run(self, seed: int) -> "SeedSettings":
        """All three spelt out, where `seed` stands for those left out."""
        given = dataclasses.asdict(self).items()
        return SeedSettings(**{k: seed if one == -1 else one for k, one in given})


@dataclasses.dataclass(frozen=True)
class RecordSettings:
    """How often a run looks at itself and what it keeps."""

    rounds: int = setting("records of the training loss, evenly spaced", low=1)
    validations: int = setting("validations, evenly spaced over the rounds", low=0)
    checkpoint_seconds: float = setting("seconds between two checkpoints", low=0.0)
    checkpoints_kept: int = setting("last checkpoints kept", low=1)
    choose: str = setting(
        "parameters that a run ends with: its last, or those of its best validation",
        choices=("last", "best"),
    )
    patience: int = setting(
        "validations in a row without a better loss after which a run ends; 0 = off",
        low=0,
        default=0,
    )

    def check(self, where: str) -> None:
        """Refuses to choose, or to end, by validations that are never made."""
        made = min(self.validations, self.rounds)
        if self.patience and self.patience >= made - 1:
            raise InputError(
                f"{where}.patience={self.patience} never ends a run of {made}"
                f" validations early; raise {where}.validations and {where}.rounds to"
                f" {self.patience + 2} or more"
            )
        if self.choose == "best" and not self.validations:
            raise InputError(
                f"{where}.choose='best' needs {where}.validations of at least 1, or"
                f" take {where}.choose='last'"
            )


@dataclasses.dataclass(frozen=True)
class PretrainSettings:
    """One pre-training run (kind = 'pretrain')."""

    kind: str = setting("what this run is", choices=("pretrain",))
    seed: int = setting("initial weights and data order", low=0, high=LAST_SEED)
    steps: int = setting("optimizer steps", low=1)
    init: InitSettings
    corpus: CorpusSettings
    tokenizer: TokenizerSettings
    model: ModelSettings
    optim: OptimSettings
    mesh: MeshSettings
    record: RecordSettings


@dataclasses.dataclass(frozen=True)
class FinetuneSettings:
    """One fine-tuning run (kind = 'finetune')."""

    kind: str = setting("what this run is", choices=("finetune",))
    seed: int = setting(
        "subset, head (and scratch) weights, data order", low=0, high=LAST_SEED
    )
    epochs: float = setting("passes over the n labelled items", low=0.0)
    init: InitSettings
    task: TaskSettings
    tokenizer: TokenizerSettings
    head: HeadSettings
    model: ModelSettings
    optim: OptimSettings
    mesh: MeshSettings
    record: RecordSettings
    transfer: TransferSettings = TransferSettings()
    regularize: RegularizeSettings = UNREGULARIZED
    seeds: SeedSettings = SeedSettings()

    @property
    def streams(self) -> SeedSettings:
        """The seed of each source of chance."""
        return self.seeds.of_run(self.seed)


SETTINGS_OF_KIND = {"pretrain": PretrainSettings, "finetune": FinetuneSettings}


def from_config(kind: type, config: Mapping[str, Any], where: str = "config") -> Any:
    """Builds settings of type `kind` from a ConfigDict, dict or JSON object.

    Args:
      kind: a settings dataclass.
      config: mapping with exactly the dataclass's fields, nested likewise.
      where: prefix for messages, e.g. "config.optim".

    Raises:
      InputError: unknown or missing key, wrong type, value out of range.
    """
    _check_group(config, where)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for key in config:
        if key not in fields:
            raise InputError(
                f"{where}.{key} is not a setting{suggestion(str(key), fields)};"
                f" allowed: {', '.join(fields)}"
            )
    types_of = typing.get_type_hints(kind)
    values = {}
    for name, field in fields.items():
        if name not in config:
            if field.default is dataclasses.MISSING:
                raise InputError(f"{where}.{name} is missing: {_help(field)}")
            continue
        values[name] = _value(types_of[name], config[name], field, f"{where}.{name}")
    built = kind(**values)
    if hasattr(built, "check"):
        built.check(where)
    return built


def check_value(kind: type, key: str, value: Any) -> None:
    """Refuses what the setting a.b of a kind can never be, whatever the others are.

    Raises:
      InputError: wrong type, value out of range.
    """
    *groups, name = key.split(".")
    for group in groups:
        kind = typing.get_type_hints(kind)[group]
        if not dataclasses.is_dataclass(kind):  # names of the user's own
            return
    field = next(one for one in dataclasses.fields(kind) if one.name == name)
    _value(typing.get_type_hints(kind)[name], value, field, f"config.{key}")


def _check_group(value: Any, where: str) -> None:
    if not hasattr(value, "items"):  # a ConfigDict is no Mapping
        raise InputError(f"{where} is {value!r:.40}; it must be a group of settings")


def _help(field: dataclasses.Field) -> str:
    return field.metadata.get("help", "a group of settings")


def _value(wanted: Any, value: Any, field: dataclasses.Field, where: str) -> Any:
    """One value, converted only where nothing is lost (int -> float, list -> tuple)."""
    if dataclasses.is_dataclass(wanted):
        return from_config(wanted, value, where)
    origin = typing.get_origin(wanted)
    if origin is tuple:
        item = typing.get_args(wanted)[0]
        if not isinstance(value, list | tuple):
            raise InputError(f"{where} is {value!r}; it must be a list")
        return tuple(
            _value(item, v, field, f"{where}[{i}]") for i, v in enumerate(value)
        )
    if origin in (dict, types.MappingProxyType, Mapping):
        _check_group(value, where)
        item = typing.get_args(wanted)[1]
        return {k: _value(item, v, field, f"{where}.{k}") for k, v in value.items()}
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not wanted:
        raise InputError(f"{where} is {value!r}; it must be of type {wanted.__name__}")
    low, high = field.metadata.get("low"), field.metadata.get("high")
    if wanted is int and high is None and value > LARGEST:
        raise InputError(f"{where} is {value!r:.40}; it must be at most {LARGEST}")
    choices = field.metadata.get("choices")
    if choices and value not in choices:
        raise InputError(
            f"{where} is {value!r}; allowed: {', '.join(map(repr, choices))}"
            f"{suggestion(str(value), map(str, choices))}"
        )
    if wanted is float and not math.isfinite(value):
        raise InputError(f"{where} is {value!r}; it must be a finite number")
    if (low is not None and value < low) or (high is not None and value > high):
        bounds = f"at least {low}" if high is None else f"in [{low}, {high}]"
        raise InputError(f"{where} is {value!r}; it must be {bounds}")
    return value


def to_dict(settings: Any) -> dict[str, Any]:
    """The settings as plain nested dicts: what config.json holds.

    A key that is at its default is left out: written or not, it means the same.
    """
    if not dataclasses.is_dataclass(settings):
        return _plain(settings)
    return {
        field.name: to_dict(value)
        for field in dataclasses.fields(settings)
        if (value := getattr(settings, field.name)) != field.default
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: to_dict(one) for key, one in value.items()}
    if isinstance(value, tuple):
        return tuple(to_dict(one) for one in value)
    return value


def describe(kind: type, prefix: str = "config") -> list[tuple[str, str, str]]:
    """Returns (key, type, meaning) of every leaf setting, in order."""
    rows = []
    types_of = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        wanted, key = types_of[field.name], f"{prefix}.{field.name}"
        if dataclasses.is_dataclass(wanted):
            rows += describe(wanted, key)
        else:
            rows.append((key, getattr(wanted, "__name__", str(wanted)), _help(field)))
    return rows
