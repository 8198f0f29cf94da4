"""Files written whole or not at all, and JSON that is equal for equal values.

A new file beside the old one, then a rename: a reader never sees half, and a full disk
leaves what was there. Knows nothing of what is written.
"""

import contextlib
import errno
import hashlib
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any, BinaryIO

from tljax.settings import InputError

DISK_FULL = {
    errno.ENOSPC: "No space left on device",
    errno.EDQUOT: "Disk quota exceeded",
    errno.EFBIG: "File too large",
}


def canonical_json(value: Any) -> str:
    """JSON that is equal for equal values: sorted keys, no spaces, no NaN."""
    return json.dumps(
        value,
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    )


def sha256_of(value: Any) -> str:
    """Hex SHA-256 of a JSON-able value, e.g. a config, in its canonical form."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def write_text(path: pathlib.Path | str, text: str) -> None:
    """Writes a whole file or nothing: whoever reads sees the old or the new text.

    Raises:
      InputError: the disk is full; the old file is still there.
    """
    write_bytes(path, lambda file: file.write(text.encode()))


def write_bytes(path: pathlib.Path | str, write: Callable[[BinaryIO], object]) -> None:
    """As `write_text`; `write` is given the opened file.

    Raises:
      InputError: the disk is full; the old file is still there.
    """
    path = pathlib.Path(path)
    fresh = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(fresh, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except OSError as error:
        with contextlib.suppress(OSError):  # what is wrong with the place, also here
            fresh.unlink()
        raise write_error(path, error) from error


def write_json(path: pathlib.Path | str, value: Any) -> None:
    """Writes a JSON file, indented for people, whole or not at all."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def read_json(path: pathlib.Path | str) -> Any:
    """Reads a JSON file.

    Raises:
      InputError: there is no such file, or it cannot be read, or is not JSON.
    """
    path = pathlib.Path(path)
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{path} does not exist; give a run folder that has it"
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}; bring it back") from None


def write_error(path: pathlib.Path, error: OSError) -> InputError:
    """One line for the user about a file that could not be written."""
    reason = disk_full(error) or error.strerror or str(error)
    return InputError(
        f"cannot write {path}: {reason}; make room or give another folder"
    )


def disk_full(error: BaseException | None) -> str | None:
    """Why the disk takes no more, if that is what `error` or its cause says.

    TensorStore and Orbax's threads wrap the system's error in text of their own, so
    its text is looked for too.
    """
    while error is not None:
        for number, text in DISK_FULL.items():
            if getattr(error, "errno", None) == number or text in str(error):
                return text
        error = error.__cause__ or error.__context__
    return None
