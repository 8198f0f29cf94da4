"""Text to token ids and back: a byte-level BPE trained here, or other people's files.

Ours: text --normalise--> text' --BPE--> ids;  decode(ids) == text', byte for byte.
Text never turns into a special token: a literal '<|end|>' in it stays ordinary bytes.
"""

import contextlib
import functools
import hashlib
import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tokenizers

from tljax.data import foreign_tokenizer as foreign
from tljax.settings import InputError

# Of tokenizers trained here; others say theirs, so ask Tokenizer.pad_id and .end_id.
PAD_ID = 0
END_ID = 1
SPECIAL_TOKENS = ("<|pad|>", "<|end|>")

# Of the texts handed to the Rust side at a time: keeps all cores busy, and what is made
# of them in the caches.
ENCODE_CHARACTERS = 200_000


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
        tokenizer = foreign.parse(tokenizer_json, where)
        if not tokenizer.get_vocab(with_added_tokens=False):
            raise InputError(
                f"{where}: its tokenizer.json has an empty vocabulary; fetch it again"
            )
        tokenizer.no_truncation()
        tokenizer.no_padding()
        config = foreign.plain_config(tokenizer_config, where)
        ends = [key for key in ("eos_token", "sep_token") if config.get(key)]
        if not ends:
            raise InputError(
                f"{where}: its {foreign.CONFIG_FILE} names no 'eos_token' and no"
                " 'sep_token'; add the token that ends a text"
            )
        end_id = foreign.token_id(tokenizer, config, ends[0], where)
        pad_key = "pad_token" if config.get("pad_token") else ends[0]
        pad_id = foreign.token_id(tokenizer, config, pad_key, where)
        foreign.mark_special(tokenizer, config)
        made = cls(tokenizer, pad_id=pad_id, end_id=end_id)
        foreign.spell_out(tokenizer, where)
        made.begin_id = foreign.begin_id(tokenizer, config, where)
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
        encoded = self.encode_stream(texts, special=special)
        if longest:
            return [self._cut(ids, longest, special) for ids in encoded]
        return list(encoded)

    def encode_stream(
        self, texts: Iterable[str], *, special: bool = False
    ) -> Iterator[np.ndarray]:
        """The ids of text after text, as `encode` gives them; a few are held at a time.

        Args:
          texts: read as they are needed.
          special: as of `encode`.
        """
        for chunk in _chunks(texts):
            for one in self._tokenizer.encode_batch_fast(
                chunk, add_special_tokens=special
            ):
                yield np.array(one.ids, dtype=np.int32)

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
            texts = {path.with_name(foreign.CONFIG_FILE): config + "\n"} | texts
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
        beside = path.with_name(foreign.CONFIG_FILE)
        if beside.is_file():
            return cls.from_parts(text, foreign.read_config(beside), str(path))
        tokenizer = foreign.parse(text, str(path))
        found = tuple(tokenizer.id_to_token(one) for one in (PAD_ID, END_ID))
        if found != SPECIAL_TOKENS:
            raise InputError(
                f"{path} has {found} as its first ids, so it was not trained here,"
                f" where they are {SPECIAL_TOKENS}; put the {foreign.CONFIG_FILE} that"
                " came with it beside it, or train one with tljax"
            )
        return cls(tokenizer, pad_id=PAD_ID, end_id=END_ID)


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    """Texts of ENCODE_CHARACTERS or a little more, together."""
    chunk, characters = [], 0
    for text in texts:
        chunk.append(text)
        characters += len(text)
        if characters >= ENCODE_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


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
