"""tljax chat: a conversation with a model in the terminal.

messages so far --chat template--> prompt -> answer, shown as it comes -> messages
"""

import sys
from collections.abc import Callable, Sequence

import numpy as np

from tljax.cli.command import Flag, read_only_flags
from tljax.cli.flags import DTYPE, MODEL
from tljax.settings import InputError

DESCRIPTION = """
You type, the model answers, and what was said before stays in the conversation as long
as it fits the model's context; then the oldest exchange is dropped, which is said. A
message that does not fit even alone is refused, and the conversation stays as it was;
where the messages come from a file or a program, it ends the command.

  tljax chat --model=pkg:smollm2-135m
  echo 'What is a noun?' | tljax chat --model=pkg:smollm2-135m --temperature=0

/new starts anew, /quit (or Ctrl-D) ends. Ctrl-C ends too; nothing is kept.
"""


def run(argv: Sequence[str]) -> None:
    """Talks until the input ends."""
    from tljax.cli.generate import Writer, read_options, writing_flags

    flags = (
        MODEL,
        Flag("system", "TEXT", "said to the model before everything"),
        *writing_flags(),
        DTYPE,
    )
    given = read_only_flags(argv, flags, program="tljax chat", description=DESCRIPTION)
    if given is None:
        return
    options = read_options(given)
    writer = Writer(given["model"], dtype=given.get("dtype"))
    talk = Conversation(writer, options, system=given.get("system"))
    talk.check()
    asks = sys.stdin.isatty()
    while True:
        try:
            line = input("you: " if asks else "").strip()
        except EOFError:
            break
        if line == "/quit":
            break
        if line == "/new":
            talk.clear()
        elif line:
            if asks:
                print("model: ", end="", flush=True)
            try:
                talk.say(line, show=lambda text: print(text, end="", flush=True))
                print()
            except InputError as error:
                if not asks:  # a program must learn of it
                    raise
                print(error, file=sys.stderr)


class Conversation:
    """Messages so far, and the model that answers the last.

    Args:
      writer: the model.
      options: how it writes.
      system: the first message; None = none.
    """

    def __init__(self, writer, options, *, system: str | None):
        self._writer, self._options, self._turn = writer, options, 0
        self._system = [{"role": "system", "content": system}] if system else []
        self.messages: list[dict[str, str]] = []

    def clear(self) -> None:
        """Forgets what was said."""
        self.messages = []

    def prompt(self, messages: Sequence[dict[str, str]] = ()) -> np.ndarray:
        """Tokens of messages, up to where the model is to answer; () = of any."""
        from tljax.data.chat import render_chat

        messages = [*self._system, *(messages or [_user(".")])]
        tokenizer = self._writer.tokenizer
        text = render_chat(tokenizer, messages, add_generation_prompt=True)
        return tokenizer.encode_prompt(text)

    def check(self) -> None:
        """Raises InputError where no question at all could be answered."""
        room, new = self._writer.context, self._options.max_new
        if not self._fits(()):
            raise InputError(
                f"--max_new={new} and the {len(self.prompt())} tokens around a message"
                f" exceed the model's context of {room}; lower --max_new or shorten"
                " --system"
            )

    def say(self, text: str, *, show: Callable[[str], None]) -> str:
        """Adds a message of the user's and the model's answer, which is returned.

        Raises:
          InputError: the message alone does not fit the model's context; the
            conversation is as it was.
        """
        room, new = self._writer.context, self._options.max_new
        asked = [*self.messages, _user(text)]
        if not self._fits(asked[-1:]):
            raise InputError(
                f"a message of this length and --max_new={new} exceed the model's"
                f" context of {room}; shorten one of them"
            )
        while not self._fits(asked):
            del asked[:2]
            show("[the oldest exchange was dropped] ")
        # each answer draws from a stream of its own
        options = self._options._replace(seed=(self._options.seed + self._turn) % 2**32)
        answer = self._writer.write(self.prompt(asked), options, show=show)
        self._turn += 1
        self.messages = [*asked, {"role": "assistant", "content": answer}]
        return answer

    def _fits(self, messages: Sequence[dict[str, str]]) -> bool:
        room = self._writer.context
        return not room or len(self.prompt(messages)) + self._options.max_new <= room


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}
