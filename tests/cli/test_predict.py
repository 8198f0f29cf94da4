"""`tljax predict` gives what the run itself gave, in order, in the formats told."""

import csv
import io
import json
import types

import numpy as np
import pytest

from tljax.cli import predict
from tljax.cli.main import main

# float32 sums in another packing, then six digits.
TOLERANCE = 1e-5


@pytest.fixture
def rows(labelled_run):
    """What the run wrote about its own test split."""
    lines = (labelled_run / "predictions" / "test.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture
def write_input(tmp_path):
    def write(texts, name="in.jsonl", key="text"):
        path = tmp_path / name
        if path.suffix == ".csv":
            file = io.StringIO(newline="")
            csv.writer(file).writerows([[key, "other"], *([text, 1] for text in texts)])
            path.write_text(file.getvalue())
        else:
            path.write_text("".join(json.dumps({key: text}) + "\n" for text in texts))
        return path

    return write


def call(run, given_input, output, *more):
    arguments = [f"--run={run}", f"--input={given_input}", f"--output={output}", *more]
    return main(["predict", *arguments])


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def near(found, expected):
    assert found.keys() == expected.keys()
    for name, p in expected.items():
        assert found[name] == pytest.approx(p, abs=TOLERANCE)


def test_the_runs_own_test_texts_get_the_runs_own_probabilities(
    labelled_run, rows, write_input, tmp_path
):
    path = write_input([row["text"] for row in rows])
    assert call(labelled_run, path, tmp_path / "out.jsonl") == 0
    found = read(tmp_path / "out.jsonl")
    assert len(found) == len(rows) == 8
    for one, row in zip(found, rows, strict=True):
        assert list(one) == ["label", "probabilities"]
        near(one["probabilities"], row["probabilities"])
        assert one["label"] == max(one["probabilities"], key=one["probabilities"].get)


def test_the_order_of_the_input_is_kept_over_chunks(
    labelled_run, rows, write_input, tmp_path, monkeypatch
):
    monkeypatch.setattr(predict, "CHUNK", 3)
    order = np.random.default_rng(0).permutation(8)
    path = write_input([rows[i]["text"] for i in order], name="in.csv", key="body")
    assert call(labelled_run, path, tmp_path / "out.jsonl", "--text=body") == 0
    found = read(tmp_path / "out.jsonl")
    assert len({one["probabilities"]["good"] for one in found}) > 4  # tells texts apart
    for one, i in zip(found, order, strict=True):
        near(one["probabilities"], rows[i]["probabilities"])


def test_a_csv_output_has_a_column_a_class(labelled_run, rows, write_input, tmp_path):
    path = write_input([row["text"] for row in rows])
    assert call(labelled_run, path, tmp_path / "out.csv") == 0
    with open(tmp_path / "out.csv", newline="") as file:
        header, *found = csv.reader(file)
    assert header == ["label", "p_bad", "p_good"]
    for (label, *numbers), row in zip(found, rows, strict=True):
        values = dict(zip(("bad", "good"), map(float, numbers), strict=True))
        near(values, row["probabilities"])
        assert label == max(values, key=values.get)


def stdin(monkeypatch, data: bytes):
    fake = types.SimpleNamespace(buffer=io.BytesIO(data))
    monkeypatch.setattr(predict.sys, "stdin", fake)


def test_a_dash_reads_a_text_a_line_and_writes_a_line_each(
    labelled_run, rows, monkeypatch, capsys
):
    texts = [rows[0]["text"], "", rows[1]["text"]]
    stdin(monkeypatch, "\r\n".join(texts).encode())
    capsys.readouterr()
    assert call(labelled_run, "-", "-") == 0
    said = capsys.readouterr()
    assert "1 of 3 texts are empty" in said.err
    found = [json.loads(line) for line in said.out.splitlines()]
    assert len(found) == 3
    near(found[0]["probabilities"], rows[0]["probabilities"])
    near(found[2]["probabilities"], rows[1]["probabilities"])


def test_products_may_be_of_another_type(labelled_run, rows, monkeypatch, capsys):
    stdin(monkeypatch, rows[0]["text"].encode())
    assert call(labelled_run, "-", "-", "--dtype=bfloat16") == 0
    (line,) = capsys.readouterr().out.splitlines()
    found, exact = json.loads(line)["probabilities"], rows[0]["probabilities"]
    assert found != exact
    assert all(abs(found[name] - exact[name]) < 0.05 for name in exact)


def test_labels_with_commas_and_letters_of_any_script_survive():
    classes = ("a, b", "gut ✓")
    rows = np.array([[0.25, 0.75]])
    header, row = csv.reader(io.StringIO(predict.csv_text(rows, classes)))
    assert header == ["label", "p_a, b", "p_gut ✓"]
    assert row == ["gut ✓", "0.25", "0.75"]
    assert "gut ✓" in predict.jsonl_text(rows, classes)


@pytest.mark.parametrize(
    ("content", "flags", "said"),
    [
        (None, [], "does not exist"),
        (b"", [], "is empty"),
        (b'{"txt": "a"}', [], "no column 'text'; did you mean 'txt'?"),
        (b'{"text": "\xff"}', [], "not UTF-8"),
        (b'{"text": "a"}', ["--text=txet"], "did you mean 'text'?"),
        (b'{"text": "a"}', ["--txt=text"], "did you mean 'text'?"),
    ],
)
def test_bad_input_is_one_line_and_keeps_the_old_output(
    content, flags, said, labelled_run, refused, tmp_path
):
    path, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    output.write_text("of yesterday\n")
    if content is not None:
        path.write_bytes(content)
    names = [f"--run={labelled_run}", f"--input={path}", f"--output={output}"]
    assert said in refused("predict", *names, *flags)
    assert output.read_text() == "of yesterday\n"


@pytest.mark.parametrize(
    ("data", "said"), [(b"", "empty"), (b"a\n\xff", "line 2: not")]
)
def test_bad_standard_input_is_one_line(data, said, labelled_run, refused, monkeypatch):
    stdin(monkeypatch, data)
    names = [f"--run={labelled_run}", "--input=-", "--output=-"]
    assert said in refused("predict", *names)
    assert "names a column" in refused("predict", *names, "--text=a")


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf\xc3\xa9\n\nb")
    assert predict.read_texts(str(tmp_path / "a.txt"), None) == ["é", "", "b"]


@pytest.mark.parametrize("name", ["out.txt", "out", ".", "in.jsonl"])
def test_an_output_that_cannot_be_is_refused_before_any_work(
    name, labelled_run, write_input, refused, tmp_path
):
    path = write_input(["a film"])
    before = path.read_bytes()
    line = refused(
        "predict",
        f"--run={labelled_run}",
        f"--input={path}",
        f"--output={tmp_path / name}",
    )
    assert "--output=" in line
    assert path.read_bytes() == before


def test_a_run_that_cannot_predict_is_refused(
    labelled_run, language_run, copy_of, write_input, refused, tmp_path
):
    path = write_input(["a film"])
    open_run = copy_of(labelled_run)
    (open_run / "params").rename(tmp_path / "gone")
    for run, said in {
        tmp_path / "nowhere": "is not a folder",
        tmp_path: "holds no config.json",
        language_run: "is not a fine-tuning run (config.kind is 'pretrain')",
        open_run: "holds no params; it is not a run that has ended",
    }.items():
        output = f"--output={tmp_path / 'out.csv'}"
        assert said in refused("predict", f"--run={run}", f"--input={path}", output)
    assert not (tmp_path / "out.csv").exists()


def test_missing_flags_are_named(refused):
    line = refused("predict", "--run=x")
    assert "needs --input=FILE and --output=FILE" in line
