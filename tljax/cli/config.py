"""From --config=FILE.py[:preset] and --config.a.b=VALUE to checked settings.

    FILE.py:get_config(preset) or a run folder's config.json -> overrides -> settings

An override is read as the type that its key has in the settings, never guessed; a key
that is not there is an error with the nearest one that is. Guesses no default.
"""

import os
import pathlib
import types
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tljax.cli.command import Flag, help_text, no_words, read_flags
from tljax.cli.keys import Kinds, keys_text, kind_of, override
from tljax.settings import InputError, from_config, suggestion

CONFIG = Flag(
    "config", "FILE.py[:PRESET]", "decisions of the run, or a run folder's config.json"
)
WORKDIR = Flag(
    "workdir", "DIR", "folder of the run; made, or gone on with if it stopped"
)
PRINT_CONFIG = Flag("print_config", "", "shows every key, its meaning and its value")


class Command(NamedTuple):
    """What a command line asks for.

    Attributes:
      settings: an instance of the settings dataclass, checked (`from_config`).
      workdir: where to.
      rest: the command's own flags that were given, name -> text ('' of a switch).
      overridden: keys that the command line set, without 'config.'.
    """

    settings: Any
    workdir: pathlib.Path
    rest: dict[str, str]
    overridden: tuple[str, ...]


def parse_command(
    argv: Sequence[str],
    *,
    kinds: Kinds,
    program: str,
    description: str,
    flags: Sequence[Flag] = (),
) -> Command:
    """Reads a command that trains: --config, --config.KEY=VALUE, --workdir and its own.

    --help and --print_config print and raise SystemExit(0).

    Args:
      argv: arguments, without the program's name.
      kinds: the settings dataclass, or {config.kind: settings dataclass}.
      program: as the user types it, e.g. 'tljax train'.
      description: for --help.
      flags: of this command only.

    Raises:
      InputError: a flag, the file, a key or a value that cannot be used.
    """
    own = (CONFIG, WORKDIR, PRINT_CONFIG, *flags)
    given = read_flags(argv, own, program=program)
    config = None
    if "config" in given.flags:
        config = load_config(given.flags["config"], given.overrides, kinds=kinds)
    if "help" in given.flags:
        usage = f"{program} {CONFIG} [--config.KEY=VALUE ...] {WORKDIR}"
        print(help_text(usage, description, own))
        print(f"\n{keys_text(kinds, config)}")
        raise SystemExit(0)
    no_words(given, program)
    if "print_config" in given.flags:
        if config is not None:
            from_config(kind_of(config, kinds), config)
        print(keys_text(kinds, config))
        raise SystemExit(0)
    for flag in (CONFIG, WORKDIR):
        if flag.name not in given.flags:
            raise InputError(f"{program} needs {flag}; `{program} --help` tells more")
    rest = {flag.name for flag in flags} & given.flags.keys()
    return Command(
        settings=from_config(kind_of(config, kinds), config),
        workdir=pathlib.Path(os.path.expanduser(given.flags["workdir"])),
        rest={name: given.flags[name] for name in rest},
        overridden=tuple(given.overrides),
    )


def load_config(
    argument: str, overrides: Mapping[str, str], *, kinds: Kinds
) -> dict[str, Any]:
    """Loads a config and lays the overrides over it.

    Args:
      argument: FILE.py, FILE.py:PRESET, a config.json, or a folder that holds one.
      overrides: dotted key (without 'config.') -> value as text.
      kinds: as for `parse_command`.

    Returns:
      Plain nested dicts; `from_config` checks them.

    Raises:
      InputError: no such file or preset, a key that is not a setting, a value that is
        not of its type.
    """
    config = _read(argument)
    if "kind" in overrides:
        config = {**config, "kind": overrides["kind"]}
    kind = kind_of(config, kinds)
    for key, text in overrides.items():
        override(kind, config, key, text)
    return config


def load_sweep(argument: str) -> dict[str, Any]:
    """What the sweep() of a config file says; {} where there is none.

    Raises:
      InputError: the file or its sweep() cannot be run, or it says no dict.
    """
    path, _ = _place(argument)
    if path.suffix != ".py":
        return {}
    said = _call(path, "sweep", [], needed=False)
    if not isinstance(said, dict | None):
        raise InputError(f"--config: {path}: sweep() must return a dict of flags")
    return said or {}


def _read(argument: str) -> dict[str, Any]:
    path, preset = _place(argument)
    if path.suffix == ".py":
        return _read_python(path, preset)
    if path.suffix != ".json":
        raise InputError(f"--config: {path} must end in .py or .json")
    from tljax.train.files import read_json

    config = read_json(path)
    if not isinstance(config, dict):
        raise InputError(f"--config: {path} is not a JSON object")
    return config


def _place(argument: str) -> tuple[pathlib.Path, str]:
    """File and preset of FILE.py:PRESET, FILE.py, a config.json or its folder."""
    place, preset = argument, ""
    if ".py:" in argument:
        place, _, preset = argument.rpartition(":")
    path = pathlib.Path(os.path.expanduser(place))
    path = path / "config.json" if path.is_dir() else path
    if not path.is_file():
        near = sorted(one.name for one in path.parent.glob("*.py"))
        raise InputError(
            f"--config: {path} does not exist{suggestion(path.name, near)}; give"
            " FILE.py, FILE.py:PRESET or a run folder's config.json"
        )
    return path, preset


def _read_python(path: pathlib.Path, preset: str) -> dict[str, Any]:
    """What get_config(preset) of FILE.py returns, or get_config() without one."""
    config = _call(path, "get_config", [preset] if preset else [])
    try:
        return config.to_dict() if hasattr(config, "to_dict") else dict(config)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"--config: {path} cannot be run: {type(error).__name__}: {error}"
        ) from error


def _call(path: pathlib.Path, name: str, given: list, *, needed: bool = True) -> Any:
    """Runs FILE.py and a function of it; None where it has none and needs none."""
    module = types.ModuleType(path.stem)
    module.__file__ = str(path)
    try:
        # Not an import: that would keep a compiled file of the same second.
        exec(compile(path.read_text("utf-8"), str(path), "exec"), module.__dict__)
        function = module.__dict__.get(name)
        if function is None and needed:
            raise InputError(f"it has no function {name}(preset)")
        return function(*given) if function else None
    except InputError as error:
        raise InputError(f"--config: {path}: {error}") from error
    except Exception as error:  # the file is the user's own program
        raise InputError(
            f"--config: {path} cannot be run: {type(error).__name__}: {error}"
        ) from error
