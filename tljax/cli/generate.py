"""tljax generate: a model goes on from a prompt, or from every prompt of a file.

prompt -> tokens -> Generator -> text, shown as it comes
"""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tljax.cli.command import Flag, read_only_flags
from tljax.cli.flags import DTYPE, MODEL
from tljax.cli.keys import parse_value
from tljax.cli.predict import TEXT, has_lines, read_texts
from tljax.data.folders import check_writable
from tljax.settings import InputError

DESCRIPTION = """
Writes what the model would go on with. --temperature=0 takes the likeliest token each
time; above, tokens are drawn, and --seed makes that repeatable.

  tljax generate --model=pkg:smollm2-135m --prompt='The capital of France is' \\
      --max_new=20 --temperature=0
  tljax generate --model=runs/lm --prompt='this film' --temperature=0.8 --top_p=0.95
  tljax generate --model=pkg:smollm2-135m --input=prompts.txt --output=answers.jsonl

A prompt is taken as it is; `tljax chat` puts messages into the model's own form.

Answers to a file's prompts are added to --output a few at a time. The same command goes
on behind those that are there, so that Ctrl-C loses hardly any; for answers by other
flags give another file. One that holds something else is refused, never overwritten.
"""
TEMPERATURE = 0.7
MAX_NEW = 256
BATCH = 16  # prompts of a file that are answered together
START = b'{"prompt": '  # of every line of an --output
CONTEXT = 4  # tokens of the prompt that new ones are decoded behind


def run(argv: Sequence[str]) -> None:
    """Reads the prompts, generates, writes."""
    flags = (
        MODEL,
        Flag("prompt", "TEXT", "what to go on from"),
        Flag("input", "FILE", "prompts: .txt (one a line), .csv, .jsonl or '-'"),
        TEXT,
        Flag("output", "FILE.jsonl", "with --input: {prompt, text} a line; '-' = here"),
        *writing_flags(),
        DTYPE,
    )
    program = "tljax generate"
    given = read_only_flags(
        argv, flags, program=program, description=DESCRIPTION, usage="--prompt=TEXT"
    )
    if given is None:
        return
    if ("prompt" in given) == ("input" in given):
        raise InputError(f"{program} needs --prompt=TEXT or --input=FILE, one of them")
    for name in ("text", "output"):
        if name in given and "prompt" in given:
            raise InputError(f"--{name} goes with --input, not with --prompt")
    output = given.get("output", "-")
    if output != "-" and not output.endswith(".jsonl"):
        raise InputError(f"--output={output} must be '-' or end in .jsonl")
    options = read_options(given)
    if "prompt" in given:
        writer = Writer(given["model"], dtype=given.get("dtype"))
        tokens = writer.tokens(given["prompt"])
        writer.check([tokens], options, names=["--prompt"])
        writer.write(tokens, options, show=_show)
        print()
        return
    prompts = read_texts(given["input"], given.get("text"))
    done = 0 if output == "-" else answered(Path(output), prompts)
    if done == len(prompts):
        print(f"{output}: all {done:,} prompts are answered already")
        return
    writer = Writer(given["model"], dtype=given.get("dtype"))
    tokens = [writer.tokens(one) for one in prompts]
    unit = "line" if has_lines(given["input"]) else "row"
    names = [f"{given['input']}, {unit} {i + 1}" for i in range(len(prompts))]
    writer.check(tokens, options, names=names)
    rows = _rows(writer, prompts, tokens, options, done)
    if output == "-":
        for some in rows:
            sys.stdout.write(some)
            sys.stdout.flush()
    else:
        _append(rows, Path(output), done, len(prompts))


def _rows(
    writer: "Writer",
    prompts: Sequence[str],
    tokens: Sequence[np.ndarray],
    options: "Options",
    done: int,
) -> Iterator[str]:
    """The lines of the prompts behind the first `done`, BATCH at a time."""
    for start in range(done, len(prompts), BATCH):
        here = slice(start, start + BATCH)
        texts = writer.answers(tokens[here], options, first=start)
        yield "".join(
            json.dumps({"prompt": prompt, "text": text}, ensure_ascii=False) + "\n"
            for prompt, text in zip(prompts[here], texts, strict=True)
        )


