"""Other people's tokenizer.json and tokenizer_config.json, read as Transformers would.

Each function takes the parsed tokenizer or its config and the file's name for messages;
`Tokenizer.from_parts` calls them in turn.
"""

import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import tokenizers
from tokenizers import pre_tokenizers

from tljax.settings import InputError

CONFIG_FILE = "tokenizer_config.json"
# What that file may name; each is a special token.
TOKEN_KEYS = tuple(
    f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
)


def parse(text: str, where: str) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises nothing more special
        raise InputError(f"{where} is not a tokenizer.json: {error}") from error


def read_config(path: pathlib.Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise InputError(f"{path} must be a JSON object, e.g. {{'eos_token': ...}}")
    return config


def plain_config(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Returns a tokenizer_config with tokens and the chat template as plain strings.

    {"eos_token": {"content": "</s>", ...}} -> {"eos_token": "</s>"}, and of a list of
    chat templates the one named 'default'.

    Raises:
      InputError: one of them is neither a string nor one of these.
    """
    plain = dict(config)
    for key in TOKEN_KEYS:
        if isinstance(plain.get(key), Mapping):
            plain[key] = plain[key].get("content")
    templates = plain.get("chat_template")
    if isinstance(templates, list) and all(isinstance(one, dict) for one in templates):
        named = {one.get("name"): one.get("template") for one in templates}
        plain["chat_template"] = named.get("default")
    for key in (*TOKEN_KEYS, "chat_template"):
        if not isinstance(plain.get(key), str | None):
            raise InputError(
                f"{where}: {key!r} of its {CONFIG_FILE} is {plain[key]!r:.40}; it must"
                " be a string"
            )
    return plain


def token_id(
    tokenizer: tokenizers.Tokenizer, config: Mapping[str, Any], key: str, where: str
) -> int:
    index = tokenizer.token_to_id(config[key])
    if index is None:
        raise InputError(
            f"{where} has no token {config[key]!r}, which its {CONFIG_FILE} names as"
            f" {key!r}; correct one of the two"
        )
    return index


def mark_special(tokenizer: tokenizers.Tokenizer, config: Mapping[str, Any]) -> None:
    """Makes special what the config names, as Transformers does; adds no new id."""
    named = [config.get(key) for key in TOKEN_KEYS]
    for key in ("additional_special_tokens", "extra_special_tokens"):
        named += config[key] if isinstance(config.get(key), list) else []
    known = tokenizer.get_added_tokens_decoder()
    for name in named:
        name = name.get("content") if isinstance(name, Mapping) else name
        index = tokenizer.token_to_id(name) if isinstance(name, str) else None
        if index is None:
            continue
        fresh = tokenizers.AddedToken(name, normalized=False)
        if not known.get(index, fresh).special:
            tokenizer.add_special_tokens([known.get(index, fresh)])


def spell_out(tokenizer: tokenizers.Tokenizer, where: str) -> None:
    """Keeps the model itself from finding special tokens in text.

    '</s>' is skipped as a special token, but is also a piece of a unigram vocabulary;
    cut behind its first character, '<' and '/s>', it is spelt with other pieces.
    """
    # What no vocabulary has, private letters and hieroglyphs, may well become [UNK].
    unknown = tokenizer.encode("\ue000 \U00013080", add_special_tokens=False).ids
    special = {
        one.content: index
        for index, one in tokenizer.get_added_tokens_decoder().items()
        if one.special and index not in unknown
    }

    def found() -> list[str]:
        return [
            name
            for name, index in special.items()
            for text in (name, f"a {name} a")
            if index in tokenizer.encode(text, add_special_tokens=False).ids
        ]

    cuts = "|".join(
        f"{re.escape(name[0])}(?={re.escape(name[1:])})"
        for name in sorted(set(found()))
    )
    if not cuts:
        return
    before = tokenizer.pre_tokenizer
    cut = pre_tokenizers.Split(tokenizers.Regex(cuts), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [before, cut] if before else [cut]
    )
    for name in found():
        raise InputError(
            f"{where}: a text that holds {name!r} would turn into this special token;"
            " this tokenizer cannot be used"
        )


def begin_id(
    tokenizer: tokenizers.Tokenizer, config: Mapping[str, Any], where: str
) -> int | None:
    """The bos_token's id, if the config wants it or the post-processor adds it."""
    if not config.get("bos_token"):
        return None
    if config.get("add_bos_token"):
        return token_id(tokenizer, config, "bos_token", where)
    plain = tokenizer.encode("a", add_special_tokens=False).ids
    whole = tokenizer.encode("a").ids
    begin = tokenizer.token_to_id(config["bos_token"])
    added = len(whole) > len(plain) and whole[0] == begin
    return begin if added else None
