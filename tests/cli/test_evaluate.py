"""`tljax evaluate` measures the very numbers that the run wrote of its test split."""

import json

import pytest

from tljax.cli.main import main
from tljax.train.record import read_metrics


@pytest.fixture
def held_out_file(labelled_run, tmp_path):
    """The run's test split as a file of a user's."""
    text = (labelled_run / "predictions" / "test.jsonl").read_text()
    path = tmp_path / "held_out.jsonl"
    rows = [json.loads(line) for line in text.splitlines()]
    rows = [{"body": row["text"], "stars": row["label"]} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_test_split_gives_the_runs_final_record(
    labelled_run, held_out_file, capsys
):
    capsys.readouterr()
    names = [f"--run={labelled_run}", f"--input={held_out_file}"]
    assert main(["evaluate", *names, "--text=body", "--label=stars"]) == 0
    lines = capsys.readouterr().out.splitlines()
    final = read_metrics(labelled_run)[-1]["test"]
    assert [" ".join(line.split()[:-6]) for line in lines] == [
        "accuracy",
        "macro-F1",
        "ECE",
        "log-likelihood loss (nats)",
    ]
    for line, one in zip(lines, final.values(), strict=True):
        value, _, error, *count = line.split()[-6:]
        assert float(value) == pytest.approx(one["value"], abs=1e-4)
        assert float(error) == pytest.approx(one["se"], abs=1e-4)
        assert " ".join(count) == "(n = 8)"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "does not exist"),
        (b"text,label\n", "holds no rows"),
        (b"text,lable\na,good\n", "no column 'label'; did you mean 'lable'?"),
        (b"text,label\na,good\nb,\n", "no label in column 'label'"),
        (b"text,label\na,god\n", "label 'god', which the run has not learnt"),
        (b"text,label\na,\xff\n", "not UTF-8"),
    ],
)
def test_bad_input_is_one_line(content, said, labelled_run, refused, tmp_path):
    path = tmp_path / "held_out.csv"
    if content is not None:
        path.write_bytes(content)
    assert said in refused("evaluate", f"--run={labelled_run}", f"--input={path}")


def test_an_unknown_label_is_told_the_nearest_class(labelled_run, refused, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\na,god\n")
    line = refused("evaluate", f"--run={labelled_run}", f"--input={path}")
    assert "its classes: bad, good; did you mean 'good'?" in line