def _append(rows: Iterator[str], path: Path, done: int, count: int) -> None:
    """Adds lines to a file as they come; Ctrl-C leaves what is there."""
    from tljax.train.files import write_error
    from tljax.train.progress import Progress

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file, Progress("generate", count) as bar:
            bar.update(done)
            for some in rows:
                file.write(some.encode())
                file.flush()
                done += some.count("\n")
                bar.update(done)
    except OSError as error:
        raise write_error(path, error) from error
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"stopped; {path} has {done:,} of {count:,} answers; the same command goes"
            " on behind them"
        ) from None


def answered(path: Path, prompts: Sequence[str]) -> int:
    """How many of the first prompts a file answers; what was cut off is cut away.

    Raises:
      InputError: it holds something else than answers to these prompts, or cannot be
        made.
    """
    if not path.exists():
        check_writable(path)
        return 0
    if not path.is_file():
        raise InputError(f"--output={path} is no file; give one")
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    found = [_prompt_of(line) for line in whole.splitlines()]
    ours = data[: len(START)] == START[: len(data)]
    if not ours or found != list(prompts[: len(found)]):
        raise InputError(
            f"--output={path} is there and does not answer the prompts of --input, in"
            " their order; give another file"
        )
    if whole != data:
        with path.open("rb+") as file:
            file.truncate(len(whole))
    return len(found)


def _prompt_of(line: bytes) -> str | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row.get("prompt") if isinstance(row, dict) and "text" in row else None


class Options(NamedTuple):
    """How to write: a `Sampling`, most new tokens, seed, stop strings."""

    sampling: Any
    max_new: int
    seed: int
    stop: Sequence[str]


def writing_flags() -> tuple[Flag, ...]:
    """The flags that say how to write: those of Sampling, and where it ends."""
    from tljax.generate.sampling import Sampling

    defaults = {"temperature": TEMPERATURE}
    return (
        *(
            Flag(
                field.name,
                "N",
                f"{field.metadata['help']}"
                f" (default {defaults.get(field.name, field.default):g})",
            )
            for field in dataclasses.fields(Sampling)
        ),
        Flag("max_new", "N", f"most tokens written (default {MAX_NEW})"),
        Flag("seed", "N", "of what is drawn (default 0)"),
        Flag("stop", "TEXT", 'ends where the text has this; or a list, ["a", "b"]'),
    )


def read_options(flags: Mapping[str, str]) -> Options:
    """What the flags of `writing_flags` say, checked.

    Raises:
      InputError: a value that is no number, or out of range.
    """
    from tljax.generate.sampling import Sampling
    from tljax.settings import LAST_SEED

    values = {
        field.name: parse_value(flags[field.name], field.type, f"--{field.name}")
        for field in dataclasses.fields(Sampling)
        if field.name in flags
    }
    sampling = Sampling(**{"temperature": TEMPERATURE} | values)
    sampling.check("--", joint="")
    max_new = parse_value(flags.get("max_new", str(MAX_NEW)), int, "--max_new")
    if max_new < 1:
        raise InputError(f"--max_new={max_new}; it must be at least 1")
    seed = parse_value(flags.get("seed", "0"), int, "--seed")
    if not 0 <= seed <= LAST_SEED:
        raise InputError(f"--seed={seed}; it must be in [0, {LAST_SEED}]")
    stop = flags.get("stop", "[]")
    strings = json_list(stop) if stop.startswith("[") else [stop]
    return Options(sampling, max_new, seed, strings)


