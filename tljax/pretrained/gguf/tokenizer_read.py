"""GGUF's list of tokens -> the tokenizer.json that it was made from.

tokens, types, merges, pre -> byte-level BPE;  tokens, types, scores -> SentencePiece's
Decides nothing: whether a text gets a token before it, and what a chat looks like, is
handed on as the file says it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tljax.pretrained.gguf.header import Header
from tljax.pretrained.gguf.vocabulary import (
    CONTROL,
    NONE,
    NORMAL,
    PRES,
    SPACE,
    SPECIAL,
    TYPES,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    merges_of,
)
from tljax.settings import InputError, suggestion


def read_tokenizer(header: Header, rows: int) -> tuple[str | None, dict[str, Any]]:
    """What tokenizer.json and tokenizer_config.json would say.

    Args:
      header: of the file.
      rows: of the embedding; there may be fewer tokens.

    Returns:
      (text of a tokenizer.json; None where the file holds no tokenizer,
       'bos_token', 'eos_token', 'unk_token', 'pad_token' where there are such tokens,
       'add_bos_token', and 'chat_template' where there is one).

    Raises:
      InputError: a kind of tokenizer that is not known here, or lists that do not fit.
    """
    where = str(header.path)
    kind = header.value("tokenizer.ggml.model", str, NONE[0])
    if kind in NONE:
        return None, {}
    if kind not in _MODELS:
        raise InputError(
            f"{where}: tokenizer.ggml.model is {kind!r:.60}; known here: "
            f"{', '.join((*_MODELS, *NONE))}"
        )
    tokens = _tokens(header, rows)
    types = _types(header, len(tokens))
    config: dict[str, Any] = {}
    for name, key in SPECIAL.items():
        number = header.value(f"tokenizer.ggml.{key}_token_id", int, None)
        if number is not None:
            if not 0 <= number < len(tokens):
                raise InputError(
                    f"{where}: tokenizer.ggml.{key}_token_id is {number}; there are"
                    f" {len(tokens)} tokens"
                )
            config[f"{name}_token"] = tokens[number]
    parts, add_bos = _MODELS[kind](header, tokens, types, config)
    add_bos = header.value("tokenizer.ggml.add_bos_token", bool, add_bos)
    add_eos = header.value("tokenizer.ggml.add_eos_token", bool, False)
    config["add_bos_token"] = add_bos and "bos_token" in config
    template = header.value("tokenizer.chat_template", str, None)
    if template is not None:
        config["chat_template"] = template
    first = [config["bos_token"]] if config["add_bos_token"] else []
    last = [config["eos_token"]] if add_eos and "eos_token" in config else []
    numbers = {token: i for i, token in enumerate(tokens)}
    whole = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added(tokens, types),
        **parts,
        "post_processor": _template(first, last, numbers),
    }
    return json.dumps(whole, ensure_ascii=False), config


def _tokens(header: Header, rows: int) -> list[str]:
    tokens = header.value("tokenizer.ggml.tokens", list)
    # llama.cpp's name for a token without text
    tokens = [token or f"[EMPTY_{i}]" for i, token in enumerate(tokens)]
    if len(tokens) > rows:
        raise InputError(
            f"{header.path}: {len(tokens)} tokens, but the embedding has {rows} rows"
        )
    seen: set[str] = set()
    for token in tokens:
        if token in seen:
            raise InputError(f"{header.path}: two tokens are {token!r:.60}")
        seen.add(token)
    return tokens


def _types(header: Header, count: int) -> list[int]:
    types = header.value(
        "tokenizer.ggml.token_type", np.ndarray, np.full(count, NORMAL)
    ).tolist()
    if len(types) != count:
        raise InputError(f"{header.path}: {len(types)} token types for {count} tokens")
    for i, kind in enumerate(types):
        if kind not in TYPES:
            raise InputError(
                f"{header.path}: tokenizer.ggml.token_type[{i}] is {kind}; there are"
                f" types {TYPES[0]} to {TYPES[-1]}; convert the model anew"
            )
    return types


def _vocab(tokens: Sequence[str], types: Sequence[int]) -> dict[str, int]:
    """Tokens that text can become; the others fill the embedding's rows."""
    return {
        token: i
        for i, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind != UNUSED
    }


def _added(tokens: Sequence[str], types: Sequence[int]) -> list[dict[str, Any]]:
    """Tokens that are found in text whole, before anything else is done to it."""
    kinds = (UNKNOWN, CONTROL, USER_DEFINED)
    return [
        {
            "id": i,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind != USER_DEFINED,
        }
        for i, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in kinds
    ]


