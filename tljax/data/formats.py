"""How rows stand in a user's files: CSV, JSON lines, blocks of text, one text a file.

Nothing is dropped and nothing changed; every refusal names the file and the line.
A format walks its files and knows again what the bytes of one row say.
"""

import codecs
import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from tljax.data.files import Row, UserFile
from tljax.settings import InputError, suggestion


def open_table(path: Path, *, text: str, label: str | None) -> UserFile:
    """Opens a .csv, or a .jsonl (or .ndjson), by its extension.

    Args:
      path: the file.
      text: column or key of the text.
      label: column or key of the label; None = not labelled.

    Raises:
      InputError: another extension, or what `CsvFile` and `JsonLines` refuse.
    """
    formats = {".csv": CsvFile, ".jsonl": JsonLines, ".ndjson": JsonLines}
    if path.suffix.lower() not in formats:
        raise InputError(f"{path} must end in one of {', '.join(formats)}")
    return formats[path.suffix.lower()](path, text=text, label=label)


def open_text(path: Path) -> UserFile:
    """Opens documents: each *.txt of a folder, at any depth, or one file's blocks.

    Raises:
      InputError: missing, no *.txt inside, not UTF-8, or only white space.
    """
    return TextFolder(path) if path.is_dir() else TextBlocks(path)


class CsvFile(UserFile):
    """A CSV with a header line. Arguments as in `open_table`.

    Raises:
      InputError: missing, unreadable, empty or not UTF-8; no such column; and when
        walked: a line with more or fewer fields than the header; one without label.
    """

    def __init__(self, path: Path, *, text: str, label: str | None):
        # The default, 131,072 characters a field, is less than a long document.
        csv.field_size_limit(2**31 - 1)
        super().__init__(path, column=text)
        self._label = label
        header, *_ = next(self._records(), ([],))
        self._width = len(header)
        self._places = [_place(header, name, path) for name in _names(text, label)]

    def _walk(self) -> Iterator[Row]:
        records = self._records()
        next(records)  # the header
        for fields, start, stop, line in records:
            if not fields:
                continue
            if len(fields) != self._width:
                raise InputError(
                    f"{self.path}, line {line}: {len(fields)} fields, the header"
                    f" has {self._width}; quote fields that contain commas"
                )
            text, label = self._values(fields)
            if self._label is not None and not label:
                raise InputError(
                    f"{self.path}, line {line}: no label in column {self._label!r};"
                    " fill it in or delete the row"
                )
            yield Row(text, label, start, stop)

    def _parse(self, data: bytes) -> tuple[str, str | None]:
        lines = io.StringIO(data.decode("utf-8"), newline="")
        return self._values(next(csv.reader(lines, strict=True)))

    def _values(self, fields: Sequence[str]) -> tuple[str, str | None]:
        text, *label = [fields[place] for place in self._places]
        return text, label[0] if label else None

    def _records(self) -> Iterator[tuple[list[str], int, int, int]]:
        """(fields, first byte, byte behind the last, its last line) of each record."""
        with self._open() as file:
            lines = _CountedLines(file)
            reader = csv.reader(lines, strict=True)
            start = 0
            try:
                for fields in reader:
                    yield fields, start, lines.taken, reader.line_num
                    start = lines.taken
            except csv.Error as error:
                raise InputError(
                    f"{self.path}, line {reader.line_num}: not valid CSV ({error})"
                ) from error


class _CountedLines:
    """Lines, ended by any of the three line ends, and the bytes taken so far."""

    def __init__(self, file: BinaryIO):
        self._lines = io.TextIOWrapper(file, encoding="utf-8", newline="")
        self.taken = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line, first = next(self._lines), not self.taken
        self.taken += len(line.encode("utf-8"))
        return line.removeprefix("\ufeff") if first else line


