"""A user's own files as rows: CSV, JSON lines, plain text.

file -> [(text, label)] in the file's order, nothing dropped, nothing changed.
Every refusal is one line that names the file and the line, and what to change.
Files are read whole into memory.
"""

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tljax.settings import InputError, suggestion

Rows = list[tuple[str, str | None]]


def read_file(path: Path, *, text: str, label: str | None) -> Rows:
    """Reads a .csv, or a .jsonl (or .ndjson), by its extension.

    Args:
      path: the file.
      text: column or key of the text.
      label: column or key of the label; None = not labelled.

    Returns:
      (text, label) pairs in the file's order.

    Raises:
      InputError: another extension, or what `read_csv` and `read_jsonl` refuse.
    """
    reader = {".csv": read_csv, ".jsonl": read_jsonl, ".ndjson": read_jsonl}
    if path.suffix.lower() not in reader:
        raise InputError(f"{path} must end in one of {', '.join(reader)}")
    return reader[path.suffix.lower()](path, text=text, label=label)


def read_csv(path: Path, *, text: str, label: str | None) -> Rows:
    """Reads a CSV with a header line. Arguments and result as in `read_file`.

    Raises:
      InputError: missing, unreadable, empty or not UTF-8; no such column; a line with
        more or fewer fields than the header; a line without label.
    """
    # The default, 131,072 characters a field, is less than a long document.
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(io.StringIO(_content(path), newline=""), strict=True)
    try:
        header = next(reader, [])
        places = [_place(header, name, path) for name in _names(text, label)]
        rows = []
        for fields in reader:
            if not fields:
                continue
            if len(fields) != len(header):
                raise InputError(
                    f"{path}, line {reader.line_num}: {len(fields)} fields, the header"
                    f" has {len(header)}; quote fields that contain commas"
                )
            values = [fields[place] for place in places]
            if label is not None and not values[1]:
                raise InputError(
                    f"{path}, line {reader.line_num}: no label in column {label!r};"
                    " fill it in or delete the row"
                )
            rows.append((values[0], values[1] if label is not None else None))
    except csv.Error as error:
        raise InputError(
            f"{path}, line {reader.line_num}: not valid CSV ({error})"
        ) from error
    return _some(rows, path, text)


def read_jsonl(path: Path, *, text: str, label: str | None) -> Rows:
    """Reads one JSON object a line; blank lines are skipped. As in `read_file`.

    Labels may be strings, integers or booleans; 1 becomes "1", true becomes "true".

    Raises:
      InputError: missing, unreadable, empty or not UTF-8; a line that is no JSON
        object, lacks the key, or holds a value of another type there.
    """
    rows = []
    # Not splitlines(): text may hold U+2028 and its like, which JSON leaves unescaped.
    for number, line in enumerate(_content(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: not valid JSON ({error})") from error
        if not isinstance(row, dict):
            raise InputError(f"{where}: must be a JSON object, e.g. {{{text!r}: ...}}")
        values = [row[_known(row, name, where)] for name in _names(text, label)]
        rows.append((_text(values[0], text, where), _label(values[1:], label, where)))
    return _some(rows, path, text)


def read_text(path: Path) -> Rows:
    """Reads documents: each *.txt of a folder, at any depth, or one file's blocks.

    Args:
      path: a folder (one document a file, ordered by path), or one file, whose
        documents are what stands between blank lines.

    Raises:
      InputError: missing, no *.txt inside, not UTF-8, or only white space.
    """
    if path.is_dir():
        files = sorted(path.rglob("*.txt"))
        if not files:
            raise InputError(f"{path} holds no *.txt file, at any depth")
        documents = [_content(file, empty_allowed=True) for file in files]
    else:
        lines = _content(path).split("\n")
        documents = ["\n".join(block) for block in _blocks(lines)]
    return _some([(text, None) for text in documents if text.strip()], path)


def _blocks(lines: Sequence[str]) -> Iterator[list[str]]:
    block: list[str] = []
    for line in [*lines, ""]:
        if line.strip():
            block.append(line)
        elif block:
            yield block
            block = []


def _content(path: Path, *, empty_allowed: bool = False) -> str:
    """A file's text, without byte order mark."""
    if not path.exists():
        names = os.listdir(path.parent) if path.parent.is_dir() else []
        raise InputError(f"{path} does not exist{suggestion(path.name, names)}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if not data.strip() and not empty_allowed:
        raise InputError(f"{path} is empty")
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}, line {line}: not UTF-8 (byte 0x{data[error.start]:02x} at offset"
            f" {error.start}); save the file as UTF-8"
        ) from error


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


def _some(rows: Rows, path: Path, column: str = "") -> Rows:
    if not rows:
        raise InputError(f"{path} holds no rows")
    if not any(text.strip() for text, _ in rows):
        raise InputError(
            f"{path}: column {column!r} is empty in all {len(rows)} rows; name the one"
            " with the texts, ?text=NAME"
        )
    return rows
