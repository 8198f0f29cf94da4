"""Records written by hand: what is read back, and what is refused by name."""

import json
import re

import numpy as np
import pytest

from tljax.report import records
from tljax.settings import InputError


def row(item, label, prediction, **probabilities):
    return {
        "id": item,
        "label": label,
        "prediction": prediction,
        "probabilities": probabilities,
    }


ROWS = (
    row("x1", "neg", "neg", pos=0.25, neg=0.75),
    row("x2", "pos", "neg", pos=0.4, neg=0.6),
    row("x3", "pos", "pos", pos=1.0, neg=0.0),
)


def write_run(folder, rows):
    path = folder / "predictions" / "test.jsonl"
    path.parent.mkdir(parents=True)
    text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
    path.write_text(text, encoding="utf-8")
    return records.Run(folder, "scratch", 50, 0, True)


def write_metrics(folder, *lines):
    folder.mkdir(exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(lines), encoding="utf-8")


def raises(message):
    return pytest.raises(InputError, match=re.escape(message))


def test_an_experiment_lists_its_runs_in_order(tmp_path):
    (tmp_path / "config.json").write_text('{"plan": {"seeds": 2}}')
    (tmp_path / "runs" / ".part").mkdir(parents=True)
    for name in ("transfer-n50-s1", "scratch-n100-s0", "scratch-n50-s10"):
        (tmp_path / "runs" / name).mkdir()
        config = tmp_path / "runs" / name / "config.json"
        config.write_text('{"kind": "finetune"}')
    (tmp_path / "runs" / "scratch-n50-s9").mkdir()
    (tmp_path / "runs" / "scratch-n50-s9" / "config.json").write_text('{"kind": "x"}')
    found = records.load_experiment(tmp_path)
    assert [run.folder.name for run in found.runs] == [
        "scratch-n50-s9",
        "scratch-n50-s10",
        "scratch-n100-s0",
        "transfer-n50-s1",
    ]
    assert found.runs[0] == records.Run(
        tmp_path / "runs" / "scratch-n50-s9", "scratch", 50, 9, False
    )
    assert all(run.trained for run in found.runs[1:])
    assert found.select(arm="scratch", n=50) == found.runs[:2]
    assert found.select(arm="scratch", n=7) == ()
    assert found.config == {"plan": {"seeds": 2}}
    assert found.lm == tmp_path / "lm"


def test_what_is_no_experiment_is_refused(tmp_path):
    with raises(f"{tmp_path / 'config.json'} is missing"):
        records.load_experiment(tmp_path)
    (tmp_path / "config.json").write_text('{"plan": ')
    with raises(f"{tmp_path / 'config.json'} is not valid JSON"):
        records.load_experiment(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with raises("is not a JSON object"):
        records.load_experiment(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with raises(f"{tmp_path / 'runs'} is missing"):
        records.load_experiment(tmp_path)
    (tmp_path / "runs").mkdir()
    with raises(f"{tmp_path / 'runs'} is empty"):
        records.load_experiment(tmp_path)
    (tmp_path / "runs" / "scratch-n50-s01").mkdir()
    with raises(f"{tmp_path / 'runs' / 'scratch-n50-s01'} is not named ARM-nN-sSEED"):
        records.load_experiment(tmp_path)


def test_predictions_are_indices_into_sorted_classes(tmp_path):
    found = records.load_predictions(write_run(tmp_path / "r", ROWS), "test")
    assert found.classes == ("neg", "pos")
    assert found.ids == ("x1", "x2", "x3")
    assert found.labels_I.tolist() == [0, 1, 1]
    assert found.predictions_I.tolist() == [0, 0, 1]
    assert found.correct_I.tolist() == [1.0, 0.0, 1.0]
    np.testing.assert_array_equal(
        found.probabilities_IC, [[0.75, 0.25], [0.6, 0.4], [0.0, 1.0]]
    )


def test_a_line_separator_within_a_string_ends_no_line(tmp_path):
    odd = ({"text": "one\u2028two\u0085three"} | r for r in ROWS)
    found = records.load_predictions(write_run(tmp_path / "r", odd), "test")
    assert found.ids == ("x1", "x2", "x3")


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (row("x1", "pos", "pos", pos=1.0, neg=0.0), "test.jsonl:2: id 'x1'"),
        (row(7, "pos", "pos", pos=1.0, neg=0.0), "test.jsonl:2: id 7"),
        (row("x2", "maybe", "pos", pos=1.0, neg=0.0), "test.jsonl:2 is not {id"),
        (row("x2", "pos", "maybe", pos=1.0, neg=0.0), "KeyError('maybe')"),
        (row("x2", "pos", "pos", pos=1.0), "KeyError('neg')"),
        (row("x2", "pos", "pos", pos=0.6, neg=0.3), "test.jsonl:2: probabilities"),
        (row("x2", "pos", "pos", pos=1.5, neg=-0.5), "do not sum to 1"),
        (row("x2", "pos", "pos", pos=float("nan"), neg=0.5), "do not sum to 1"),
        ([], "test.jsonl:2 is not a JSON object"),
    ],
)
def test_a_broken_line_is_named(tmp_path, second, message):
    run = write_run(tmp_path / "r", (ROWS[0], second))
    with raises(message):
        records.load_predictions(run, "test")