def json_list(text: str) -> list[str]:
    """Strings of a JSON list. Raises: InputError if it is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"--stop={text:.80} is no JSON list: {error}") from error
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise InputError(f"--stop={text} must be a list of strings")
    return found


def check_writes(model) -> None:
    """Raises InputError where a model predicts no next word."""
    if not model.settings.causal:
        raise InputError(
            f"{model.name} is an encoder and predicts no next word; `tljax embed` gives"
            " its vectors"
        )
    if "head" in model.params:
        raise InputError(
            f"{model.name} was fine-tuned to classify; `tljax predict` asks it"
        )


class Writer:
    """A model that writes text."""

    def __init__(self, name: str, *, dtype: str | None):
        from rich.console import Console

        from tljax.cli import parts
        from tljax.cli.models import open_model
        from tljax.generate.decode import Generator

        parts.prepare_devices()
        with Console(stderr=True).status(f"reading {name}; the first text compiles"):
            model = open_model(name, dtype=dtype)
        check_writes(model)
        self.tokenizer = model.needs_tokenizer()
        self.context = model.settings.context
        # texts of our own runs stand behind the token that ended the one before
        self._before = self.tokenizer.begin_id
        if self._before is None and not model.origin:
            self._before = self.tokenizer.end_id
        self._generator = Generator(model.settings, model.params, end_ids=model.end_ids)

    def tokens(self, prompt: str) -> np.ndarray:
        """A plain prompt's ids, behind what the model wants in front of a text."""
        ids = self.tokenizer.encode_prompt(prompt)
        if self._before is not None and not (len(ids) and ids[0] == self._before):
            ids = np.concatenate([[self._before], ids])
        return ids.astype(np.int32)

    def check(
        self, prompts: Sequence[np.ndarray], options: Options, *, names: Sequence[str]
    ) -> None:
        """Raises InputError at the first prompt that cannot be answered, by name."""
        self._generator.check(prompts, max_new=options.max_new, names=names)

    def write(
        self, prompt: np.ndarray, options: Options, *, show: Callable[[str], None]
    ) -> str:
        """Writes behind one prompt, showing text as it comes; returns all of it."""
        return self.answers([prompt], options, show=show)[0]

    def answers(
        self,
        prompts: Sequence[np.ndarray],
        options: Options,
        *,
        first: int = 0,
        show: Callable[[str], None] | None = None,
    ) -> list[str]:
        """Texts behind prompts, written together; row i draws with seed + first + i.

        Args:
          prompts: ids of each.
          options: how to write.
          first: number of the first prompt.
          show: is given every piece of text as it comes; None = nobody waits, and
            without stop strings the device is asked seldom.
        """
        rows = [_Row(self.tokenizer, prompt, options, show) for prompt in prompts]
        at_once = show is not None or bool(options.stop)
        found = self._generator.generate(
            prompts,
            max_new=options.max_new,
            sampling=options.sampling,
            seeds=[(options.seed + first + i) % 2**32 for i in range(len(prompts))],
            on_token=(lambda row, token: rows[row].push(token)) if at_once else None,
        )
        if not at_once:
            for row, ids in zip(rows, found, strict=True):
                for token in ids:
                    row.push(token)
        return [row.end() for row in rows]


class _Row:
    """One text in the making: tokens in, text out, until a stop string."""

    def __init__(self, tokenizer, prompt: np.ndarray, options: Options, show):
        from tljax.generate.stop import StopStrings
        from tljax.generate.stream import TextStream

        self._stream = TextStream(tokenizer.decode, prompt[-CONTEXT:].tolist())
        self._stop, self._show, self._text = StopStrings(options.stop), show, ""

    def push(self, token: int) -> bool:
        """Takes a token; returns whether the text has come to its end."""
        text, stopped = self._stop.feed(self._stream.push(token))
        self._put(text)
        return stopped

    def end(self) -> str:
        """Shows what was held back and returns the whole text."""
        text, stopped = self._stop.feed(self._stream.flush())
        self._put(text if stopped else text + self._stop.flush())
        return self._text

    def _put(self, text: str) -> None:
        if text:
            self._text += text
            if self._show is not None:
                self._show(text)


def _show(text: str) -> None:
    print(text, end="", flush=True)
