"""Text to token ids and back: byte-level BPE trained here, or other people's files.

Ours: text --normalise--> text' --BPE--> ids;  decode(ids) == text', byte for byte.
Text never turns into a special token: a literal '<|end|>' in it stays ordinary bytes.
"""

import contextlib
import functools
import hashlib
import heapq
import json
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from tljax.settings import InputError, suggestion

# Of tokenizers trained here; others say theirs, so ask Tokenizer.pad_id and .end_id.
PAD_ID = 0
END_ID = 1
SPECIAL_TOKENS = ("<|pad|>", "<|end|>")

CONFIG_FILE = "tokenizer_config.json"
# What that file may name; each is a special token.
TOKEN_KEYS = tuple(
    f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
)

# BPE merges hardly change beyond this much text, and counting words is what costs.
TRAINING_CHARACTERS = 20_000_000
# Documents handed to the Rust side at a time: bounds memory, keeps all cores busy.
ENCODE_CHUNK = 1_000

_DOUBLE_QUOTES = "[‘’`´]{2}|''|[“”]"
_SINGLE_QUOTES = "[‘’`´]"
# Each alternative is a run of spaces to remove. `(?<! ) ++` starts only at the first
# space of a run and never gives one back, so that long runs cost linear time.
_LOOSE_SPACES = "|".join(
    (
        r"(?<! ) ++(?=[,!?;:)])",  # film , best -> film, best
        r"(?<! ) ++(?=\.(?!\d))",  # end . -> end.   but: costs .50
        r"(?<! ) ++(?='(?:s|re|ve|ll|d|m|t)\b)",  # film 's -> film's
        r"(?<=[a-z]) ++(?=n't\b)",  # does n't -> doesn't
        r"(?<=s) (?=' )",  # actors ' faces -> actors' faces
        r"(?<=\() ++",  # ( or -> (or
    )
)


def _normalizer(normalization: str) -> normalizers.Normalizer | None:
    """The steps between a user's text and the text that is tokenised."""
    lower = normalizers.Lowercase()
    steps = {
        "none": [],
        "lower": [lower],
        "lower_joined": [
            lower,
            normalizers.Replace(tokenizers.Regex(_DOUBLE_QUOTES), '"'),
            normalizers.Replace(tokenizers.Regex(_SINGLE_QUOTES), "'"),
            normalizers.Replace(tokenizers.Regex(_LOOSE_SPACES), ""),
        ],
    }
    if normalization not in steps:
        raise InputError(
            f"tokenizer.normalization is {normalization!r}; allowed: {', '.join(steps)}"
            f"{suggestion(normalization, steps)}"
        )
    return normalizers.Sequence(steps[normalization]) if steps[normalization] else None


