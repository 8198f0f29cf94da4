"""A user's files: what is read, and the one line said of what cannot be."""

import pytest

from tljax.data.formats import CsvFile, JsonLines, open_table, open_text
from tljax.settings import InputError

LONG = "x" * 200_000  # more than the csv module's own limit for a field


def pairs(file):
    return [(row.text, row.label) for row in file]


@pytest.mark.parametrize(
    ("kind", "content", "rows"),
    [
        (CsvFile, b'y,t\n1,"a, ""b""\nc"\n\n2,\n', [('a, "b"\nc', "1"), ("", "2")]),
        (CsvFile, b"\xef\xbb\xbft,y\r\na\xc3\xa9,1\r\n", [("aé", "1")]),
        (CsvFile, f"t,y\n{LONG},1\n".encode(), [(LONG, "1")]),
        (JsonLines, b'\n{"t": "a", "y": 1, "z": []}\r\n', [("a", "1")]),
        (JsonLines, b'{"t": "a", "y": true}', [("a", "true")]),
        (JsonLines, '{"t": "a\u2028b", "y": "c d"}'.encode(), [("a\u2028b", "c d")]),
    ],
)
def test_rows_come_in_order_and_unchanged(tmp_path, kind, content, rows):
    path = tmp_path / "file"
    path.write_bytes(content)
    assert pairs(kind(path, text="t", label="y")) == rows
    assert pairs(kind(path, text="t", label=None)) == [(text, None) for text, _ in rows]


def test_a_folder_is_a_document_a_file_at_any_depth(tmp_path):
    for name, content in [("b.txt", "B"), ("a/c.txt", "C\n\nD"), ("e.txt", " \n")]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    (tmp_path / "f.md").write_text("F")
    assert pairs(open_text(tmp_path)) == [("C\n\nD", None), ("B", None)]


def test_one_text_file_is_a_document_a_block(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("a\nb\n\n \nc\n")
    assert pairs(open_text(path)) == [("a\nb", None), ("c", None)]


def test_the_extension_chooses_the_reader(tmp_path):
    (tmp_path / "a.csv").write_text("t\na\n")
    (tmp_path / "a.JSONL").write_text('{"t": "b"}\n')
    for name, rows in [("a.csv", [("a", None)]), ("a.JSONL", [("b", None)])]:
        assert pairs(open_table(tmp_path / name, text="t", label=None)) == rows
    with pytest.raises(InputError, match=r"a\.xls must end in one of .csv"):
        open_table(tmp_path / "a.xls", text="t", label=None)


@pytest.mark.parametrize(
    ("kind", "content", "parts"),
    [
        (CsvFile, b"", ["is empty"]),
        (CsvFile, b" \n\n", ["is empty"]),
        (CsvFile, b"t,y\n", ["holds no rows"]),
        (CsvFile, b"t,y\n,1\n ,2\n", ["'t' is empty in all 2 rows"]),
        (CsvFile, b"t,why\na,b\n", ["no column 'y'", "there are: t, why"]),
        (CsvFile, b"tt,y\na,b\n", ["did you mean 'tt'?"]),
        (CsvFile, b"t,y,t\na,b,c\n", ["2 columns named 't'"]),
        (CsvFile, b"t,y\na,b\nc,d,e\n", ["line 3", "3 fields, the header has 2"]),
        (CsvFile, b't,y\n"a"b,c\n', ["line 2", "not valid CSV"]),
        (CsvFile, b"t,y\na,\n", ["line 2", "no label in column 'y'"]),
        (CsvFile, b"t,y\na,b\nc\xff,d\n", ["line 3", "not UTF-8", "0xff", "offset 9"]),
        (JsonLines, b"", ["is empty"]),
        (JsonLines, b'{"t": "a", "y": 1}\n{"t"\n', ["line 2", "not valid JSON"]),
        (JsonLines, b"[" * 100_000, ["line 1", "not valid JSON"]),
        (JsonLines, b"[1]\n", ["line 1", "must be a JSON object"]),
        (JsonLines, b'{"t": "a"}\n', ["line 1", "no column 'y'", "there are: t"]),
        (JsonLines, b'{"t": 1, "y": "b"}', ["'t' is 1", "must be a string"]),
        (JsonLines, b'{"t": "a", "y": null}', ["label 'y' is None"]),
        (JsonLines, b'{"t": "a", "y": 0.5}', ["label 'y' is 0.5"]),
        (JsonLines, b'{"t": "\\ud800", "y": 1}', ["half a surrogate pair"]),
        (JsonLines, b'\n{"t": "\xe9", "y": 1}', ["line 2", "not UTF-8", "0xe9"]),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(tmp_path, kind, content, parts):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(InputError) as raised:
        list(kind(path, text="t", label="y"))
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)
    for part in parts:
        assert part in str(raised.value)


def test_missing_files_and_folders_are_named(tmp_path):
    (tmp_path / "reviews.csv").write_text("t\na\n")
    with pytest.raises(InputError, match=r"review\.csv does not exist.*'reviews\.csv'"):
        CsvFile(tmp_path / "review.csv", text="t", label=None)
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        CsvFile(tmp_path, text="t", label=None)
    with pytest.raises(InputError, match=r"holds no \*\.txt file"):
        open_text(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        open_text(tmp_path / "nowhere")