def _template(
    first: Sequence[str], last: Sequence[str], numbers: Mapping[str, int]
) -> dict[str, Any] | None:
    """What puts special tokens around a text (or each of two)."""
    if not first and not last:
        return None

    def around(name: str, kind: int) -> list[dict[str, Any]]:
        def special(token: str) -> dict[str, Any]:
            return {"SpecialToken": {"id": token, "type_id": kind}}

        text = {"Sequence": {"id": name, "type_id": kind}}
        return [*map(special, first), text, *map(special, last)]

    return {
        "type": "TemplateProcessing",
        "single": around("A", 0),
        "pair": around("A", 0) + around("B", 1),
        "special_tokens": {
            token: {"id": token, "ids": [numbers[token]], "tokens": [token]}
            for token in {*first, *last}
        },
    }


def _byte_level(
    header: Header, tokens: Sequence[str], types: Sequence[int], config: Mapping
) -> tuple[dict[str, Any], bool]:
    """GPT-2's kind: (parts of tokenizer.json, whether llama.cpp adds a beginning)."""
    name = header.value("tokenizer.ggml.pre", str, "default")
    if name not in PRES:
        raise InputError(
            f"{header.path}: tokenizer.ggml.pre is {name!r:.60}, whose way of splitting"
            f" text is not known here{suggestion(name, PRES)}; known: {', '.join(PRES)}"
        )
    pre = PRES[name]
    vocab = _vocab(tokens, types)
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    steps = [
        {
            "type": "Split",
            "pattern": {"Regex": regex},
            "behavior": "Isolated",
            "invert": False,
        }
        for regex in pre.splits
    ]
    return {
        "normalizer": {"type": "NFC"} if pre.nfc else None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [*steps, {**byte_level, "use_regex": False}],
        },
        "decoder": {**byte_level, "use_regex": True},
        "model": _bpe(
            vocab, _merges(header, vocab), unk=None, whole_first=pre.whole_first
        ),
    }, pre.add_bos


def _sentencepiece(
    header: Header, tokens: Sequence[str], types: Sequence[int], config: Mapping
) -> tuple[dict[str, Any], bool]:
    """Llama's and Gemma's kind; as `_byte_level`."""
    scores = header.value("tokenizer.ggml.scores", np.ndarray).tolist()
    if len(scores) != len(tokens):
        raise InputError(
            f"{header.path}: {len(scores)} token scores for {len(tokens)} tokens"
        )
    for i, score in enumerate(scores):
        if math.isnan(score):
            raise InputError(
                f"{header.path}: tokenizer.ggml.scores[{i}] is {score}; it must be a"
                " number: convert the model anew"
            )
    vocab = _vocab(tokens, types)
    if "tokenizer.ggml.merges" in header.metadata:
        merges = _merges(header, vocab)
    else:
        normal = [i for i, kind in enumerate(types) if kind == NORMAL]
        normal.sort(key=lambda i: -scores[i])  # stable: of equals the earlier
        merges = merges_of([tokens[i] for i in normal])
    prefix = header.value("tokenizer.ggml.add_space_prefix", bool, True)
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    before = [{"type": "Prepend", "prepend": SPACE}] if prefix else []
    after = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*before, spaces]},
        "pre_tokenizer": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                *after,
            ],
        },
        "model": _bpe(vocab, merges, unk=config.get("unk_token"), byte_fallback=True),
    }, True


def _merges(header: Header, vocab: Mapping[str, int]) -> list[tuple[str, str]]:
    merges = []
    for i, line in enumerate(header.value("tokenizer.ggml.merges", list)):
        left, _, right = line.partition(" ")
        if not (left in vocab and right in vocab and left + right in vocab):
            raise InputError(
                f"{header.path}: tokenizer.ggml.merges[{i}] is {line!r:.60}; it must be"
                " two tokens, a space between them, that make a third"
            )
        merges.append((left, right))
    return merges


def _bpe(
    vocab: Mapping[str, int],
    merges: Sequence[tuple[str, str]],
    *,
    unk: str | None,
    byte_fallback: bool = False,
    whole_first: bool = False,
) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": unk,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": byte_fallback,
        "byte_fallback": byte_fallback,
        "ignore_merges": whole_first,
        "vocab": vocab,
        "merges": merges,
    }


_MODELS = {"gpt2": _byte_level, "llama": _sentencepiece}
