"""config.json <-> ModelSettings, by the table of the family that it names.

model_type -> FAMILIES -> settings;  settings -> the first family that reads them back
A value that cannot be is refused in one line; nothing is guessed.
"""

import dataclasses
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
      InputError: no such key, or not a whole number above 0.
    """
    if "vocab_size" not in config:
        raise InputError(f"{where}: config.json has no 'vocab_size'")
    value = config["vocab_size"]
    if type(value) is not int or value < 1:
        raise InputError(
            f"{where}: config.json has vocab_size={value!r:.80}; it must be a whole"
            " number above 0"
        )


def read_settings(config: Config, where: str) -> ModelSettings:
    """The architecture that a config.json describes.

    Raises:
      InputError: a key is missing, or asks for what no layer here can do.
    """
    family = family_of(config, where)
    check_vocab_size(config, where)
    try:
        found = family.settings(config)
    except KeyError as error:
        raise InputError(f"{where}: config.json has no {error.args[0]!r}") from error
    except Unsupported as error:
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
