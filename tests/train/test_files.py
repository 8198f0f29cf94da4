"""Files are whole or not there, and a full disk is told in one line."""

import errno
import os
import resource

import pytest

from tljax.settings import InputError
from tljax.train import files


def test_canonical_json_is_equal_for_equal_values():
    assert files.canonical_json({"b": [1, 2.5], "a": "é"}) == '{"a":"é","b":[1,2.5]}'
    assert files.sha256_of({"a": 1, "b": 2}) == files.sha256_of({"b": 2, "a": 1})
    assert files.sha256_of({"a": 1, "b": 2}) != files.sha256_of({"a": 2, "b": 1})
    with pytest.raises(ValueError):
        files.canonical_json(float("nan"))


def test_json_comes_back(tmp_path):
    value = {"text": "naïve — ☃", "list": [1, None, True], "float": 0.1 + 0.2}
    files.write_json(tmp_path / "made" / "a.json", value)
    assert files.read_json(tmp_path / "made" / "a.json") == value
    assert os.listdir(tmp_path / "made") == ["a.json"]


def test_what_cannot_be_read_is_said(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        files.read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        files.read_json(tmp_path / "a.json")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        files.read_json(tmp_path)
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="deep.json is not JSON"):
        files.read_json(tmp_path / "deep.json")
    with pytest.raises(InputError, match="cannot write .*: File name too long"):
        files.write_text(tmp_path / ("a" * 300), "")
    with pytest.raises(InputError, match="cannot write .*a.json/b"):
        files.write_text(tmp_path / "a.json" / "b", "")


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    files.write_text(path, "old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        with pytest.raises(InputError, match="a.json: File too large") as caught:
            files.write_text(path, "new" * (1 << 16))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_full_disk_is_recognised_however_deep_it_is_wrapped():
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as cause:
            raise ValueError("thread failed") from cause
    except ValueError as error:
        assert files.disk_full(error) == "No space left on device"
    status = ValueError("RESOURCE_EXHAUSTED: writing: [OS error 28: ENOSPC No space")
    assert files.disk_full(status) is None
    status = ValueError("INTERNAL: [OS error 28: ENOSPC No space left on device]")
    assert files.disk_full(status) == "No space left on device"
    assert files.disk_full(ValueError("shapes differ")) is None
