"""The keys of settings: shown with their meaning, and set by --config.a.b=VALUE.

    --config.optim.lr_peak=1e-3  ->  config["optim"]["lr_peak"] = 0.001

An override is read as the type that its key has in the settings, never guessed.
"""

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from typing import Any

from tljax.cli.command import columns
from tljax.settings import InputError, check_value, describe, suggestion

Kinds = Mapping[str, type] | type


def kind_of(config: Mapping[str, Any], kinds: Kinds) -> type:
    """The settings dataclass of a config. Raises: InputError if its kind is none."""
    if isinstance(kinds, type):
        return kinds
    name = config.get("kind", "missing")
    if name not in tuple(kinds):  # it may be a list, which no dict looks up
        raise InputError(
            f"config.kind is {name!r:.40}{suggestion(str(name), kinds)}; allowed:"
            f" {', '.join(kinds)}"
        )
    return kinds[name]


def override(kind: type, config: dict[str, Any], key: str, text: str) -> None:
    """Sets config[a][b] = text, read as the type of the setting a.b.

    Raises:
      InputError: no such key, a group of keys, or text that is not of its type.
    """
    *groups, name = key.split(".")
    wanted, node, where = kind, config, "config"
    for group in groups:
        wanted = _type_of(wanted, node, group, where)
        where = f"{where}.{group}"
        node = node.setdefault(group, {})
        if not isinstance(node, dict):
            raise InputError(f"--{where}.{name}: {where} is not a group of settings")
    wanted = _type_of(wanted, node, name, where)
    if dataclasses.is_dataclass(wanted):
        inside = ", ".join(field.name for field in dataclasses.fields(wanted))
        raise InputError(f"--{where}.{name} is a group; set one of its keys: {inside}")
    node[name] = parse_value(text, wanted, f"--{where}.{name}")


def read_as(kind: type, key: str, text: str) -> Any:
    """Text as a value of the setting a.b.

    Raises:
      InputError: as `override` does, or it is out of the setting's range.
    """
    config: dict[str, Any] = {}
    override(kind, config, key, text)
    *groups, name = key.split(".")
    for group in groups:
        config = config[group]
    check_value(kind, key, config[name])
    return config[name]


def _type_of(wanted: Any, node: Mapping[str, Any], name: str, where: str) -> Any:
    """The type of a key in a settings dataclass, or in a dict of the config."""
    if dataclasses.is_dataclass(wanted):
        types_of = typing.get_type_hints(wanted)
        allowed = [field.name for field in dataclasses.fields(wanted)]
    elif typing.get_origin(wanted) in (dict, Mapping, types.MappingProxyType):
        allowed = list(node)
        types_of = dict.fromkeys(allowed, typing.get_args(wanted)[1])
    else:
        raise InputError(f"--{where}.{name}: {where} is not a group of settings")
    if name not in allowed:
        raise InputError(
            f"--{where}.{name} is not a setting{suggestion(name, allowed)}; allowed:"
            f" {', '.join(allowed)}"
        )
    return types_of[name]


def parse_value(text: str, wanted: Any, where: str) -> Any:
    """Reads text as a bool, int, float, str, list (1,2,3 or JSON) or dict (JSON).

    Raises:
      InputError: it is not of that type.
    """
    try:
        if wanted is bool:
            return {"true": True, "false": False}[text.lower()]
        if wanted in (int, float, str):
            return wanted(text)
        if typing.get_origin(wanted) is tuple and not text.startswith("["):
            item = typing.get_args(wanted)[0]
            parts = [part.strip() for part in text.strip("()").split(",")]
            return [parse_value(part, item, where) for part in parts if part]
        return json.loads(text)
    except (ValueError, KeyError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        name = {bool: "true or false", int: "a whole number", float: "a number"}
        raise InputError(
            f"{where}={text} is not {name.get(wanted, 'a list or JSON')}"
        ) from error


def keys_text(kinds: Kinds, config: Mapping[str, Any] | None) -> str:
    """Every key: its type or, where a config is given, its value; what it means.

    Args:
      kinds: the settings dataclass, or {config.kind: settings dataclass}.
      config: of one of the kinds; None = the keys of all.
    """
    if config is not None:
        kinds = kind_of(config, kinds)
    if isinstance(kinds, type):
        return f"keys:\n{columns(_rows(kinds, config))}"
    rows_of = {name: _rows(kind, None) for name, kind in kinds.items()}
    shared = set.intersection(*(set(rows) for rows in rows_of.values()))
    blocks = []
    for name, rows in rows_of.items():
        own = [row for row in rows if row not in shared]
        blocks.append(f"keys where config.kind is {name!r}:\n{columns(own)}")
    common = [row for row in next(iter(rows_of.values())) if row in shared]
    return "\n\n".join([*blocks, f"keys of every kind:\n{columns(common)}"])


def _rows(kind: type, config: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    rows = []
    for key, type_name, meaning in describe(kind):
        names = key.split(".")[1:]
        left = f"{key} ({type_name})"
        if config is not None:
            left = f"{key} = {_value_at(config, names, kind)}"
        rows.append((left, meaning + _allowed(kind, names)))
    return rows


def _value_at(config: Any, names: list[str], kind: type) -> str:
    default = _field(kind, names).default
    absent = "(missing)" if default is dataclasses.MISSING else default
    for name in names:
        config = config.get(name, absent) if isinstance(config, Mapping) else config
    return json.dumps(config, ensure_ascii=False, default=str)


def _field(kind: type, names: list[str]) -> dataclasses.Field:
    *groups, name = names
    for group in groups:
        kind = typing.get_type_hints(kind)[group]
    return kind.__dataclass_fields__[name]


def _allowed(kind: type, names: list[str]) -> str:
    """' [one of 1, 2]', ' [at least 0]', ' [0 to 1]', or ''."""
    limits = _field(kind, names).metadata
    if limits.get("choices"):
        return f" [one of {', '.join(map(str, limits['choices']))}]"
    # 300.0 reads better as 300; a large seed must not become 4.3e9
    low, high = (
        int(one) if isinstance(one, float) and one.is_integer() else one
        for one in (limits.get("low"), limits.get("high"))
    )
    if high is not None:
        return f" [{low} to {high}]"
    return "" if low is None else f" [at least {low}]"
