"""What every command does alike: flags, help, one-line errors, stopping, no leftovers.

    run_command(verb, argv) -> exit status: 0 done, 2 refused in one line, 130 stopped

Knows no verb and imports no JAX, so that help and refusals come at once.
"""

import contextlib
import dataclasses
import io
import os
import pathlib
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tljax.data.folders import alone_in, check_writable
from tljax.settings import InputError, suggestion
from tljax.train.files import DISK_FULL

STOPPED = "stopped; the same command goes on from where it was saved last"
NOTHING_WRITTEN = "stopped; nothing was written"
_LINE = 2_000  # characters shown of what went wrong
NAMES = {"macro_f1": "macro-F1", "ece": "ECE", "nll_nats": "log-likelihood loss (nats)"}


@dataclasses.dataclass(frozen=True)
class Flag:
    """One --name of a command.

    Attributes:
      name: without the dashes.
      value: what stands behind '=' in the help, e.g. 'FILE'; '' = a switch.
      meaning: one sentence.
      required: whether the command needs it.
      many: whether it may stand several times, and all of them count.
    """

    name: str
    value: str
    meaning: str
    required: bool = False
    many: bool = False

    def __str__(self) -> str:
        """'--run=DIR'."""
        return f"--{self.name}={self.value}" if self.value else f"--{self.name}"


HELP = Flag("help", "", "shows this text")


@dataclasses.dataclass(frozen=True)
class Given:
    """What a command line said.

    Attributes:
      flags: name -> text; of a switch, ''.
      overrides: dotted key -> text, from --config.a.b=VALUE.
      words: what had no dashes, in order.
      lists: name -> texts, in order, of flags that may stand several times.
    """

    flags: dict[str, str]
    overrides: dict[str, str]
    words: list[str]
    lists: dict[str, list[str]]


def read_flags(argv: Sequence[str], flags: Sequence[Flag], *, program: str) -> Given:
    """Reads --name=VALUE, --name VALUE, switches and words; the last of a name counts.

    Overrides are read where `flags` has one named 'config'. Required flags are not
    asked for if --help is given.

    Raises:
      InputError: an unknown or missing flag, a value too many or too few.
    """
    known = {flag.name: flag for flag in (*flags, HELP)}
    given = Given({}, {}, [], {})
    rest = iter(argv)
    for word in rest:
        word = "--help" if word == "-h" else word
        if not word.startswith("--"):
            given.words.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        override = name.startswith("config.") and "config" in known
        if not override and name not in known:
            raise InputError(
                f"{program} has no flag --{name}{suggestion(name, known)};"
                f" `{program} --help` shows them"
            )
        if override or known[name].value:
            value = value if equals else next(rest, "--")
            if not equals and value.startswith("--"):  # the next flag
                raise InputError(f"--{name} needs a value: --{name}=VALUE")
        elif equals:
            raise InputError(f"--{name} takes no value")
        if override:
            given.overrides[name.removeprefix("config.")] = value
        elif known[name].many:
            given.lists.setdefault(name, []).append(value)
        else:
            given.flags[name] = value
    missing = [
        str(flag) for flag in flags if flag.required and flag.name not in given.flags
    ]
    if missing and "help" not in given.flags:
        raise InputError(
            f"{program} needs {' and '.join(missing)}; `{program} --help` tells more"
        )
    return given


def no_words(given: Given, program: str) -> None:
    """Raises InputError where a command that takes flags only was given a word."""
    if given.words:
        raise InputError(
            f"{program} takes no {given.words[0]!r}; values go behind a flag, as"
            f" --name=VALUE (`{program} --help`)"
        )


def read_only_flags(
    argv: Sequence[str],
    flags: Sequence[Flag],
    *,
    program: str,
    description: str,
    usage: str = "",
) -> dict[str, str] | None:
    """The start of a verb that takes flags and no words.

    Args:
      argv: its arguments.
      flags: all that it knows.
      program: e.g. 'tljax embed'.
      description: as in `help_text`.
      usage: what the help's first line shows behind the required flags.

    Returns:
      name -> text as in `Given.flags`; None = its help was asked for and printed.

    Raises:
      InputError: what `read_flags` or `no_words` refuses.
    """
    given = read_flags(argv, flags, program=program)
    if "help" in given.flags:
        needed = [str(flag) for flag in flags if flag.required]
        line = " ".join([program, *needed, usage]).strip()
        print(help_text(line, description, flags))
        return None
    no_words(given, program)
    return given.flags


def help_text(usage: str, description: str, flags: Sequence[Flag]) -> str:
    """A command's help: how it is called, what it does, its flags.

    Args:
      usage: one line, e.g. 'tljax predict --run=DIR --input=FILE'.
      description: paragraphs; lines that begin with a space stay as they are.
      flags: --help is added.
    """
    rows = [(str(flag), flag.meaning) for flag in (*flags, HELP)]
    return f"usage: {usage}\n\n{description.strip()}\n\nflags:\n{columns(rows)}"


def columns(rows: Sequence[tuple[str, str]], *, indent: str = "  ") -> str:
    """Two columns, the second wrapped; a first that is long has a line of its own."""
    whole = max(60, min(shutil.get_terminal_size().columns, 100))
    first = min(max((len(left) for left, _ in rows), default=0), 34)
    lines = []
    for left, right in rows:
        head = f"{indent}{left:{first}}  "
        wrapped = textwrap.wrap(right, whole - len(indent) - first - 2) or [""]
        if len(left) > first:
            lines.append(f"{indent}{left}")
            head = " " * (len(indent) + first + 2)
        lines.append((head + wrapped[0]).rstrip())
        lines += [" " * (len(indent) + first + 2) + line for line in wrapped[1:]]
    return "\n".join(lines)


