"""A tokenizer.json -> GGUF's list of tokens; the inverse of tokenizer_read.

vocab, added tokens -> tokens and types;  merges -> merges, or scores (SentencePiece)
GGUF has names for a few ways to split text and no place for a normaliser: a tokenizer
that needs another is refused, since what reads the file would cut text differently.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import tokenizers

from tljax.pretrained.gguf.vocabulary import (
    BYTE,
    CONTROL,
    DIGIT,
    GPT2,
    NONE,
    NORMAL,
    PRES,
    SPACE,
    SPECIAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    Pre,
    merges_of,
)
from tljax.settings import InputError

Pair = tuple[str, str]

_EOS = "tokenizer.ggml.eos_token_id"


class _Token(NamedTuple):
    text: str
    kind: int
    score: float = 0.0


def write_tokenizer(
    tokenizer_json: str | None,
    tokenizer_config: Mapping[str, Any],
    config: Mapping[str, Any],
) -> dict[str, Any]:
    """Metadata that says what a tokenizer.json and its config do.

    Args:
      tokenizer_json: its text; None = no tokenizer.
      tokenizer_config: 'bos_token' and the like (strings), 'add_bos_token',
        'chat_template' (a string).
      config: config.json: 'vocab_size', and 'bos_token_id' and the like where
        tokenizer_config names no token.

    Returns:
      key -> int, bool, text, or list of ints, floats or texts.

    Raises:
      InputError: no tokenizer.json, not a BPE, or one that GGUF has no words for.
    """
    if tokenizer_json is None:
        return {"tokenizer.ggml.model": NONE[-1]}
    try:
        tokenizers.Tokenizer.from_str(tokenizer_json)
    except Exception as error:  # the library raises nothing more special
        raise InputError(f"not a tokenizer.json: {error}") from error
    whole = json.loads(tokenizer_json)
    model = whole["model"]
    if model.get("type") != "BPE":
        raise _cannot(f"its model is {model.get('type')!r}", "BPE")
    merges = [
        tuple(one.split(" ", 1)) if isinstance(one, str) else tuple(one)
        for one in model["merges"]
    ]
    tokens = _tokens(whole, config["vocab_size"])
    if model.get("byte_fallback"):
        metadata = _sentencepiece(whole, tokens, merges)
    else:
        metadata = _byte_level(whole, merges)
    metadata["tokenizer.ggml.tokens"] = [one.text for one in tokens]
    metadata["tokenizer.ggml.token_type"] = [one.kind for one in tokens]
    template = tokenizer_config.get("chat_template")
    if template:
        metadata["tokenizer.chat_template"] = template
    return metadata | _special(whole, tokens, tokenizer_config, config)


def _tokens(whole: Mapping[str, Any], rows: int) -> list[_Token]:
    """One token for each row of the embedding, whether or not text can become it."""
    model = whole["model"]
    pieces = model.get("byte_fallback", False)
    found = {i: _Token(token, NORMAL) for token, i in model["vocab"].items()}
    for one in whole.get("added_tokens", ()):
        kind = CONTROL if one["special"] else USER_DEFINED
        text = one["content"].replace(SPACE, " ") if pieces else one["content"]
        # llama.cpp finds user-defined tokens in text as it is, with its spaces
        found[one["id"]] = _Token(
            text if kind == USER_DEFINED else one["content"], kind
        )
    if pieces:
        for i, one in found.items():
            if re.fullmatch("<0x[0-9A-F]{2}>", one.text):
                found[i] = _Token(one.text, BYTE)
            elif one.text == model.get("unk_token"):
                found[i] = _Token(one.text, UNKNOWN)
    if max(found) >= rows:
        raise InputError(
            f"the tokenizer has id {max(found)}, but config.json's vocab_size is {rows}"
        )
    return [found.get(i, _Token(f"[PAD{i}]", UNUSED)) for i in range(rows)]


def _special(
    whole: Mapping[str, Any],
    tokens: Sequence[_Token],
    tokenizer_config: Mapping[str, Any],
    config: Mapping[str, Any],
) -> dict[str, Any]:
    """Ids of special tokens, and whether they stand around each text."""
    ids = {one.text: i for i, one in enumerate(tokens)}
    first, last = _around(whole.get("post_processor"))
    metadata: dict[str, Any] = {}
    for name, key in SPECIAL.items():
        token, number = tokenizer_config.get(f"{name}_token"), None
        if name == "unk" and token is None:
            token = whole["model"].get("unk_token")
        if token is not None and token not in ids:
            raise InputError(
                f"tokenizer_config.json has {name}_token={token!r:.60}, which"
                " tokenizer.json has not; correct one of the two"
            )
        if token is None:
            number = config.get(f"{name}_token_id")
            number = number[0] if isinstance(number, list) else number
        else:
            number = ids[token]
        if number is None:
            continue
        if not (type(number) is int and 0 <= number < len(tokens)):
            raise InputError(
                f"config.json has {name}_token_id={number!r:.60}; it must be from 0 to"
                f" {len(tokens) - 1}"
            )
        metadata[f"tokenizer.ggml.{key}_token_id"] = number
        if name in ("bos", "eos"):
            around = {"bos": first, "eos": last}[name] == tokens[number].text
            said = tokenizer_config.get(f"add_{name}_token")
            metadata[f"tokenizer.ggml.add_{name}_token"] = (
                around if said is None else bool(said)
            )
    return metadata | _end_of_turn(metadata, len(tokens), config)


def _end_of_turn(
    metadata: Mapping[str, Any], rows: int, config: Mapping[str, Any]
) -> dict[str, int]:
    """The second of the tokens that end a text; GGUF has no place for a third."""
    ends, first = config.get("eos_token_id"), metadata.get(_EOS)
    others = [one for one in ends if one != first] if isinstance(ends, list) else []
    if not others:
        return {}
    if not (type(others[0]) is int and 0 <= others[0] < rows):
        raise InputError(
            f"config.json has eos_token_id={ends!r:.60}; each must be from 0 to"
            f" {rows - 1}"
        )
    return {"tokenizer.ggml.eot_token_id": others[0]}


def _around(post_processor: Mapping[str, Any] | None) -> tuple[str | None, str | None]:
    """The special tokens that a template puts before and after a text."""
    for one in _parts(post_processor, "processors"):
        if one["type"] == "TemplateProcessing":
            ends = (one["single"][0], one["single"][-1])
            return tuple(end.get("SpecialToken", {}).get("id") for end in ends)
    return None, None


def _byte_level(whole: Mapping[str, Any], merges: Sequence[Pair]) -> dict[str, Any]:
    """GPT-2's kind."""
    normalizers = [one["type"] for one in _parts(whole["normalizer"], "normalizers")]
    if normalizers not in ([], ["NFC"]):
        raise _cannot(
            f"it normalises text ({', '.join(normalizers)})", "NFC or nothing"
        )
    steps = list(_parts(whole["pre_tokenizer"], "pretokenizers"))
    if not steps or steps[-1]["type"] != "ByteLevel" or steps[-1]["add_prefix_space"]:
        raise _cannot(
            "it is not byte-level, or adds a space before a text", "byte-level"
        )
    wanted = (
        tuple(regex for step in steps for regex in _regexes(step)),
        bool(normalizers),
        bool(whole["model"].get("ignore_merges")),
    )
    names = [name for name, pre in PRES.items() if _cuts(pre) == wanted]
    if not names:
        raise _cannot("it splits text in a way of its own", ", ".join(PRES))
    if not merges:
        raise _cannot("it has no merges", "some")
    spaced = next((pair for pair in merges if " " in "".join(pair)), None)
    if spaced:
        raise _cannot(f"it merges {spaced!r:.60}", "merges without spaces")
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": names[0],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in merges],
    }


