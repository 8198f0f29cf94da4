"""A user's own files: walked once, then read again row by row.

walk -> (text, label, first byte, byte behind the last)   the places are kept, 24 bytes
place -> (text, label)                                     a row, the texts are not
Formats say how (see `formats`). One row is in memory at a time, however long the file;
every refusal is one line that names the file, and what to change.
"""

import abc
import array
import codecs
import contextlib
import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from tljax.data.splits import Dropped, Example, StoredExamples, distinct
from tljax.settings import InputError, suggestion

_BLOCK = 2**20  # bytes checked at a time


class Row(NamedTuple):
    """One row and where it stands: start and stop in bytes, in one of the files."""

    text: str
    label: str | None
    start: int
    stop: int
    file: int = 0


class UserFile(abc.ABC):
    """Rows of one file, or of the files of a folder, in their order.

    Attributes:
      path: the file or the folder.
      sha256: of the file; of a folder: of its files' paths and SHA-256s.
    """

    def __init__(self, path: Path, names: Sequence[str] = ("",), *, column: str = ""):
        """Reads every file once, to check that it is text.

        Args:
          path: the file or the folder.
          names: of the folder's files.
          column: which holds the texts, for messages.

        Raises:
          InputError: a file is missing, unreadable, not UTF-8, or, alone, empty.
        """
        self.path, self._names, self._column = path, names, column
        self._stamps = array.array("q")  # two a file
        total = hashlib.sha256()
        for name in names:
            sha256, stamp = _check(path / name, empty_allowed=bool(name))
            self._stamps.extend(stamp)
            total.update(f"{name} {sha256}\n".encode())
        self.sha256 = total.hexdigest() if path.is_dir() else sha256

    def __iter__(self) -> Iterator[Row]:
        """All rows.

        Raises:
          InputError: a line is refused, or there is no row, or none has a text.
        """
        count, filled = 0, False
        for row in self._walk():
            count, filled = count + 1, filled or bool(row.text.strip())
            yield row
        if not count:
            raise InputError(f"{self.path} holds no rows")
        if not filled:
            raise InputError(
                f"{self.path}: column {self._column!r} is empty in all {count} rows;"
                " name the one with the texts, ?text=NAME"
            )

    def distinct_examples(self) -> tuple[StoredExamples, Dropped]:
        """The first row of every text, in their one order; see `splits.distinct`."""
        places = array.array("q")

        def walked() -> Iterator[tuple[str, str | None]]:
            for text, label, *place in self:
                places.extend(place)
                yield text, label

        kept, dropped = distinct(walked())
        places = np.frombuffer(places, np.int64).reshape(-1, 3)[kept]
        return StoredExamples(self._read, places), dropped

    @abc.abstractmethod
    def _walk(self) -> Iterator[Row]:
        """The rows as the format has them."""

    @abc.abstractmethod
    def _parse(self, data: bytes) -> tuple[str, str | None]:
        """Text and label of the bytes of one row."""

    def _read(self, places: Iterable) -> Iterator[Example]:
        places = np.asarray(places).tolist()
        for number, rows in itertools.groupby(places, key=lambda place: place[2]):
            with self._open(number) as file:
                for start, stop, _ in rows:
                    data = os.pread(file.fileno(), stop - start, start)
                    yield Example.of(*self._parse(data))

    @contextlib.contextmanager
    def _open(self, number: int = 0) -> Iterator[BinaryIO]:
        """A file that was checked; InputError if it is not the same any more."""
        path = self.path / self._names[number]
        try:
            file = path.open("rb")
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from error
        with file:
            if _stamp(file) != tuple(self._stamps[2 * number : 2 * number + 2]):
                raise InputError(
                    f"{path} was changed while it was in use; leave it as it is and"
                    " run this again"
                )
            yield file


def _stamp(file: BinaryIO) -> tuple[int, int]:
    facts = os.fstat(file.fileno())
    return facts.st_size, facts.st_mtime_ns


def _check(path: Path, *, empty_allowed: bool) -> tuple[str, tuple[int, int]]:
    """SHA-256 and stamp of a file of UTF-8 text."""
    if not path.exists():
        names = os.listdir(path.parent) if path.parent.is_dir() else []
        raise InputError(f"{path} does not exist{suggestion(path.name, names)}")
    if not path.is_file() and not path.is_dir():
        raise InputError(
            f"{path} is no file on disk, and it is read more than once; write it to one"
        )
    sha256, decoder = hashlib.sha256(), codecs.getincrementaldecoder("utf-8")()
    lines, position, empty = 0, 0, True
    try:
        with path.open("rb") as file:
            stamp = _stamp(file)
            while block := file.read(_BLOCK):
                sha256.update(block)
                decoder.decode(block)
                empty = empty and block.isspace()
                position, lines = position + len(block), lines + block.count(b"\n")
            block = b""
            decoder.decode(block, final=True)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        # What was decoded is this block, behind the end of the one before.
        data, start = error.object, error.start
        offset = position + len(block) - len(data) + start
        raise InputError(
            f"{path}, line {lines + data.count(b'\n', 0, start) + 1}: not UTF-8 (byte"
            f" 0x{data[start]:02x} at offset {offset}); save the file as UTF-8"
        ) from error
    if empty and not empty_allowed:
        raise InputError(f"{path} is empty")
    return sha256.hexdigest(), stamp
