"""tljax methods list | show NAME: the ways to fine-tune, told from their two tables.

METHODS, TransferSettings -> what moves, what it costs, when, and a command to try
BESIDE                    -> the same of regularisers, schedules and starts
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

from tljax.cli.command import columns, help_text, read_flags
from tljax.settings import InputError, TransferSettings, suggestion
from tljax.transfer.beside import BESIDE, Beside

DESCRIPTION = """
list        the ways to fine-tune, config.transfer.method: what moves beside the head;
            and what goes with them: regularisers, schedules, starts
show NAME   its paper, cost, keys with their defaults, and a command to try

  tljax methods list
  tljax methods show lora
  tljax methods show mixout
"""
USAGE = "tljax methods list | show NAME"
COLUMNS = {
    "method": lambda one: f"`{one.name}`",
    "what moves": lambda one: one.meaning,
    "trainable": lambda one: one.trainable,
    "memory": lambda one: one.memory,
    "speed": lambda one: one.speed,
    "when": lambda one: one.when,
}
COLUMNS_BESIDE = {
    "name": lambda one: f"`{one.name}`",
    "key, for example": lambda one: f"`{one.key}`",
    "what it does": lambda one: one.meaning,
    "source": lambda one: one.paper,
    "cost": lambda one: one.cost,
    "when": lambda one: one.when,
}


def run(argv: Sequence[str]) -> None:
    """Runs one of the two."""
    given = read_flags(argv, (), program="tljax methods")
    if "help" in given.flags or not given.words:
        print(help_text(USAGE, DESCRIPTION, ()))
        return
    actions = {"list": _list, "show": _show}
    name, *rest = given.words
    if name not in actions:
        raise InputError(
            f"tljax methods has no {name!r}{suggestion(name, actions)}; it is: {USAGE}"
        )
    if len(rest) != (name == "show"):
        wanted = "takes one name" if name == "show" else "takes nothing more"
        raise InputError(f"tljax methods {name} {wanted}, {len(rest)} given: {USAGE}")
    print(actions[name](*rest))


def _list() -> str:
    from tljax.transfer.method import METHODS

    moving, beside = (
        columns([(one.name, one.meaning) for one in table.values()])
        for table in (METHODS, BESIDE)
    )
    return f"{moving}\n\nbeside any of them:\n{beside}"


def _show(name: str) -> str:
    from tljax.transfer.method import METHODS

    if name in BESIDE:
        return _show_beside(BESIDE[name])
    if name not in METHODS:
        known = [*METHODS, *BESIDE]
        raise InputError(
            f"{name!r} is no method{suggestion(name, known)}; there are:"
            f" {', '.join(known)}"
        )
    one = METHODS[name]
    facts = columns(
        [
            ("moves", f"{one.meaning}; the head always"),
            ("paper", one.paper),
            ("trainable", one.trainable),
            ("memory", one.memory),
            ("speed", one.speed),
            ("when", one.when),
            ("export", "merged into plain weights" if one.merges else "not possible"),
        ]
    )
    return "\n".join([name, facts, "", "keys:", _keys(one.keys), "", *_command(one)])


def _show_beside(one: Beside) -> str:
    facts = columns(
        [
            ("does", one.meaning),
            ("paper", one.paper),
            ("cost", one.cost),
            ("when", one.when),
            ("for example", one.key if " " in one.key else f"--config.{one.key}"),
        ]
    )
    return f"{one.name}\n{facts}"


def _keys(names: Sequence[str]) -> str:
    """Its keys with their defaults and meanings."""
    fields = [f for f in dataclasses.fields(TransferSettings) if f.name in names]
    rows = [
        (
            f"config.transfer.{field.name} = {field.default}",
            field.metadata["help"],
        )
        for field in fields
    ]
    return columns(rows) if rows else "  none of its own"


def _command(one) -> list[str]:
    """A command that fine-tunes with it."""
    keys = [f"method={one.name}", *one.example]
    lines = [
        "  tljax train --config=configs/finetune.py --workdir=runs/mine",
        "--config.init.source=runs/lm",
        *(f"'--config.transfer.{key}'" for key in keys),
    ]
    return ["for example:", " \\\n      ".join(lines)]


def markdown_tables() -> tuple[str, str]:
    """The tables of docs/methods.md: the methods, and what goes with them."""
    from tljax.transfer.method import METHODS

    return (
        _markdown(COLUMNS, METHODS.values()),
        _markdown(COLUMNS_BESIDE, BESIDE.values()),
    )


def _markdown(cells: Mapping[str, Callable], entries: Iterable) -> str:
    rows = [[cell(one) for cell in cells.values()] for one in entries]
    lines = [list(cells), ["---"] * len(cells), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
