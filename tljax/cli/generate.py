"""tljax generate: a model goes on from a prompt, or from every prompt of a file.

prompt -> tokens -> Generator -> text, shown as it comes
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tljax.cli.command import Flag, help_text, no_words, read_flags
from tljax.cli.keys import parse_value
from tljax.cli.predict import TEXT, read_texts
from tljax.settings import InputError

DESCRIPTION = """
Writes what the model would go on with. --temperature=0 takes the likeliest token each
time; above, tokens are drawn, and --seed makes that repeatable.

  tljax generate --model=pkg:smollm2-135m --prompt='The capital of France is' \\
      --max_new=20 --temperature=0
  tljax generate --model=runs/lm --prompt='this film' --temperature=0.8 --top_p=0.95
  tljax generate --model=pkg:smollm2-135m --input=prompts.txt --output=answers.jsonl

A prompt is taken as it is; `tljax chat` puts messages into the model's own form.
"""
SAMPLING = {
    "temperature": (float, 0.7, "0 = the likeliest token, always"),
    "top_k": (int, 0, "only the k likeliest tokens; 0 = all"),
    "top_p": (float, 1.0, "only the likeliest that reach this probability; 1 = all"),
    "min_p": (float, 0.0, "only those at least this times as likely as the first"),
    "repetition_penalty": (float, 1.0, "above 1: what stood before gets less likely"),
}
SAMPLING_FLAGS = (
    *(
        Flag(name, "N", f"{meaning} (default {default:g})")
        for name, (_, default, meaning) in SAMPLING.items()
    ),
    Flag("max_new", "N", "most tokens written (default 256)"),
    Flag("seed", "N", "of what is drawn (default 0)"),
    Flag("stop", "TEXT", 'ends where the text has this; or a list, ["a", "b"]'),
)
MAX_NEW = 256
BATCH = 16  # prompts of a file that are answered together
CONTEXT = 4  # tokens of the prompt that new ones are decoded behind


def run(argv: Sequence[str]) -> None:
    """Reads the prompts, generates, writes."""
    from tljax.cli.models import DTYPE, MODEL

    flags = (
        MODEL,
        Flag("prompt", "TEXT", "what to go on from"),
        Flag("input", "FILE", "prompts: .txt (one a line), .csv, .jsonl or '-'"),
        TEXT,
        Flag("output", "FILE.jsonl", "with --input: {prompt, text} a line; '-' = here"),
        *SAMPLING_FLAGS,
        DTYPE,
    )
    program = "tljax generate"
    given = read_flags(argv, flags, program=program)
    if "help" in given.flags:
        usage = f"{program} --model=URI --prompt=TEXT"
        print(help_text(usage, DESCRIPTION, flags))
        return
    no_words(given, program)
    flags = given.flags
    if ("prompt" in flags) == ("input" in flags):
        raise InputError(f"{program} needs --prompt=TEXT or --input=FILE, one of them")
    output = flags.get("output", "-")
    if output != "-" and ("prompt" in flags or not output.endswith(".jsonl")):
        raise InputError(
            f"--output={output} goes with --input and must be '-' or end in .jsonl"
        )
    options = read_options(flags)
    prompts = None
    if "input" in flags:
        prompts = read_texts(flags["input"], flags.get("text"))
    writer = Writer(flags["model"], dtype=flags.get("dtype"))
    if prompts is None:
        writer.write(writer.tokens(flags["prompt"]), options, show=_show)
        print()
        return
    rows = []
    for start in range(0, len(prompts), BATCH):
        some = prompts[start : start + BATCH]
        tokens = [writer.tokens(one) for one in some]
        found = writer.answers(tokens, options, first=start)
        rows += [
            json.dumps({"prompt": prompt, "text": text}, ensure_ascii=False)
            for prompt, text in zip(some, found, strict=True)
        ]
    text = "".join(f"{row}\n" for row in rows)
    if output == "-":
        sys.stdout.write(text)
    else:
        from tljax.train.files import write_text

        write_text(Path(output), text)


class Options(NamedTuple):
    """How to write: a `Sampling`, most new tokens, seed, stop strings."""

    sampling: Any
    max_new: int
    seed: int
    stop: Sequence[str]


def read_options(flags: Mapping[str, str]) -> Options:
    """The flags of SAMPLING_FLAGS, checked.

    Raises:
      InputError: a value that is no number, or out of range.
    """
    from tljax.generate.sampling import Sampling
    from tljax.settings import LAST_SEED

    values = {
        name: parse_value(flags[name], kind, f"--{name}") if name in flags else default
        for name, (kind, default, _) in SAMPLING.items()
    }
    sampling = Sampling(**values)
    sampling.check("sampling")
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
    except ValueError as error:
        raise InputError(f"--stop={text} is no JSON list: {error}") from error
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise InputError(f"--stop={text} must be a list of strings")
    return found


class Writer:
    """A model that writes text."""

    def __init__(self, name: str, *, dtype: str | None):
        from tljax.cli import parts
        from tljax.cli.models import open_model
        from tljax.generate.decode import Generator

        parts.prepare_devices()
        model = open_model(name, dtype=dtype)
        if "head" in model.params:
            raise InputError(
                f"{name} was fine-tuned to classify; `tljax predict` asks it"
            )
        self.tokenizer = model.needs_tokenizer()
        self.context = model.settings.context
        # texts of our own runs stand behind the token that ended the one before
        self._before = self.tokenizer.begin_id
        if self._before is None and not model.origin:
            self._before = self.tokenizer.end_id
        self._generator = Generator(
            model.settings, model.params, end_ids=[self.tokenizer.end_id]
        )

    def tokens(self, prompt: str) -> np.ndarray:
        """A plain prompt's ids, behind what the model wants in front of a text."""
        ids = self.tokenizer.encode_prompt(prompt)
        if self._before is not None and not (len(ids) and ids[0] == self._before):
            ids = np.concatenate([[self._before], ids])
        return ids.astype(np.int32)

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
        show: Callable[[str], None] = lambda text: None,
    ) -> list[str]:
        """Texts behind prompts, written together; row i draws with seed + first + i.

        Args:
          prompts: ids of each.
          options: how to write.
          first: number of the first prompt.
          show: is given every piece of text as it comes.
        """
        rows = [_Row(self.tokenizer, prompt, options, show) for prompt in prompts]
        self._generator.generate(
            prompts,
            max_new=options.max_new,
            sampling=options.sampling,
            seeds=[(options.seed + first + i) % 2**32 for i in range(len(prompts))],
            on_token=lambda row, token: rows[row].push(token),
        )
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
            self._show(text)


def _show(text: str) -> None:
    print(text, end="", flush=True)