def test_missing_empty_and_cut_off_predictions_are_refused(tmp_path):
    with raises("predictions/test.jsonl is missing"):
        records.load_predictions(tmp_path, "test")
    run = write_run(tmp_path / "r", ROWS)
    path = run.folder / "predictions" / "test.jsonl"
    path.write_text(path.read_text()[:-20])
    with raises(f"{path}:3 is not valid JSON"):
        records.load_predictions(run, "test")
    path.write_text("")
    with raises(f"{path} is empty"):
        records.load_predictions(run, "test")
    path.write_bytes(b"\xff\xfe")
    with raises(f"{path} is not UTF-8"):
        records.load_predictions(run, "test")


def test_runs_are_aligned_by_id(tmp_path):
    one = write_run(tmp_path / "one", ROWS)
    two = write_run(tmp_path / "two", ROWS[::-1])
    found = records.load_aligned((one, two), "test")
    assert list(found) == [one, two]
    for name in ("labels_I", "predictions_I", "probabilities_IC"):
        np.testing.assert_array_equal(
            getattr(found[one], name), getattr(found[two], name)
        )
    assert found[one].ids == found[two].ids == ("x1", "x2", "x3")


def test_runs_on_other_items_or_labels_are_never_compared(tmp_path):
    one = write_run(tmp_path / "one", ROWS)
    fewer = write_run(tmp_path / "fewer", ROWS[:2])
    other = write_run(
        tmp_path / "other", (*ROWS[:2], row("x4", "pos", "pos", pos=1.0, neg=0.0))
    )
    relabelled = write_run(
        tmp_path / "relabelled", (*ROWS[:2], row("x3", "neg", "neg", pos=0.0, neg=1.0))
    )
    with raises("(1 ids lacking, 0 added)"):
        records.load_aligned((one, fewer), "test")
    with raises(f"{other.folder}/predictions/test.jsonl is not about the items of"):
        records.load_aligned((one, other), "test")
    with raises(f"{relabelled.folder}/predictions/test.jsonl has other classes or"):
        records.load_aligned((one, relabelled), "test")


def test_curves_of_one_split(tmp_path):
    write_metrics(
        tmp_path,
        '{"step": 1, "split": "train", "loss_nats": 2.0}\n',
        '{"step": 1, "split": "validation", "loss_nats": 3.0, "accuracy": 0.5}\n',
        '{"step": 5, "split": "train", "loss_nats": 1.5, "accuracy": 0.75}\n',
        '{"step": 5, "final": true, "params_sha256": "ab"}\n',
    )
    metrics = records.load_metrics(tmp_path)
    steps, losses = records.curve(metrics, split="train", key="loss_nats")
    assert (steps.tolist(), losses.tolist()) == ([1, 5], [2.0, 1.5])
    steps, accuracies = records.curve(metrics, split="train", key="accuracy")
    assert (steps.tolist(), accuracies.tolist()) == ([5], [0.75])
    assert records.curve(metrics, split="test", key="accuracy")[0].size == 0
    assert records.load_final(tmp_path)["params_sha256"] == "ab"


def test_unfinished_or_broken_metrics_are_refused(tmp_path):
    write_metrics(tmp_path, '{"step": 1, "split": "train"}\n')
    with raises(f"{tmp_path / 'metrics.jsonl'} has no final record"):
        records.load_final(tmp_path)
    write_metrics(tmp_path, '{"step": 1}\n', "\n", '{"step": 2}\n')
    with raises("metrics.jsonl:2 is not valid JSON"):
        records.load_metrics(tmp_path)
    write_metrics(tmp_path, '{"step": 1}\n', '{"loss_nats": 1.0}\n')
    with raises("metrics.jsonl:2 has no 'step'"):
        records.load_metrics(tmp_path)


def test_manifest(tmp_path):
    with raises(f"{tmp_path / 'manifest.json'} is missing"):
        records.load_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text('{"tokens": 12}')
    assert records.load_manifest(tmp_path) == {"tokens": 12}
