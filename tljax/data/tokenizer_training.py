"""A byte-level BPE vocabulary learnt from text; the same text gives the same file.

text --normalise--> text' --BPE--> ids: what is normalised away is decided here.
"""

import hashlib
import heapq
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from tljax.data.folders import kept_folder
from tljax.data.sources import Source, default_cache
from tljax.data.tokenizer import END_ID, PAD_ID, SPECIAL_TOKENS, Tokenizer
from tljax.settings import InputError, suggestion

# BPE merges hardly change beyond this much text, and counting words is what costs.
TRAINING_CHARACTERS = 20_000_000
RECIPE = 1  # the next number where the same text would give another vocabulary
FILE = "tokenizer.json"

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


def trained_tokenizer(
    source: Source, *, vocab_size: int, normalization: str, cache: Path | None = None
) -> Tokenizer:
    """The vocabulary of a source's training split: from the cache, or learnt and kept.

    Args:
      source: where the documents come from.
      vocab_size, normalization: as for `train_tokenizer`.
      cache: folder; None = $TLJAX_CACHE, else ~/.cache/tljax.

    Raises:
      InputError: as `train_tokenizer`; or the cache cannot be written.
    """
    recipe = f"{RECIPE}-{tokenizers.__version__}-{vocab_size}-{normalization}"
    key = f"{source.split_hash('train')[:24]}-{recipe}"
    folder = Path(cache or default_cache()) / "tokenizers" / key
    if not os.path.exists(folder):
        made = train_tokenizer(
            (example.text for example in source.examples("train")),
            vocab_size=vocab_size,
            normalization=normalization,
        )
        with kept_folder(folder) as fresh:
            made.save(fresh / FILE)
    return Tokenizer.load(folder / FILE)


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
