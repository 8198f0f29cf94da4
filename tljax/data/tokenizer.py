"""Text to token ids and back: byte-level BPE, with the normaliser inside the file.

text --normalise--> text' --BPE--> ids;  decode(ids) == text' exactly, byte for byte.
Text never turns into a special token: a literal '<|end|>' in it stays ordinary bytes.
"""

import contextlib
import hashlib
import heapq
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from tljax.settings import InputError, suggestion

PAD_ID = 0
END_ID = 1
SPECIAL_TOKENS = ("<|pad|>", "<|end|>")

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
    """A byte-level BPE vocabulary: PAD_ID = 0, END_ID = 1, then bytes and merges."""

    def __init__(self, tokenizer: tokenizers.Tokenizer):
        """Args: tokenizer: a tokenizer whose first ids are SPECIAL_TOKENS."""
        # Not kept by the file: without it a text could forge padding and ends.
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self.token_bytes_V = _token_bytes(tokenizer)

    @property
    def vocab_size(self) -> int:
        """Number of ids, V; fewer than asked for where the text had no more merges."""
        return self._tokenizer.get_vocab_size()

    @property
    def sha256(self) -> str:
        """SHA-256 of the tokenizer.json that save() writes, 64 hex digits."""
        return hashlib.sha256(self._tokenizer.to_str().encode()).hexdigest()

    def normalize(self, text: str) -> str:
        """Returns the text as it is tokenised, and as decode gives it back."""
        normalizer = self._tokenizer.normalizer
        return text if normalizer is None else normalizer.normalize_str(text)

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Returns the ids of each text, int32 [L] with its own L; '' gives [0]-shape.

        No special token is added.
        """
        encoded = []
        for start in range(0, len(texts), ENCODE_CHUNK):
            chunk = list(texts[start : start + ENCODE_CHUNK])
            encoded += [
                np.array(one.ids, dtype=np.int32)
                for one in self._tokenizer.encode_batch_fast(
                    chunk, add_special_tokens=False
                )
            ]
        return encoded

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of the ids; special tokens give no text."""
        return self._tokenizer.decode(
            [int(one) for one in ids], skip_special_tokens=True
        )

    def save(self, path: str | pathlib.Path) -> None:
        """Writes a tokenizer.json that any user of HF tokenizers can read.

        Whole or not at all: a run that is killed meanwhile finds none and goes on.

        Raises:
          InputError: it cannot be written; an old file is still there.
        """
        path = pathlib.Path(path)
        fresh = path.with_name(path.name + ".new")
        try:
            fresh.write_text(self._tokenizer.to_str(), encoding="utf-8")
            fresh.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise InputError(
                f"cannot write {path}: {error.strerror or error}; make room or give"
                " another folder"
            ) from error

    @classmethod
    def load(cls, path: str | pathlib.Path) -> "Tokenizer":
        """Reads a tokenizer.json that save() wrote.

        Raises:
          InputError: no such file, not a tokenizer, or not one with our special ids.
        """
        path = pathlib.Path(path)
        if not path.is_file():
            raise InputError(f"no tokenizer at {path}; give a tokenizer.json")
        try:
            tokenizer = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
        except Exception as error:  # the library raises nothing more special
            raise InputError(f"{path} is not a tokenizer.json: {error}") from error
        found = tuple(tokenizer.id_to_token(one) for one in (PAD_ID, END_ID))
        if found != SPECIAL_TOKENS:
            raise InputError(
                f"{path} has {found} as its first ids; a tokenizer trained here has"
                f" {SPECIAL_TOKENS}: train one with tljax"
            )
        return cls(tokenizer)


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
    return Tokenizer(tokenizer)


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


def _token_bytes(tokenizer: tokenizers.Tokenizer) -> np.ndarray:
    """Bytes of text behind each id, int64 [V]: one per character of a byte-level token.

    Special tokens stand for no text and count 0.
    """
    bytes_V = np.zeros(tokenizer.get_vocab_size(), dtype=np.int64)
    for token, index in tokenizer.get_vocab().items():
        bytes_V[index] = 0 if token in SPECIAL_TOKENS else len(token)
    return bytes_V
