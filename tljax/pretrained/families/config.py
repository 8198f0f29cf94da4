"""config.json <-> ModelSettings, by the table of the family that it names.

model_type -> FAMILIES -> settings;  settings -> the first family that reads them back
A value that cannot be is refused in one line; nothing is guessed.
"""

import dataclasses
import re
from typing import Any

from tljax.model import attention, transformer
from tljax.pretrained.families import bert, decoders, gemma3, gpt2
from tljax.pretrained.families.family import Config, Family, Unsupported
from tljax.settings import InputError, ModelSettings, from_config, suggestion

FAMILIES = {
    family.name: family
    for family in (
        decoders.LLAMA,
        decoders.MISTRAL,
        decoders.QWEN2,
        decoders.QWEN3,
        gemma3.GEMMA3,
        gpt2.GPT2,
        bert.BERT,
    )
}
# our setting -> config.json's keys for it, whatever the family
_KEYS = {
    "width": ("hidden_size", "n_embd"),
    "depth": ("num_hidden_layers", "n_layer"),
    "heads": ("num_attention_heads", "n_head"),
    "kv_heads": ("num_key_value_heads",),
    "head_width": ("head_dim",),
    "mlp_width": ("intermediate_size", "n_inner"),
    "tied": ("tie_word_embeddings",),
    "norm_epsilon": ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon"),
    "context": ("max_position_embeddings", "n_positions"),
    "token_types": ("type_vocab_size",),
    "windows": ("layer_types", "sliding_window"),
    "rope_base": ("rope_theta",),
    "rope_local_base": ("rope_local_base_freq",),
    "rope_factor": ("factor",),
    "rope_low_factor": ("low_freq_factor",),
    "rope_high_factor": ("high_freq_factor",),
    "rope_context": ("original_max_position_embeddings",),
}
_LARGEST = 2**24
# config.json's sizes: range, and whether null will do; held against it before anything
# of that size is built
_SIZES = {
    **dict.fromkeys((*_KEYS["width"], *_KEYS["heads"]), (1, _LARGEST, False)),
    **dict.fromkeys((*_KEYS["kv_heads"], *_KEYS["head_width"]), (1, _LARGEST, True)),
    **dict.fromkeys(_KEYS["mlp_width"], (1, _LARGEST, True)),
    **dict.fromkeys(_KEYS["depth"], (1, 1000, False)),
    **dict.fromkeys(_KEYS["context"], (1, 2**30, False)),
    "type_vocab_size": (0, _LARGEST, False),
    "sliding_window": (0, 2**30, True),
    "sliding_window_pattern": (1, 2**30, True),
    "max_window_layers": (0, 2**30, True),
}


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


def check_vocab_size(config: Config, where: str) -> None:
    """Checks the rows of the embedding.

    Raises:
      InputError: no such key, or not a whole number of rows.
    """
    if "vocab_size" not in config:
        raise InputError(f"{where}: config.json has no 'vocab_size'")
    _check_size(config, "vocab_size", 1, _LARGEST, where)


def _check_size(config: Config, key: str, low: int, high: int, where: str) -> None:
    value = config[key]
    if type(value) is not int or not low <= value <= high:
        raise InputError(
            f"{where}: config.json has {key}={value!r:.80}; it must be a whole number"
            f" from {low} to {high}"
        )


def read_settings(config: Config, where: str) -> ModelSettings:
    """The architecture that a config.json describes.

    Raises:
      InputError: a key is missing, or asks for what no layer here can do.
    """
    family = family_of(config, where)
    check_vocab_size(config, where)
    for key, (low, high, nullable) in _SIZES.items():
        if key in config and not (nullable and config[key] is None):
            _check_size(config, key, low, high, where)
    try:
        found = family.settings(config)
    except KeyError as error:
        raise InputError(f"{where}: config.json has no {error.args[0]!r}") from error
    except Unsupported as error:
        raise InputError(f"{where}: {error}") from error
    except (TypeError, ValueError, ArithmeticError) as error:
        raise InputError(f"{where}: config.json has a wrong value ({error})") from error
    whole = {"dropout": 0.0, "scan_layers": False, "dtype": "auto", **found}
    try:
        settings = _one_spelling(from_config(ModelSettings, whole, "model"))
        transformer.check(settings, "model")
        if settings.heads > settings.width:
            raise InputError(
                f"model.heads={settings.heads} is more than model.width="
                f"{settings.width}; correct one of them"
            )
    except InputError as error:
        raise InputError(
            f"{where}: in config.json, {_in_their_words(str(error), config)}"
        ) from error
    return settings


def _in_their_words(told: str, config: Config) -> str:
    """'model.width=8 is ...' -> 'hidden_size=8 is ...', as this config.json has it."""

    def theirs(found: re.Match) -> str:
        keys = _KEYS.get(found[1], found.groups())
        return next((key for key in keys if key in config), keys[0])

    return re.sub(r"\bmodel\.(\w+)", theirs, told)


def write_config(settings: ModelSettings, vocab_size: int) -> tuple[Family, dict]:
    """The family that can express a model, and its config.json.

    Raises:
      InputError: no family has all that the settings ask for.
    """
    wanted = _bare(settings)
    for family in FAMILIES.values():
        config: dict[str, Any] = {
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