def number_lines(values: Mapping[str, Any], name: str = "") -> list[str]:
    """'  test accuracy 0.7125 ± 0.0101 (n = 2,000)' for each {value, n, se} inside.

    Args:
      values: nested dicts; what is not a {"value": ...} is passed over.
      name: of `values` itself, put before the others.
    """
    if "value" in values:
        error = f" ± {values['se']:.4f}" if values.get("se") else ""
        # items that all agree tell nothing of how far the next ones may lie
        alike = ", all alike: no error can be told" if values.get("se") == 0 else ""
        count = f" (n = {values['n']:,}{alike})" if "n" in values else ""
        return [f"  {name} {values['value']:.4f}{error}{count}"]
    inside = {key: one for key, one in values.items() if isinstance(one, Mapping)}
    return [
        line
        for key, one in inside.items()
        for line in number_lines(
            one, f"{name} {NAMES.get(key, key.replace('_', ' '))}".strip()
        )
    ]


def run_command(
    command: Callable[[Sequence[str]], int | None],
    argv: Sequence[str],
    *,
    program: str = "tljax",
    stopped: str = STOPPED,
) -> int:
    """Runs a command as a program does; for `sys.exit(run_command(main, argv))`.

    Args:
      command: takes argv (without the program's name); may return an exit status.
      argv: its arguments.
      program: begins every line about what went wrong.
      stopped: what Ctrl-C leaves behind, for the user; a KeyboardInterrupt that has
        a text of its own knows better.

    Returns:
      Exit status: the command's own or 0; 2 where the user's input cannot be used
      (one line on stderr, no traceback); 130 after Ctrl-C; 141 where the reader of
      our output has gone.
    """
    try:
        _prepare_streams()
        status = command(argv) or 0
        sys.stdout.flush()  # what fails does so here, not at Python's end
        return status
    except InputError as error:
        print(f"{program}: error: {_one_line(str(error))}", file=sys.stderr)
        return 2
    except MemoryError as error:
        told = _one_line(f"out of memory ({error}); ask for less")
        print(f"{program}: error: {told}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        after_sign = "\n" if sys.stderr.isatty() else ""  # a terminal shows ^C first
        print(f"{after_sign}{program}: {str(interrupt) or stopped}", file=sys.stderr)
        return 130
    except UnicodeError as error:
        told = _one_line(f"what was given is not UTF-8 ({error}); convert it first")
        print(f"{program}: error: {told}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        _drop_stdout()
        return 141
    except OSError as error:
        where = error.filename
        if where is None and error.errno in DISK_FULL:  # files say their name
            _drop_stdout()
            where = "standard output"
        if where is None:  # a defect of ours
            raise
        told = _one_line(f"{where}: {error.strerror}; mend that or give another place")
        print(f"{program}: error: {told}", file=sys.stderr)
        return 2


def _prepare_streams() -> None:
    """Texts are UTF-8 whatever the locale says; what a terminal reads is its own.

    Raises:
      InputError: standard output is closed.
    """
    if sys.stdout is None:  # as by >&-
        raise InputError("standard output is closed; send it to a file or /dev/null")
    sys.stdin = sys.stdin or open(os.devnull)
    sys.stderr = sys.stderr or open(os.devnull, "w")
    for stream, encoding, errors in (
        (sys.stdin, "utf-8-sig", "strict"),
        (sys.stdout, "utf-8", "backslashreplace"),
        (sys.stderr, "utf-8", "backslashreplace"),
    ):
        if isinstance(stream, io.TextIOWrapper):
            own = stream.encoding if stream.isatty() else encoding
            stream.reconfigure(encoding=own, errors=errors)


def _drop_stdout() -> None:
    """Python flushes it once more at its end; that must not fail too."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _one_line(text: str) -> str:
    """The text for a terminal: no line breaks, no control codes, not without end."""
    line = "".join(one if one.isprintable() else " " for one in text)
    return line if len(line) <= _LINE else f"{line[:_LINE]} ..."


def check_new_folder(out: pathlib.Path) -> None:
    """Raises InputError where an --out is there or cannot be made: before any work."""
    # os.path's answer False, where pathlib's raise, of a name that is too long
    if os.path.islink(out):
        raise InputError(f"--out={out} is a link; give a new folder")
    if os.path.exists(out) and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out={out} is there already; give a new folder")
    check_writable(out)


def check_file(out: pathlib.Path, *suffixes: str, flag: str = "out") -> None:
    """Raises InputError where no such file can be written: before any work.

    Args:
      out: what a flag gave.
      suffixes: what its name may end in.
      flag: the flag's name.
    """
    if os.path.isdir(out) or out.suffix.lower() not in suffixes:
        allowed = " or ".join(suffixes)
        raise InputError(f"--{flag}={out} must be a file ending in {allowed}")
    check_writable(out, end=".new")


@contextlib.contextmanager
def work_folder(folder: pathlib.Path) -> Iterator[None]:
    """A folder to train in: one command's at a time, and as found if that is refused.

    Else the mended command would meet the config of the refused one in the folder.
    What training wrote (records, checkpoints) always stays.

    Raises:
      InputError: another command works in it, or it cannot be made.
    """
    with alone_in(folder):
        before = set(folder.iterdir())
        try:
            yield
        except Exception:
            if not _has_trained(folder):
                for path in set(folder.iterdir()) - before:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            raise


def _has_trained(folder: pathlib.Path) -> bool:
    records = folder.glob("**/metrics.jsonl")
    return any(path.stat().st_size for path in records) or any(
        folder.glob("**/checkpoints/*")
    )