def _cuts(pre: Pre) -> tuple[tuple[str, ...], bool, bool]:
    return pre.splits, pre.nfc, pre.whole_first


def _regexes(step: Mapping[str, Any]) -> list[str]:
    """What a pre-tokenizer's step cuts at; a text that no Pre has, if it is another."""
    if step["type"] == "ByteLevel":
        return [GPT2] if step.get("use_regex", True) else []
    if step["type"] == "Digits" and step["individual_digits"]:
        return [DIGIT]
    isolated = step.get("behavior") == "Isolated" and not step.get("invert")
    if step["type"] == "Split" and isolated and "Regex" in step["pattern"]:
        return [step["pattern"]["Regex"]]
    return [json.dumps(step)]


def _sentencepiece(
    whole: Mapping[str, Any], tokens: Sequence[_Token], merges: Sequence[Pair]
) -> dict[str, Any]:
    """Llama's and Gemma's kind: a piece's score is minus the place of its merge."""
    best = {}
    for pair in merges:
        best.setdefault("".join(pair), len(best))
    scores = [
        -float(best.get(one.text, len(best) + i)) if one.kind == NORMAL else 0.0
        for i, one in enumerate(tokens)
    ]
    order = sorted(range(len(tokens)), key=lambda i: -scores[i])
    normal = [tokens[i].text for i in order if tokens[i].kind == NORMAL]
    known = set(normal)
    within = {pair for pair in merges if known.issuperset((*pair, "".join(pair)))}
    if set(merges_of(normal)) != within:
        raise _cannot("its merges are not all that its pieces allow", "SentencePiece's")
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.add_space_prefix": _space_prefix(whole),
    }


def _space_prefix(whole: Mapping[str, Any]) -> bool:
    """Whether a text gets a space before it, spaces becoming '▁' either way."""
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    before = {"type": "Prepend", "prepend": SPACE}
    steps = list(_parts(whole["normalizer"], "normalizers"))
    split = list(_parts(whole["pre_tokenizer"], "pretokenizers"))
    if steps in ([before, spaces], [spaces]):
        # Gemma's splits at spaces, of which none are left
        if all(one["type"] == "Split" and one["pattern"] == {"String": " "}
               for one in split):  # fmt: skip
            return steps[0] == before
    if not steps and [one["type"] for one in split] == ["Metaspace"]:
        if split[0]["replacement"] == SPACE and not split[0].get("split", True):
            return split[0]["prepend_scheme"] != "never"
    raise _cannot("it normalises or splits text in a way of its own", "SentencePiece's")


def _parts(whole: Mapping[str, Any] | None, key: str) -> Iterator[Mapping[str, Any]]:
    """The steps of a part of tokenizer.json, whatever sequences they are nested in."""
    if whole is None:
        return
    if whole["type"] != "Sequence":
        yield whole
        return
    for one in whole[key]:
        yield from _parts(one, key)


def _cannot(given: str, allowed: str) -> InputError:
    return InputError(
        f"this tokenizer cannot be written to a GGUF: {given}; known there: {allowed}."
        " Write safetensors instead"
    )
