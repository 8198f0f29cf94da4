"""Texts are cut where the model says; compiled programs are kept."""

import types

import numpy as np
import pytest

from tljax.cli.embed import LONGEST, tokens_of
from tljax.settings import InputError


@pytest.mark.parametrize(
    ("sentence", "context", "longest"),
    [
        ({}, 8192, 8192),
        ({}, 0, LONGEST),
        ({"length": 256}, 512, 256),
        ({"length": 4096}, 512, 512),
        ({"length": 4096}, 0, 4096),
    ],
)
def test_texts_are_cut_at_the_least_that_the_model_says(sentence, context, longest):
    def encode(texts, *, special, longest):
        return [np.full(longest, 3), np.zeros(0, int)]

    tokenizer = types.SimpleNamespace(end_id=1, encode=encode)
    model = types.SimpleNamespace(
        needs_tokenizer=lambda: tokenizer,
        sentence=sentence,
        settings=types.SimpleNamespace(context=context),
    )
    long, empty = tokens_of(model, ["long", ""])
    assert len(long) == longest and empty.tolist() == [1]


@pytest.mark.parametrize("verb", ["embed", "logits"])
def test_compiled_programs_are_kept(verb, tmp_path, monkeypatch, refused):
    def prepare():
        raise InputError("the cache of programs was asked for")

    monkeypatch.setattr("tljax.cli.parts.prepare_devices", prepare)
    (tmp_path / "a.txt").write_text("a\n")
    np.save(tmp_path / "a.npy", np.ones((1, 2), int))
    files = {
        "embed": [f"--input={tmp_path}/a.txt", f"--out={tmp_path}/v.npy"],
        "logits": [f"--tokens={tmp_path}/a.npy", f"--out={tmp_path}/l.npz"],
    }
    assert "was asked for" in refused(verb, "--model=nowhere", *files[verb])
