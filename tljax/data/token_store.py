"""The documents of one split as token ids: tokenised once, kept in the cache.

One split is one flat array; E = end_id opens each document and closes the last:
  flat     E a b c E d e E      document 0 reads E a b c and learns  a b c E,
  offsets  0       4     7      document 1 reads E d e   and learns  d e E.
"""

import array
import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tljax.data.folders import kept_folder
from tljax.data.sources import Source, default_cache
from tljax.data.splits import Example
from tljax.data.tokenizer import Tokenizer
from tljax.settings import InputError

_CHUNK = 1_000  # documents whose bytes are counted, or told of, at a time


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
        token_bytes_V = tokenizer.token_bytes_V
        counts = np.empty(len(self), np.int64)
        for first in range(0, len(self), _CHUNK):
            offsets = self.offsets[first : first + _CHUNK + 1]
            bytes_of_flat = token_bytes_V[self.flat[offsets[0] : offsets[-1]]]
            counts[first : first + _CHUNK] = np.add.reduceat(
                bytes_of_flat, offsets[:-1] - offsets[0]
            )
        return counts


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
        examples = source.examples(split)
        if not len(examples):
            raise InputError(f"{source.uri} has no documents in its split {split!r}")
        with kept_folder(folder) as fresh:
            _write_store(fresh, examples, tokenizer, progress)
    return TokenStore(
        flat=np.load(folder / "flat.npy", mmap_mode="r"),
        offsets=np.load(folder / "offsets.npy"),
    )


def _write_store(
    folder: Path,
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Writes document after document; only their lengths stay in memory."""
    # Half the memory and disk wherever the vocabulary allows it.
    dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 2**16 else np.int32)
    end = np.array([tokenizer.end_id], dtype)
    lengths = array.array("q", [0])
    texts = (example.text for example in examples)
    with (folder / "flat.npy").open("wb") as file:
        _write_header(file, dtype, 0)
        for done, ids in enumerate(tokenizer.encode_stream(texts), start=1):
            file.write(end.data)
            file.write(ids.astype(dtype).data)
            lengths.append(len(ids) + 1)
            if progress is not None and (done % _CHUNK == 0 or done == len(examples)):
                progress(done, len(examples))
        file.write(end.data)
        offsets = np.cumsum(lengths, dtype=np.int64)
        file.seek(0)
        _write_header(file, dtype, int(offsets[-1]) + 1)
    with (folder / "offsets.npy").open("wb") as file:
        _write_header(file, offsets.dtype, len(offsets))
        file.write(offsets.data)


def _write_header(file: BinaryIO, dtype: np.dtype, items: int) -> None:
    """That of an array [items]; always as long, so that it can be written again.

    np.save would do, but it overlooks a disk that fills up in the last 4 KB.
    """
    descr = np.lib.format.dtype_to_descr(dtype)
    header = {"descr": descr, "fortran_order": False, "shape": (items,)}
    np.lib.format.write_array_header_1_0(file, header)
