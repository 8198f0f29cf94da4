"""Chats become text: by hand, and templates that fail or break out are refused."""

import datetime

import pytest
import tokenizers
from tokenizers import models

from tljax.data.chat import render_chat
from tljax.data.tokenizer import Tokenizer
from tljax.data.tokenizer_training import train_tokenizer
from tljax.settings import InputError

CHATML = """{%- for message in messages %}
    {%- if loop.first and message.role != 'system' %}
        {{- '<|im_start|>system\nHelp.<|im_end|>\n' }}
    {%- endif %}
    {{- '<|im_start|>' + message['role'] + '\n' + message['content'] }}
    {{- '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"""
MESSAGES = (
    {"role": "user", "content": "Hi {{ 7 * 7 }}"},
    {"role": "assistant", "content": "Ho"},
)


def with_template(template):
    """A tokenizer of three tokens, and the template that came with it."""
    vocab = {"<s>": 0, "</s>": 1, "a": 2}
    made = tokenizers.Tokenizer(models.BPE(vocab, []))
    made.add_special_tokens(["<s>", "</s>"])
    config = {"bos_token": "<s>", "eos_token": "</s>", "chat_template": template}
    return Tokenizer.from_parts(made.to_str(), config, "here")


def render(template, messages=MESSAGES, *, add_generation_prompt=False):
    return render_chat(
        with_template(template), messages, add_generation_prompt=add_generation_prompt
    )


def test_a_chat_by_hand():
    expected = (
        "<|im_start|>system\nHelp.<|im_end|>\n"
        "<|im_start|>user\nHi {{ 7 * 7 }}<|im_end|>\n"  # text is not a template
        "<|im_start|>assistant\nHo<|im_end|>\n"
    )
    assert render(CHATML) == expected
    opened = render(CHATML, add_generation_prompt=True)
    assert opened == expected + "<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ bos_token }}{{ messages[0].role }}{{ eos_token }}", "<s>user</s>"),
        ("[{{ pad_token }}{{ nothing }}]", "[]"),
        ("{% if true %}\na\n{% endif %}\nb", "a\nb"),  # trim_blocks
        ("a\n   {% if true %}b{% endif %}", "a\nb"),  # lstrip_blocks
        ("{{ tools is none }} {{ documents is none }}", "True True"),
        ("{{ {'a': '<ü>'} | tojson }}", '{"a": "<ü>"}'),
        ("{% for m in messages %}{{ m.role }}{% break %}{% endfor %}", "user"),
        ("{% generation %}{{ messages[1].content }}{% endgeneration %}.", "Ho."),
        ("{{ messages | length }}", "2"),
    ],
)
def test_templates_find_what_transformers_gives_them(template, expected):
    assert render(template) == expected


def test_the_date_is_todays():
    before = datetime.date.today()
    found = datetime.date.fromisoformat(render("{{ strftime_now('%Y-%m-%d') }}"))
    assert before <= found <= datetime.date.today()


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (
            "{{ raise_exception('roles must\nalternate') }}",
            "roles must alternate; chan",
        ),
        ("{% for m in messages %}", "Unexpected end of template"),
        ("{{ messages[0].content + 3 }}", "can only concatenate str"),
        ("{{ messages[7].content }}", "has no element 7"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ ''.__class__.__mro__ }}", "'__class__' of 'str' object is unsafe"),
        ("{{ messages.append(1) }}", "'append' of 'list' object is unsafe"),
        ("{% include '/etc/passwd' %}", "no loader for this environment"),
        ("{% for i in range(10**9) %}{% endfor %}", "Range too big"),
    ],
)
def test_a_template_that_fails_or_breaks_out_is_refused(template, said):
    with pytest.raises(InputError, match=f"chat template fails: .*{said}") as refusal:
        render(template)
    assert "\n" not in str(refusal.value)


def test_a_model_without_template_takes_plain_prompts():
    trained = train_tokenizer(["a b"], vocab_size=258, normalization="none")
    with pytest.raises(InputError, match="no chat template.*`tljax generate` takes pl"):
        render_chat(trained, MESSAGES, add_generation_prompt=True)


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], "at least one message"),
        ([{"content": "a"}], "message 1 of the chat has no 'role'"),
        ([*MESSAGES, {"role": "user"}], "message 3 of the chat has no 'content'"),
        ([{"role": "user", "content": None}], "message 1 of the chat has no 'content'"),
    ],
)
def test_messages_have_a_role_and_content(messages, said):
    with pytest.raises(InputError, match=said):
        render(CHATML, messages)