class JsonLines(UserFile):
    """One JSON object a line; blank lines are skipped. Arguments as in `open_table`.

    Labels may be strings, integers or booleans; 1 becomes "1", true becomes "true".

    Raises:
      InputError: missing, unreadable, empty or not UTF-8; and when walked: a line that
        is no JSON object, lacks the key, or holds a value of another type there.
    """

    def __init__(self, path: Path, *, text: str, label: str | None):
        super().__init__(path, column=text)
        self._text, self._label = text, label

    def _walk(self) -> Iterator[Row]:
        with self._open() as file:
            for number, (start, stop, line) in enumerate(_lines(file), start=1):
                if line.strip():
                    where = f"{self.path}, line {number}"
                    yield Row(*self._values(line, where), start, stop)

    def _parse(self, data: bytes) -> tuple[str, str | None]:
        return self._values(data.decode("utf-8"), str(self.path))

    def _values(self, line: str, where: str) -> tuple[str, str | None]:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: not valid JSON ({error})") from error
        if not isinstance(row, dict):
            raise InputError(
                f"{where}: must be a JSON object, e.g. {{{self._text!r}: ...}}"
            )
        text, *label = [
            row[_known(row, name, where)] for name in _names(self._text, self._label)
        ]
        return _text(text, self._text, where), _label(label, self._label, where)


class TextBlocks(UserFile):
    """One file, whose documents are what stands between blank lines."""

    def _walk(self) -> Iterator[Row]:
        with self._open() as file:
            block: list[str] = []
            first = last = 0
            for start, stop, line in _lines(file):
                if line.strip():
                    first = first if block else start
                    last = stop
                    block.append(line)
                elif block:
                    yield Row("\n".join(block), None, first, last)
                    block = []
            if block:
                yield Row("\n".join(block), None, first, last)

    def _parse(self, data: bytes) -> tuple[str, None]:
        return data.decode("utf-8"), None


class TextFolder(UserFile):
    """A folder, whose documents are its *.txt files at any depth, ordered by path."""

    def __init__(self, path: Path):
        files = (file.relative_to(path).as_posix() for file in path.rglob("*.txt"))
        # As Paths are ordered: folder by folder.
        names = sorted(files, key=lambda name: name.replace("/", "\0"))
        if not names:
            raise InputError(f"{path} holds no *.txt file, at any depth")
        super().__init__(path, names)

    def _walk(self) -> Iterator[Row]:
        for number in range(len(self._names)):
            with self._open(number) as file:
                data = file.read()
            text, _ = self._parse(data)
            if text.strip():
                yield Row(text, None, 0, len(data), number)

    def _parse(self, data: bytes) -> tuple[str, None]:
        return data.decode("utf-8").removeprefix("\ufeff"), None


def _lines(file: BinaryIO) -> Iterator[tuple[int, int, str]]:
    """(first byte, byte behind the last, text) of each line, without mark and end.

    Text may hold U+2028 and its like, which JSON leaves unescaped: only LF ends a line.
    """
    position = 0
    for line in file:
        mark = codecs.BOM_UTF8 if not position else b""
        start = position + len(mark) * line.startswith(mark)
        text = line.removeprefix(mark).removesuffix(b"\n")
        yield start, start + len(text), text.decode("utf-8")
        position += len(line)


def _names(text: str, label: str | None) -> list[str]:
    return [text] if label is None else [text, label]


def _place(header: Sequence[str], name: str, path: Path) -> int:
    if header.count(name) > 1:
        raise InputError(f"{path} has {header.count(name)} columns named {name!r}")
    return header.index(_known(header, name, str(path)))


def _known(names: Any, name: str, where: str) -> str:
    if name not in names:
        raise InputError(
            f"{where}: no column {name!r}{suggestion(name, names)};"
            f" there are: {', '.join(names) or 'none'}"
        )
    return name


def _text(value: Any, name: str, where: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{where}: {name!r} is {value!r:.40}; it must be a string")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: {name!r} holds half a surrogate pair") from error
    return value


def _label(values: Sequence[Any], name: str | None, where: str) -> str | None:
    if name is None:
        return None
    value = values[0]
    if isinstance(value, int):  # bool is an int; JSON writes it true or false
        return json.dumps(value)
    if not isinstance(value, str) or not value:
        raise InputError(
            f"{where}: label {name!r} is {value!r:.40}; it must be a string that is"
            " not empty, an integer or a boolean"
        )
    return _text(value, name, where)
