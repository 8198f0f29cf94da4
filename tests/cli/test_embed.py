"""Texts are cut where the model says; places and arrays are looked at first."""

import pickle
import types

import numpy as np
import pytest

from tljax.cli.embed import LONGEST, tokens_of
from tljax.cli.logits import _read_array
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


@pytest.mark.parametrize("place", ["a.txt/a{}", "a" * 300 + "{}", "folder{}"])
@pytest.mark.parametrize(
    ("verb", "flags", "end"),
    [
        ("embed", ["--model=nowhere", "--input=a.txt", "--out="], ".npy"),
        ("logits", ["--model=nowhere", "--tokens=a.npy", "--out="], ".npz"),
        ("predict", ["--run=nowhere", "--input=a.txt", "--output="], ".csv"),
    ],
)
def test_a_place_that_cannot_be_written_is_found_before_any_work(
    verb, flags, end, place, tmp_path, monkeypatch, refused
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("a\n")
    (tmp_path / f"folder{end}").mkdir()
    np.save(tmp_path / "a.npy", np.ones((1, 2), int))
    before = set(tmp_path.iterdir())
    *others, out = flags
    said = refused(verb, *others, out + place.format(end))
    wrong = "must be a file ending in" if place == "folder{}" else "cannot write"
    assert wrong in said and place.format(end) in said and "nowhere" not in said
    assert set(tmp_path.iterdir()) == before


def header(shape) -> bytes:
    """The beginning of an .npy of int64, and nothing behind it."""
    text = str({"descr": "<i8", "fortran_order": False, "shape": shape}).ljust(117)
    return b"\x93NUMPY\x01\x00v\x00" + text.encode() + b"\n"


@pytest.mark.parametrize(
    "content",
    [
        header((10**12, 10**6)),
        header((10**12, 10**8)),  # more bytes than 64 bits count
        header((10**30, 1)),
        header((2, 3)) + b"12345678",
        header("(" * 40),
        pickle.dumps([[1, 2]]),
        b"",
    ],
)
def test_an_array_that_is_not_all_there_is_one_line(tmp_path, content):
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is no .npy, or not all of one") as refusal:
        _read_array(str(path), "--tokens")
    assert "pickle" not in str(refusal.value)


def test_an_array_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(InputError, match="--tokens=.*cannot be read: No such file"):
        _read_array(str(tmp_path / "a.npy"), "--tokens")
