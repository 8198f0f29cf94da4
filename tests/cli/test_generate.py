"""Answers to the prompts of a file: written as they come, ended where asked."""

import json
import types

import numpy as np
import pytest

from tljax.cli import generate
from tljax.cli.generate import Options, Writer, answered
from tljax.cli.main import main
from tljax.settings import InputError

PROMPTS = ["a lovely film", "a", "dreary films are dreary"]


def line(prompt):
    return json.dumps({"prompt": prompt, "text": "\u2028 é"}, ensure_ascii=False) + "\n"


@pytest.mark.parametrize(
    ("text", "count", "left"),
    [
        ("", 0, ""),
        (line("a") + line("b"), 2, line("a") + line("b")),
        (line("a") + line("b")[:-1], 1, line("a")),  # killed within a line
        (line("a")[:5], 0, ""),
    ],
)
def test_answers_that_are_there_are_counted_and_a_cut_off_one_goes(
    tmp_path, text, count, left
):
    path = tmp_path / "out.jsonl"
    assert answered(path, ["a", "b", "c"]) == 0
    path.write_text(text)
    assert answered(path, ["a", "b", "c"]) == count
    assert path.read_text() == left


@pytest.mark.parametrize(
    "text",
    [
        '{"prompt": ' + "[" * 100_000 + "\n",
        "my notes",
        "my notes\n",
        '{"a": 1}',
        line("b"),
        "".join(map(line, "abcd")),
        "[]\n",
    ],
)
def test_a_file_that_holds_something_else_is_refused_and_stays(tmp_path, text):
    path = tmp_path / "out.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match="does not answer the prompts"):
        answered(path, ["a", "b", "c"])
    assert path.read_text() == text


@pytest.fixture
def command(tiny_llama, tmp_path):
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    return ["generate", f"--model=hf:{tiny_llama}", "--max_new=5", "--dtype=float32",
            f"--input={tmp_path}/prompts.txt"]  # fmt: skip


def test_a_stopped_command_goes_on_and_ends_as_if_unbroken(
    command, tmp_path, monkeypatch, capsys
):
    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    assert main([*command, f"--output={whole}"]) == 0
    answers, calls = Writer.answers, []

    def stopped(self, prompts, options, *, first):
        calls.append(first)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return answers(self, prompts, options, first=first)

    monkeypatch.setattr(Writer, "answers", stopped)
    monkeypatch.setattr(generate, "BATCH", 2)
    assert main([*command, f"--output={broken}"]) == 130
    assert "has 2 of 3 answers; the same command goes on" in capsys.readouterr().err
    assert broken.read_text().splitlines() == whole.read_text().splitlines()[:2]
    assert main([*command, f"--output={broken}"]) == 0
    assert calls == [0, 2, 2] and "generate: 3/3" in capsys.readouterr().err
    assert broken.read_bytes() == whole.read_bytes()
    assert main([*command, f"--output={broken}"]) == 0
    assert "all 3 prompts are answered already" in capsys.readouterr().out
    assert calls == [0, 2, 2]


def test_a_prompt_that_is_too_long_is_found_before_any_is_answered(
    command, tmp_path, refused
):
    (tmp_path / "prompts.txt").write_text("a\n" * 20 + "a film " * 100)
    said = refused(*command, f"--output={tmp_path}/out.jsonl")
    assert "shorten the prompt" in said
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--prompt=a", "--text=b"], "--text goes with --input, not with --prompt"),
        (["--prompt=a", "--output=-"], "--output goes with --input, not with"),
        (["--prompt=a", "--top_p=7"], "--top_p is 7.0; it must be a number above 0"),
        (["--prompt=a", "--stop=" + "[" * 50_000], "is no JSON list"),
        (["--prompt="], "--prompt is empty"),
        (["--input=prompts.txt"], "prompts.txt, line 2 is empty"),
        (["--input=prompts.jsonl"], "prompts.jsonl, row 2 is empty"),
        (
            ["--input=a.txt", f"--output={'a' * 300}.jsonl"],
            ".jsonl: File name too long",
        ),
    ],
)
def test_what_cannot_be_answered_is_one_line(
    tiny_llama, tmp_path, monkeypatch, refused, flags, said
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("a\n")
    (tmp_path / "prompts.txt").write_text("a\n\nb\n")
    (tmp_path / "prompts.jsonl").write_text('{"text": "a"}\n\n{"text": ""}\n')
    before = set(tmp_path.iterdir())
    model = f"--model=hf:{tiny_llama}"
    assert said in refused("generate", model, "--max_new=5", "--dtype=float32", *flags)
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"causal": False}, "x is an encoder and predicts no next word; `tljax embed`"),
        ({"params": {"head": {}}}, "x was fine-tuned to classify; `tljax predict`"),
    ],
)
def test_a_model_that_predicts_no_next_word_is_told_where_to_go(changes, said):
    settings = types.SimpleNamespace(causal=changes.get("causal", True))
    params = changes.get("params", {})
    model = types.SimpleNamespace(name="x", settings=settings, params=params)
    with pytest.raises(InputError, match=said):
        generate.check_writes(model)


def test_every_token_that_a_checkpoint_names_ends_a_text(tiny_llama, tmp_path, capsys):
    folder = tmp_path / "all"
    folder.mkdir()
    for one in tiny_llama.iterdir():
        (folder / one.name).write_bytes(one.read_bytes())
    config = json.loads((tiny_llama / "config.json").read_text())
    config["eos_token_id"] = list(range(400))  # of which it has 320
    (folder / "config.json").write_text(json.dumps(config))
    flags = ["--prompt=a lovely", "--max_new=5", "--dtype=float32", "--temperature=0"]
    assert main(["generate", f"--model=hf:{tiny_llama}", *flags]) == 0
    assert len(capsys.readouterr().out) > 1
    assert main(["generate", f"--model=hf:{folder}", *flags]) == 0
    assert capsys.readouterr().out == "\n"


@pytest.mark.parametrize(
    ("stop", "show", "asked"),
    [([], None, False), (["x"], None, True), ([], print, True)],
)
def test_only_who_waits_for_text_is_told_each_token(stop, show, asked):
    def write(prompts, *, max_new, sampling, seeds, on_token):
        assert (on_token is not None) == asked
        for token in [1, 2] if on_token else []:
            on_token(0, token)
        return [np.array([1, 2])]

    writer = object.__new__(Writer)
    writer.tokenizer = types.SimpleNamespace(decode=lambda ids: "".join(map(str, ids)))
    writer._generator = types.SimpleNamespace(generate=write)
    options = Options(None, 5, 0, stop)
    assert writer.answers([np.array([7])], options, show=show) == ["12"]
