"""Flags are read strictly; every command ends in a status and at most one line."""

import io
import pathlib
import subprocess
import sys

import pytest

from tljax.cli.command import (
    Flag,
    check_new_folder,
    columns,
    no_words,
    number_lines,
    read_flags,
    read_only_flags,
    run_command,
    work_folder,
)
from tljax.settings import InputError

FLAGS = (
    Flag("config", "FILE", "the config", required=True),
    Flag("quiet", "", "says less"),
)


def read(*argv):
    return read_flags(argv, FLAGS, program="tljax bake")


def test_flags_overrides_switches_and_words_are_told_apart():
    given = read("a", "--config=f.py:x=1", "--config.b.c=2=3", "--quiet", "-")
    assert given.flags == {"config": "f.py:x=1", "quiet": ""}
    assert given.overrides == {"b.c": "2=3"}
    assert given.words == ["a", "-"]


def test_a_value_may_stand_apart_and_the_last_one_counts():
    given = read("--config", "f.py", "--config.b", "1", "--config.b=-2", "--config=g")
    assert given.flags == {"config": "g"}
    assert given.overrides == {"b": "-2"}


def test_a_value_behind_its_sign_may_begin_with_dashes():
    given = read("--config=-- a comment", "--config.b=--x")
    assert given.flags == {"config": "-- a comment"}
    assert given.overrides == {"b": "--x"}


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--confg=f"], "has no flag --confg; did you mean 'config'?"),
        (["--config"], "--config needs a value"),
        (["--config", "--quiet"], "--config needs a value"),
        (["--config=f", "--quiet=yes"], "--quiet takes no value"),
        (["--quiet"], "tljax bake needs --config=FILE"),
    ],
)
def test_a_command_line_that_cannot_be_read_is_refused(argv, said):
    with pytest.raises(InputError, match=said):
        read(*argv)


def test_help_asks_for_no_required_flag():
    assert read("-h").flags == read("--help").flags == {"help": ""}


def test_a_verb_without_words_shows_its_help_or_reads_its_flags(capsys):
    def begin(*argv):
        about = {"program": "tljax bake", "description": "Bakes.", "usage": "[more]"}
        return read_only_flags(argv, FLAGS, **about)

    assert begin("--help") is None
    shown = capsys.readouterr().out
    assert shown.startswith("usage: tljax bake --config=FILE [more]\n\nBakes.\n")
    assert begin("--config=f") == {"config": "f"}
    with pytest.raises(InputError, match="takes no 'word'"):
        begin("--config=f", "word")


def test_a_stray_word_is_refused():
    with pytest.raises(InputError, match="takes no 'runs/lm'"):
        no_words(read("--config=f", "runs/lm"), "tljax bake")


def test_overrides_need_a_flag_config():
    with pytest.raises(InputError, match="no flag --config.a"):
        read_flags(["--config.a=1"], FLAGS[1:], program="tljax bake")


def test_columns_wrap_the_second_and_align_it(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    rows = [("a", "one " * 20), ("b" * 40, "two")]
    lines = columns(rows).split("\n")
    assert lines[0].startswith("  a ") and all(len(line) <= 60 for line in lines)
    assert lines[-2:] == ["  " + "b" * 40, " " * 38 + "two"]
    assert {len(line) - len(line.lstrip()) for line in lines[1:-2]} == {38}


def test_numbers_are_found_at_any_depth_with_n_and_error():
    record = {
        "step": 3,
        "test": {"macro_f1": {"value": 0.5, "se": 0.125, "n": 1200}},
        "bits_per_byte": {"value": 1.5, "bytes": 9},
    }
    assert number_lines(record) == [
        "  test macro-F1 0.5000 ± 0.1250 (n = 1,200)",
        "  bits per byte 1.5000",
    ]


def test_items_that_all_agree_have_no_error_of_nought():
    record = {"accuracy": {"value": 1.0, "se": 0.0, "n": 5}}
    told = "  accuracy 1.0000 (n = 5, all alike: no error can be told)"
    assert number_lines(record) == [told]


def fails(error):
    def command(argv):
        raise error

    return command


def test_the_status_is_the_commands_own_or_0():
    assert run_command(lambda argv: None, []) == 0
    assert run_command(lambda argv: len(argv), ["a", "b", "c"]) == 3


def test_an_input_error_is_one_line_and_status_2(capsys):
    assert run_command(fails(InputError("two\nlines")), []) == 2
    assert capsys.readouterr() == ("", "tljax: error: two lines\n")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (InputError("a\rb\x1b[31m"), "a b [31m"),
        (InputError("x" * 10_000), "x" * 2_000 + " ..."),
        (
            OSError(36, "File name too long", "abc"),
            "abc: File name too long; mend that or give another place",
        ),
        (MemoryError("1 EiB"), "out of memory (1 EiB); ask for less"),
    ],
)
def test_what_the_user_can_mend_is_one_plain_line(capsys, error, said):
    assert run_command(fails(error), []) == 2
    assert capsys.readouterr().err == f"tljax: error: {said}\n"