class Tokenizer:
    """Text to ids and back.

    Attributes:
      pad_id: fills what is left of a row; never learnt from.
      end_id: ends a text and separates documents.
      begin_id: what the model wants in front of a text; None = nothing.
      chat_template: how messages become one text (see data.chat); None = no chat.
      tokenizer_config: what tokenizer_config.json says or would say, tokens as strings.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer, *, pad_id: int, end_id: int):
        """A tokenizer as it was trained here; `from_parts` makes other people's."""
        # Not kept by the file: without it a text could forge padding and ends.
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self.pad_id, self.end_id = pad_id, end_id
        self.begin_id: int | None = None
        self.chat_template: str | None = None
        self.tokenizer_config: Mapping[str, Any] = {
            "eos_token": tokenizer.id_to_token(end_id),
            "pad_token": tokenizer.id_to_token(pad_id),
        }
        self._their_json: str | None = None

    @classmethod
    def from_parts(
        cls, tokenizer_json: str, tokenizer_config: Mapping[str, Any], where: str
    ) -> "Tokenizer":
        """Builds a tokenizer that came with somebody's model; ids as in Transformers.

        Cutting and padding that the file may ask for are switched off. end_id is the
        eos_token, else the sep_token (BERT); pad_id the pad_token, else end_id.

        Args:
          tokenizer_json: text of a tokenizer.json.
          tokenizer_config: what its tokenizer_config.json says.
          where: the file, for messages.

        Raises:
          InputError: no tokenizer.json, no token that ends a text, a token that is not
            in the vocabulary, or one that text itself would turn into.
        """
        tokenizer = _parse(tokenizer_json, where)
        if not tokenizer.get_vocab(with_added_tokens=False):
            raise InputError(
                f"{where}: its tokenizer.json has an empty vocabulary; fetch it again"
            )
        tokenizer.no_truncation()
        tokenizer.no_padding()
        config = plain_tokenizer_config(tokenizer_config, where)
        ends = [key for key in ("eos_token", "sep_token") if config.get(key)]
        if not ends:
            raise InputError(
                f"{where}: its {CONFIG_FILE} names no 'eos_token' and no 'sep_token';"
                " add the token that ends a text"
            )
        end_id = _token_id(tokenizer, config, ends[0], where)
        pad_key = "pad_token" if config.get("pad_token") else ends[0]
        pad_id = _token_id(tokenizer, config, pad_key, where)
        _mark_special(tokenizer, config)
        made = cls(tokenizer, pad_id=pad_id, end_id=end_id)
        _spell_out(tokenizer, where)
        made.begin_id = _begin_id(tokenizer, config, where)
        made.chat_template = config.get("chat_template")
        made.tokenizer_config = config
        made._their_json = tokenizer_json
        return made

    @functools.cached_property
    def vocab_size(self) -> int:
        """Number of ids, V; fewer than asked for where the text had no more merges."""
        return 1 + max(self._tokenizer.get_vocab().values())

    @functools.cached_property
    def special_ids(self) -> dict[int, str]:
        """Ids that no text has but every row may: begin, end, padding ... -> token."""
        ids = {self.pad_id, self.end_id, *self._around}
        ids |= set() if self.begin_id is None else {self.begin_id}
        return {one: str(self._tokenizer.id_to_token(one)) for one in sorted(ids)}

    @functools.cached_property
    def text_vocab_size(self) -> int:
        """Ids that ordinary text can turn into; added tokens may lie beyond."""
        return 1 + max(self._tokenizer.get_vocab(with_added_tokens=False).values())

    @property
    def tokenizer_json(self) -> str:
        """Text of the tokenizer.json that save() writes."""
        return self._their_json or self._tokenizer.to_str()

    @property
    def sha256(self) -> str:
        """SHA-256 of the tokenizer.json that save() writes, 64 hex digits.

        Other people's covers their tokenizer_config too, which says what ends a text.
        """
        digest = hashlib.sha256(self.tokenizer_json.encode())
        if self._their_json is not None:
            digest.update(json.dumps(self.tokenizer_config, sort_keys=True).encode())
        return digest.hexdigest()

    @functools.cached_property
    def token_bytes_V(self) -> np.ndarray:
        """Bytes of text behind each id, int64 [V]; special tokens stand for no text.

        Raises:
          InputError: not a byte-level tokenizer, whose tokens tell no bytes.
        """
        return _token_bytes(self._tokenizer, self.vocab_size)

    def normalize(self, text: str) -> str:
        """Returns the text as it is tokenised and, where ours, as decode gives it."""
        normalizer = self._tokenizer.normalizer
        return text if normalizer is None else normalizer.normalize_str(text)

    def encode(
        self, texts: Sequence[str], *, special: bool = False, longest: int = 0
    ) -> list[np.ndarray]:
        """Returns the ids of each text, int32 [L] with its own L; '' gives [0]-shape.

        Args:
          texts: data: what looks like a special token in it stays text.
          special: also adds what the model wants around a text, e.g. [CLS] and [SEP].
          longest: tokens kept; 0 = all. What the model wants at a text's end stays.
        """
        encoded = []
        for start in range(0, len(texts), ENCODE_CHUNK):
            chunk = list(texts[start : start + ENCODE_CHUNK])
            encoded += [
                np.array(one.ids, dtype=np.int32)
                for one in self._tokenizer.encode_batch_fast(
                    chunk, add_special_tokens=special
                )
            ]
        if longest:
            encoded = [self._cut(ids, longest, special) for ids in encoded]
        return encoded

    def _cut(self, ids: np.ndarray, longest: int, special: bool) -> np.ndarray:
        if len(ids) <= longest:
            return ids
        around = self._around if special else []
        if len(around) > 1 and ids[-1] == around[-1]:
            return np.concatenate([ids[: longest - 1], ids[-1:]])
        return ids[:longest].copy()

    @functools.cached_property
    def _around(self) -> list[int]:
        """What the model wants around a text: the tokens of an empty one."""
        return self._tokenizer.encode("", add_special_tokens=True).ids

    def encode_prompt(self, text: str) -> np.ndarray:
        """Returns the ids of a text whose special tokens are meant, int32 [L].

        For rendered chat templates, which write those themselves; adds none.

        Raises:
          InputError: the text holds half a surrogate pair: it came as no UTF-8.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"the prompt {text!r:.40} is not valid UTF-8") from error
        self._tokenizer.encode_special_tokens = False
        try:
            encoded = self._tokenizer.encode(text, add_special_tokens=False)
        finally:
            self._tokenizer.encode_special_tokens = True
        return np.array(encoded.ids, dtype=np.int32)

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of the ids; special tokens give no text."""
        return self._tokenizer.decode(
            [int(one) for one in ids], skip_special_tokens=True
        )

    def save(self, path: str | pathlib.Path) -> None:
        """Writes a tokenizer.json that any user of HF tokenizers can read.

        Other people's gets its tokenizer_config.json beside it. Whole or not at all: a
        run that is killed meanwhile finds no tokenizer.json and goes on.

        Raises:
          InputError: it cannot be written; an old file is still there.
        """
        path = pathlib.Path(path)
        texts = {path: self.tokenizer_json}
        if self._their_json is not None:
            config = json.dumps(self.tokenizer_config, indent=2, ensure_ascii=False)
            texts = {path.with_name(CONFIG_FILE): config + "\n"} | texts
        fresh = {one: one.with_name(one.name + ".new") for one in texts}
        try:
            for one, text in texts.items():
                fresh[one].write_text(text, encoding="utf-8")
            for one in texts:  # tokenizer.json last: where it stands, all is there
                fresh[one].replace(one)
        except OSError as error:
            for one in fresh.values():
                with contextlib.suppress(OSError):
                    one.unlink()
            raise InputError(
                f"cannot write {path}: {error.strerror or error}; make room or give"
                " another folder"
            ) from error

    @classmethod
    def load(cls, path: str | pathlib.Path) -> "Tokenizer":
        """Reads a tokenizer.json, and the tokenizer_config.json beside it if any.

        Raises:
          InputError: no such file, not a tokenizer, or other people's whose
            tokenizer_config.json is missing or refused by `from_parts`.
        """
        path = pathlib.Path(path)
        if not path.is_file():
            raise InputError(f"no tokenizer at {path}; give a tokenizer.json")
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} is not a tokenizer.json: {error}") from error
        beside = path.with_name(CONFIG_FILE)
        if beside.is_file():
            return cls.from_parts(text, _read_config(beside), str(path))
        tokenizer = _parse(text, str(path))
        found = tuple(tokenizer.id_to_token(one) for one in (PAD_ID, END_ID))
        if found != SPECIAL_TOKENS:
            raise InputError(
                f"{path} has {found} as its first ids, so it was not trained here,"
                f" where they are {SPECIAL_TOKENS}; put the {CONFIG_FILE} that came"
                " with it beside it, or train one with tljax"
            )
        return cls(tokenizer, pad_id=PAD_ID, end_id=END_ID)


