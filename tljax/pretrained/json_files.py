"""JSON files of other people's folders: read whole, refused in one line.

path -> text -> value -> object
"""

import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from tljax.settings import InputError


def json_text(value: Mapping[str, Any]) -> str:
    """As it stands in a file."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_text(path: pathlib.Path) -> str:
    """A file's text. Raises: InputError if it cannot be read, or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8; fetch it again") from error


def read_json(path: pathlib.Path) -> Any:
    """A file's value. Raises: InputError if it is not JSON."""
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}; fetch it again") from error


def read_object(path: pathlib.Path) -> dict[str, Any]:
    """A file's object. Raises: InputError if it is missing, or something else."""
    if not path.is_file():
        raise InputError(
            f"{path} does not exist; give a folder as Transformers writes it"
        )
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(f"{path} must be a JSON object; fetch it again")
    return value


def check_finite(value: Mapping[str, Any], path: pathlib.Path) -> None:
    """Refuses NaN and Infinity, which Python reads but no JSON has.

    Raises:
      InputError: there is one; its key is named.
    """
    left: list[tuple[str, Any]] = [("", value)]
    while left:
        name, one = left.pop()
        if isinstance(one, float) and not math.isfinite(one):
            raise InputError(f"{path} has {name}={one}; it must be a finite number")
        if isinstance(one, dict):
            left += [(f"{name}.{key}" if name else key, x) for key, x in one.items()]
        if isinstance(one, list):
            left += [(f"{name}[{i}]", x) for i, x in enumerate(one)]