def test_ctrl_c_says_that_the_same_command_goes_on(capsys):
    assert run_command(fails(KeyboardInterrupt()), [], program="bake") == 130
    line = capsys.readouterr().err
    assert line.startswith("bake: stopped") and "same command goes on" in line
    assert line.count("\n") == 1


def test_what_was_stopped_may_say_itself_what_it_left(capsys):
    assert run_command(fails(KeyboardInterrupt("stopped; 3 of 5")), []) == 130
    assert capsys.readouterr().err == "tljax: stopped; 3 of 5\n"


def test_a_defect_of_ours_is_not_hidden():
    for error in (ZeroDivisionError(), OSError(5, "of no file")):
        with pytest.raises(type(error)):
            run_command(fails(error), [])


def begin(folder: pathlib.Path, *names: str, error=InputError) -> None:
    """Writes files to a run folder, then fails."""
    with pytest.raises(error), work_folder(folder):
        for name in names:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}\n")
        raise error("no")


@pytest.mark.parametrize("error", [InputError, MemoryError])
def test_a_refused_run_leaves_no_folder(tmp_path, error):
    begin(tmp_path / "run", "config.json", "params/x", error=error)
    assert not (tmp_path / "run").exists()


def test_a_refused_run_leaves_what_was_in_its_folder(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    begin(tmp_path / "mine", "config.json")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("trace", ["metrics.jsonl", "populations/a/checkpoints/3/x"])
def test_what_training_wrote_stays(tmp_path, trace):
    begin(tmp_path / "run", "config.json", trace)
    assert (tmp_path / "run" / trace).exists()
    assert (tmp_path / "run" / "config.json").exists()


def test_what_a_stopped_command_wrote_stays(tmp_path):
    begin(tmp_path / "run", "config.json", error=KeyboardInterrupt)
    assert (tmp_path / "run" / "config.json").exists()


def test_a_refused_run_leaves_no_new_folder_above_it(tmp_path):
    begin(tmp_path / "runs" / "a", "config.json")
    assert not (tmp_path / "runs").exists()


def test_a_second_command_in_a_folder_is_refused_and_harms_nothing(tmp_path):
    folder = tmp_path / "run"
    with work_folder(folder):
        (folder / "config.json").write_text("{}")
        with pytest.raises(InputError, match="another command works in .*run"):
            with work_folder(folder):
                pass
        assert [path.name for path in folder.iterdir()] == ["config.json"]
    begin(folder, "other.json")  # it is free again
    assert (folder / "config.json").exists()


@pytest.mark.parametrize("place", ["file", "file/sub"])
def test_a_file_is_no_place_to_work_in(tmp_path, place):
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(InputError, match="file is a file; give --workdir a folder"),
        work_folder(tmp_path / place),
    ):
        pass


@pytest.mark.parametrize("target", ["nowhere", "empty"])
def test_a_link_is_no_new_folder(tmp_path, target):
    (tmp_path / "empty").mkdir()
    check_new_folder(tmp_path / "empty")
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(InputError, match="--out=.*link is a link; give a new folder"):
        check_new_folder(tmp_path / "link")


@pytest.mark.parametrize("name", ["a" * 300, f"{'a' * 300}/out"])
def test_a_name_that_is_too_long_is_no_new_folder(tmp_path, name):
    with pytest.raises(InputError, match="cannot write .*: File name too long"):
        check_new_folder(tmp_path / name)


@pytest.fixture
def outside(monkeypatch):
    """outside(name, stream) puts a stream in the place of sys.NAME."""
    return lambda name, stream: monkeypatch.setattr(sys, name, stream)


def text_stream(raw, encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(raw, encoding=encoding)


def test_texts_are_utf_8_whatever_the_locale_says(outside):
    written = io.BytesIO()
    outside("stdin", text_stream(io.BytesIO(b"\xef\xbb\xbf\xc3\xa9\n"), "ascii"))
    outside("stdout", text_stream(written, "ascii"))
    assert run_command(lambda argv: print(input() + "\udcff"), []) == 0
    assert written.getvalue() == b"\xc3\xa9\\udcff\n"


def test_bytes_that_are_no_text_are_one_line(outside, capsys):
    outside("stdin", text_stream(io.BytesIO(b"\xff\n"), "utf-8"))
    assert run_command(lambda argv: print(input()), []) == 2
    said = capsys.readouterr().err
    assert "not UTF-8" in said and "0xff" in said and said.count("\n") == 1


def test_a_closed_stream_is_empty_and_a_closed_output_is_refused(outside, capsys):
    outside("stdin", None)
    assert run_command(lambda argv: len(sys.stdin.read()), []) == 0
    sys.stdin.close()
    outside("stdout", None)
    assert run_command(lambda argv: 0, []) == 2
    assert "standard output is closed" in capsys.readouterr().err


def test_a_full_disk_behind_the_output_is_one_line():
    code = "from tljax.cli.command import run_command as run; import sys;"
    code += "sys.exit(run(lambda argv: print('a'), []))"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert done.stderr.startswith("tljax: error: standard output: No space left")
    assert done.stderr.count("\n") == 1