def plain_tokenizer_config(config: Mapping[str, Any], where: str) -> dict[str, Any]:
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


def train_tokenizer(
    texts: Iterable[str], *, vocab_size: int, normalization: str
) -> Tokenizer:
    """Learns a byte-level BPE vocabulary from text; the same texts give the same file.

    Of more than TRAINING_CHARACTERS characters it reads a sample: the documents with
    the smallest hashes, whatever order they come in.

    Args:
      texts: documents; read once, never held in full.
      vocab_size: ids wanted, at least 258 (2 special tokens and 256 bytes).
      normalization: 'none', 'lower' or 'lower_joined'.

    Raises:
      InputError: vocab_size or normalization not allowed, or no text at all.

    Source: Sennrich et al. 2016 (arXiv:1508.07909), over bytes as in GPT-2.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    smallest = len(SPECIAL_TOKENS) + len(alphabet)
    if vocab_size < smallest:
        raise InputError(
            f"tokenizer.vocab_size is {vocab_size}; it must be at least {smallest}"
        )
    tokenizer = tokenizers.Tokenizer(models.BPE())
    normalizer = _normalizer(normalization)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=True
    )
    tokenizer.decoder = decoders.ByteLevel()
    sample = _sample(texts, characters=TRAINING_CHARACTERS)
    if not any(sample):
        raise InputError("no text to train a tokenizer on; give a source with text")
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(sample, trainer=trainer)
    return Tokenizer(tokenizer, pad_id=PAD_ID, end_id=END_ID)


def _sample(texts: Iterable[str], *, characters: int) -> list[str]:
    """The texts with the smallest hashes that first reach `characters` in all.

    A heap with the largest hash on top drops what the rest reaches without it, so
    memory stays near `characters` and the result does not depend on the order.
    """
    heap: list[tuple[int, str]] = []
    held = 0
    for key, text in _hashed(texts):
        heapq.heappush(heap, (-key, text))
        held += len(text)
        while held - len(heap[0][1]) >= characters:
            held -= len(heapq.heappop(heap)[1])
    return [text for _, text in sorted(heap, reverse=True)]


def _hashed(texts: Iterable[str]) -> Iterator[tuple[int, str]]:
    for text in texts:
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        yield int.from_bytes(digest), text


def _parse(text: str, where: str) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises nothing more special
        raise InputError(f"{where} is not a tokenizer.json: {error}") from error


def _read_config(path: pathlib.Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise InputError(f"{path} must be a JSON object, e.g. {{'eos_token': ...}}")
    return config


def _token_id(
    tokenizer: tokenizers.Tokenizer, config: Mapping[str, Any], key: str, where: str
) -> int:
    index = tokenizer.token_to_id(config[key])
    if index is None:
        raise InputError(
            f"{where} has no token {config[key]!r}, which its {CONFIG_FILE} names as"
            f" {key!r}; correct one of the two"
        )
    return index


def _mark_special(tokenizer: tokenizers.Tokenizer, config: Mapping[str, Any]) -> None:
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


def _spell_out(tokenizer: tokenizers.Tokenizer, where: str) -> None:
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


def _begin_id(
    tokenizer: tokenizers.Tokenizer, config: Mapping[str, Any], where: str
) -> int | None:
    """The bos_token's id, if the config wants it or the post-processor adds it."""
    if not config.get("bos_token"):
        return None
    if config.get("add_bos_token"):
        return _token_id(tokenizer, config, "bos_token", where)
    plain = tokenizer.encode("a", add_special_tokens=False).ids
    whole = tokenizer.encode("a").ids
    begin = tokenizer.token_to_id(config["bos_token"])
    added = len(whole) > len(plain) and whole[0] == begin
    return begin if added else None


