"""Messages of a chat as the one text that its model was trained on.

[{"role": "user", "content": "Hi"}] --the model's Jinja template-->
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n" --encode_prompt--> ids
A template is somebody's program: it runs in a sandbox, sees no file and no module.
"""

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.sandbox

from tljax.data.foreign_tokenizer import TOKEN_KEYS
from tljax.data.tokenizer import Tokenizer
from tljax.settings import InputError


def render_chat(
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, str]],
    *,
    add_generation_prompt: bool,
) -> str:
    """Returns the text of a chat, special tokens written out, for `encode_prompt`.

    Args:
      tokenizer: the model's.
      messages: each {"role": "system", "user" or "assistant", "content": text}.
      add_generation_prompt: ends with the opening of the assistant's next message.

    Raises:
      InputError: the model has no template, a message lacks its role or content, or
        the template refuses the messages or fails.
    """
    if tokenizer.chat_template is None:
        raise InputError(
            "this model has no chat template, so it takes no messages; `tljax generate`"
            " takes plain prompts"
        )
    if not messages:
        raise InputError("a chat needs at least one message")
    for number, message in enumerate(messages, start=1):
        for key in ("role", "content"):
            if not isinstance(message.get(key), str):
                raise InputError(
                    f"message {number} of the chat has no {key!r}; each is"
                    ' {"role": "user", "content": "..."}'
                )
    tokens = {
        key: token
        for key in TOKEN_KEYS
        if (token := tokenizer.tokenizer_config.get(key)) is not None
    }
    try:
        return (
            _environment()
            .from_string(tokenizer.chat_template)
            .render(
                tokens,
                messages=[dict(message) for message in messages],
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
            )
        )
    except Exception as error:  # the template is a program: it may raise anything
        raise InputError(
            f"the model's chat template fails: {' '.join(str(error).split())}; change"
            " the messages, e.g. their roles or order, or give a plain prompt"
        ) from error


def _environment() -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    """What templates may use: as Transformers has it, so that all render alike."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[jinja2.ext.loopcontrols, _Generation],
    )
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    environment.filters["tojson"] = _tojson
    return environment


class _Generation(jinja2.ext.Extension):
    """{% generation %} ... {% endgeneration %} marks what is learnt; renders as is."""

    tags = {"generation"}

    def parse(self, parser: Any) -> Any:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body, lineno=line)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


def _tojson(value: Any, indent: int | None = None) -> str:
    """Jinja's own filter writes HTML entities."""
    return json.dumps(value, ensure_ascii=False, indent=indent)
