"""tljax chat: a conversation with a model in the terminal.

messages so far --chat template--> prompt -> answer, shown as it comes -> messages
"""

import sys
from collections.abc import Sequence

from tljax.cli.command import Flag, help_text, no_words, read_flags
from tljax.settings import InputError

DESCRIPTION = """
You type, the model answers, and what was said before stays in the conversation as long
as it fits the model's context; then the oldest exchange is dropped, which is said.

  tljax chat --model=pkg:smollm2-135m
  echo 'What is a noun?' | tljax chat --model=pkg:smollm2-135m --temperature=0

/new starts anew, /quit (or Ctrl-D) ends. Ctrl-C ends too; nothing is kept.
"""


def run(argv: Sequence[str]) -> None:
    """Talks until the input ends."""
    from tljax.cli.generate import SAMPLING_FLAGS, Writer, read_options
    from tljax.cli.models import DTYPE, MODEL

    flags = (
        MODEL,
        Flag("system", "TEXT", "said to the model before everything"),
        *SAMPLING_FLAGS,
        DTYPE,
    )
    program = "tljax chat"
    given = read_flags(argv, flags, program=program)
    if "help" in given.flags:
        print(help_text(f"{program} --model=URI", DESCRIPTION, flags))
        return
    no_words(given, program)
    options = read_options(given.flags)
    writer = Writer(given.flags["model"], dtype=given.flags.get("dtype"))
    talk = Conversation(writer, options, system=given.flags.get("system"))
    talk.prompt()  # refused now, not after the first question
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
            talk.say(line, show=lambda text: print(text, end="", flush=True))
            print()


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

    def prompt(self):
        """Tokens of the conversation, up to where the model is to answer."""
        from tljax.data.chat import render_chat

        messages = self._system + (self.messages or [{"role": "user", "content": "."}])
        tokenizer = self._writer.tokenizer
        text = render_chat(tokenizer, messages, add_generation_prompt=True)
        return tokenizer.encode_prompt(text)

    def say(self, text: str, *, show) -> str:
        """Adds a message of the user's and the model's answer, which is returned.

        Raises:
          InputError: the message alone does not fit the model's context.
        """
        self.messages.append({"role": "user", "content": text})
        room = self._writer.context
        while room and len(self.prompt()) + self._options.max_new > room:
            if len(self.messages) < 3:
                self.messages.pop()
                raise InputError(
                    f"a message of this length and --max_new={self._options.max_new}"
                    f" exceed the model's context of {room}; shorten one of them"
                )
            del self.messages[:2]
            show("[the oldest exchange was dropped] ")
        # each answer draws from a stream of its own
        options = self._options._replace(seed=(self._options.seed + self._turn) % 2**32)
        answer = self._writer.write(self.prompt(), options, show=show)
        self._turn += 1
        self.messages.append({"role": "assistant", "content": answer})
        return answer