def _token_bytes(tokenizer: tokenizers.Tokenizer, vocab_size: int) -> np.ndarray:
    """One byte per character of a byte-level token; those that were added are text."""
    parts = json.loads(tokenizer.to_str())
    steps = list(_steps(parts["pre_tokenizer"]))
    byte_steps = [one for one in steps if one["type"] == "ByteLevel"]
    if "merges" not in parts["model"] or not byte_steps:
        raise InputError(
            "bits per byte need a byte-level tokenizer (GPT-2, Llama 3, Qwen ...): this"
            " one's tokens do not tell how many bytes of text they stand for; compare"
            " such models by a task's accuracy"
        )
    if any(one["add_prefix_space"] for one in byte_steps):
        raise InputError(
            "bits per byte need a byte-level tokenizer that adds nothing: this one puts"
            " a space before each text (add_prefix_space)"
        )
    bytes_V = np.zeros(vocab_size, dtype=np.int64)
    for token, index in tokenizer.get_vocab(with_added_tokens=False).items():
        bytes_V[index] = len(token)
    for index, added in tokenizer.get_added_tokens_decoder().items():
        bytes_V[index] = 0 if added.special else len(added.content.encode())
    return bytes_V


def _steps(pre_tokenizer: dict | None) -> Iterator[dict]:
    """The steps of a pre-tokenizer's JSON, whatever sequences they are nested in."""
    if pre_tokenizer is None:
        return
    if pre_tokenizer["type"] != "Sequence":
        yield pre_tokenizer
        return
    for one in pre_tokenizer["pretokenizers"]:
        yield from _steps(one)
