"""A folder is there whole or not at all, and nothing else is left or touched."""

import fcntl
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

import pytest

from tljax.data.folders import check_writable, whole_folder
from tljax.settings import InputError

WRITES = """
import pathlib, sys
from tljax.data.folders import whole_folder
with whole_folder(pathlib.Path(sys.argv[1])) as fresh:
    (fresh / "a.txt").write_text("a")
    print("begun", flush=True)
    sys.stdin.read()
"""


def names(folder):
    return sorted(one.name for one in folder.iterdir())


def test_a_folder_appears_whole_beside_what_stands_there(tmp_path):
    (tmp_path / "out.new").mkdir()
    with whole_folder(tmp_path / "out") as fresh:
        (fresh / "a.txt").write_text("a")
        assert not (tmp_path / "out").exists()
    assert names(tmp_path / "out") == ["a.txt"]
    assert names(tmp_path) == ["out", "out.new"]
    # other users may read it, as any folder
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "out.new").stat().st_mode


@pytest.mark.parametrize("error", [InputError("no"), OSError(28, "No space left")])
def test_a_folder_that_is_not_finished_is_not_there_nor_its_parents(tmp_path, error):
    with pytest.raises(InputError, match="no|a/b/out: No space left; make room"):
        with whole_folder(tmp_path / "a" / "b" / "out") as fresh:
            (fresh / "a.txt").write_text("a")
            raise error
    assert not names(tmp_path)


@pytest.mark.parametrize("name", ["file/out", "a" * 300, "a" * 252])
def test_a_place_that_cannot_be_written_is_one_line(tmp_path, name):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=f"cannot write .*/{name}: .*; make room or"):
        check_writable(tmp_path / name, end=".new")
    check_writable(tmp_path / "deep" / ("a" * 251), end=".new")
    assert names(tmp_path) == ["file"]


def test_what_has_no_room_is_not_begun(tmp_path):
    with pytest.raises(InputError, match=r"out takes 1,000,.* MB, .* MB are free"):
        with whole_folder(tmp_path / "out", size_bytes=10**24):
            raise AssertionError
    assert not names(tmp_path)


def test_what_a_killed_command_left_goes_and_what_another_writes_stays(tmp_path):
    out = tmp_path / "out[1]"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WRITES, str(out)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    for one in started:
        assert one.stdout.readline() == b"begun\n"
    (tmp_path / ".unfinished-mine").mkdir()
    killed, living = started
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert len(names(tmp_path)) == 3
    check_writable(out)
    assert len(names(tmp_path)) == 2
    living.communicate()
    assert living.returncode == 0
    assert names(tmp_path) == [".unfinished-mine", "out[1]"]
    assert names(out) == ["a.txt"]


@pytest.mark.parametrize("when", ["before it is opened", "before it is locked"])
def test_a_folder_that_another_takes_for_left_behind_is_made_again(
    tmp_path, monkeypatch, when
):
    made, make = [], tempfile.mkdtemp

    def make_and_lose_the_first(**place):
        made.append(pathlib.Path(make(**place)))
        if len(made) == 1 and when == "before it is opened":
            made[0].rmdir()
        return str(made[-1])

    def lock_what_may_be_gone(*lock):
        if len(made) == 1 and when == "before it is locked":
            shutil.rmtree(made[0])
        return flock(*lock)

    flock = fcntl.flock
    monkeypatch.setattr(tempfile, "mkdtemp", make_and_lose_the_first)
    monkeypatch.setattr(fcntl, "flock", lock_what_may_be_gone)
    with whole_folder(tmp_path / "model") as fresh:
        (fresh / "weights").write_text("all")
    assert len(made) == 2
    assert names(tmp_path) == ["model"] and names(tmp_path / "model") == ["weights"]
