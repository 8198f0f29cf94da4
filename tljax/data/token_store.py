"""The documents of one split as token ids: tokenised once, kept in the cache.

One split is one flat array; E = end_id opens each document and closes the last:
  flat     E a b c E d e E      document 0 reads E a b c and learns  a b c E,
  offsets  0       4     7      document 1 reads E d e   and learns  d e E.
"""

import dataclasses
import itertools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tljax.data.folders import whole_folder
from tljax.data.sources import Source, default_cache
from tljax.data.tokenizer import ENCODE_CHUNK, Tokenizer
from tljax.settings import InputError


@dataclasses.dataclass(frozen=True)
class TokenStore:
    """The documents of one split as in the picture above.

    Attributes:
      flat: uint16 or int32 [tokens + 1], possibly on disk.
      offsets: int64 [documents + 1]; where each document's E stands.
    """

    flat: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        """Number of documents."""
        return len(self.offsets) - 1

    @property
    def token_count(self) -> int:
        """Targets of one epoch: all tokens and one closing E a document."""
        return int(self.offsets[-1])

    def read(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns int32 inputs flat[start:stop] and the targets one to their right."""
        part = self.flat[start : stop + 1].astype(np.int32)
        return part[:-1], part[1:]

    def byte_counts(self, tokenizer: Tokenizer) -> np.ndarray:
        """Returns the UTF-8 bytes of each document's normalised text, int64.

        Bits per byte divided by these are honest: they count what decode gives back.
        """
        bytes_of_flat = tokenizer.token_bytes_V[self.flat]
        return np.add.reduceat(bytes_of_flat, self.offsets[:-1])


def open_token_store(
    source: Source,
    split: str,
    tokenizer: Tokenizer,
    *,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> TokenStore:
    """Returns the tokens of one split, from the cache or tokenised now and kept there.

    Args:
      source: where the documents come from.
      split: 'train', 'validation' or 'test'.
      tokenizer: the same one the model is trained with.
      cache: folder; None = $TLJAX_CACHE, else ~/.cache/tljax.
      progress: called with (documents tokenised, documents in all) as it goes.

    Raises:
      InputError: the split has no documents, or the cache cannot be written.
    """
    key = f"{source.split_hash(split)[:24]}-{tokenizer.sha256[:24]}"
    folder = Path(cache or default_cache()) / "tokens" / key
    if not os.path.exists(folder):  # False, too, in a cache that may not be entered
        store = tokenize_documents(source, split, tokenizer, progress=progress)
        _write_store(folder, store)
    return TokenStore(
        flat=np.load(folder / "flat.npy", mmap_mode="r"),
        offsets=np.load(folder / "offsets.npy"),
    )


def tokenize_documents(
    source: Source,
    split: str,
    tokenizer: Tokenizer,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> TokenStore:
    """Returns the tokens of one split in memory; see open_token_store."""
    examples = source.examples(split)
    if not len(examples):
        raise InputError(f"{source.uri} has no documents in its split {split!r}")
    # Half the memory and disk wherever the vocabulary allows it.
    dtype = np.uint16 if tokenizer.vocab_size <= 2**16 else np.int32
    end = np.array([tokenizer.end_id], dtype)
    parts, lengths = [], []
    for chunk in itertools.batched(examples, ENCODE_CHUNK):
        for ids in tokenizer.encode([example.text for example in chunk]):
            parts += [end, ids.astype(dtype)]
            lengths.append(len(ids) + 1)
        if progress is not None:
            progress(len(lengths), len(examples))
    return TokenStore(
        flat=np.concatenate([*parts, end]),
        offsets=np.cumsum([0, *lengths], dtype=np.int64),
    )


def _write_store(folder: Path, store: TokenStore) -> None:
    """A folder there is always whole."""
    try:
        with whole_folder(folder) as fresh:
            _save_array(fresh / "flat.npy", store.flat)
            _save_array(fresh / "offsets.npy", store.offsets)
    except InputError as error:
        # If another process was faster, its folder holds the same tokens.
        if not os.path.exists(folder):
            raise InputError(f"{error}, by TLJAX_CACHE") from error


def _save_array(path: Path, array: np.ndarray) -> None:
    """Writes as np.save, which overlooks a disk that fills up in the last 4 KB."""
    with path.open("wb") as file:
        header = np.lib.format.header_data_from_array_1_0(array)
        np.lib.format.write_array_header_1_0(file, header)
        file.write(array.data)
