"""A sweep's page, summary and sentences, from made-up records."""

import csv
import json
import shutil

import numpy as np
import pytest

from tljax.report import sweep_figures, sweep_parallel
from tljax.report.curves import mean_band
from tljax.report.statistics import Interval
from tljax.report.sweep_answer import score_range, sentences
from tljax.report.sweep_best import best_trials
from tljax.report.sweep_importance import importance
from tljax.report.sweep_look import Score, short_setting
from tljax.report.sweep_page import write_sweep_report
from tljax.report.sweep_records import load_sweep, short_names
from tljax.report.sweep_sections import curves_html, parallel_html
from tljax.report.sweep_tables import trials_html
from tljax.settings import InputError

FINAL = {"trial": 0, "params": {}, "folders": [], "repeated_exactly": True}
FINAL["test"] = {"values": [0.7, 0.72, 0.71], "mean": 0.71, "low": 0.685, "high": 0.735}


def told(sweep, folder, rows, **plan):
    loaded = load_sweep(sweep.write(folder, rows, **plan))
    direction = loaded.plan["direction"]
    return " ".join(sentences(loaded, best_trials(loaded.trials, direction)))


def scored(sweep, *values):
    """Trials in the middle of the space with these values."""
    row = sweep.rows(1, 1)[0]
    row["params"] = {"optim.lr_peak": 1e-3, "transfer.method": "full"}
    return [
        row | {"number": i, "values": list(one), "order": i}
        for i, one in enumerate(values)
    ]


def test_the_page_holds_everything_and_fetches_nothing(sweep, tmp_path):
    rows = sweep.rows(12, 3)
    folder = sweep.write(tmp_path / "sweep", rows)
    (folder / "final.json").write_text(json.dumps(FINAL))
    summary = write_sweep_report(folder)
    html = (folder / "report.html").read_text()
    for title in ("Each key alone", "All keys together", "Importance",
                  "Would more trials pay?", "Learning curves", "Trials",
                  "What was swept"):  # fmt: skip
        assert f"<h2>{title}</h2>" in html
    for fetched in ("<script", "<img", "src=", "@import", 'href="http', "url(http"):
        assert fetched not in html
    ranked = sorted(
        (row for row in rows if row["values"]), key=lambda row: -row["value"]
    )
    best = summary["best"]
    assert best["trial"] == ranked[0]["number"]
    assert best["mean"] == pytest.approx(ranked[0]["value"])
    assert best["ci95"][0] < best["mean"] < best["ci95"][1]
    assert html.index(f"Trial {best['trial']} is best") < html.index("<h2>")
    assert "winner’s curse" in html
    assert "loss was &lt;not&gt; finite" in html and "<not>" not in html
    assert summary["trials"] == {"complete": 11, "failed": 1}
    assert summary["seconds"] == 24.0
    assert summary["test"]["mean"] == 0.71
    assert json.loads((folder / "summary.json").read_text()) == summary
    # only what applies to all trials is weighed; the rate was made to matter most
    assert sum(summary["importance"].values()) == pytest.approx(1)
    assert next(iter(summary["importance"])) == "optim.lr_peak"
    assert "transfer.rank" not in summary["importance"]
    with open(folder / "trials.csv") as file:
        assert [row["number"] for row in csv.DictReader(file)] == list(
            map(str, range(12))
        )


def test_a_sweep_without_a_score_has_a_page_without_figures(sweep, tmp_path):
    rows = sweep.rows(3, 3)[2:]
    folder = sweep.write(tmp_path, rows)
    summary = write_sweep_report(folder)
    assert summary["best"] is None
    assert "1 failed; the first: loss was <not> finite." in summary["sentences"][0]
    html = (folder / "report.html").read_text()
    assert "<svg" not in html and "What was swept" in html


def test_sentences_of_some_that_cannot_be_told_apart(sweep, tmp_path):
    rows = scored(sweep, (0.8, 0.9, 1.0), (0.79, 0.88, 0.97), (0.1, 0.2, 0.3))
    found = told(sweep, tmp_path, rows)
    assert found.startswith("Trial 0 is best: validation/accuracy 90.0\u202f% (mean")
    assert "with optim.lr_peak = 0.001 and transfer.method = full." in found
    assert "The best two cannot be told apart: 0 and then 1 (" in found
    assert "The best of 3 was chosen by these very scores" in found
    assert "Warning" not in found and "not ended" not in found


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([(0.5, 0.6, 0.7)], "No other trial has a score"),
        ([(0.5,), (0.6,)], "With one seed a trial nothing can be told"),
        ([(0.8, 0.9), (0.7, 0.79)], "The one other is worse by more"),
        ([(0.8, 0.9), (0.7, 0.9)], "paired by seed, covers 0)."),
        ([(0.8, 0.9), (0.7, 0.8)], "covers 0 or, of two seeds, has no width)."),
        ([(0.8, 0.9), (0.7, 0.9), (0.8, 0.7)], "None of the 2 others can be told"),
        # 0 - 1 is steady, 0 - 2 is not: no row of the best
        ([(0.8, 0.9, 1.0), (0.79, 0.89, 0.99), (0.79, 0.88, 0.97)],
         "It cannot be told apart from trial 2 ("),
    ],
)  # fmt: skip
def test_sentences_on_the_others(sweep, tmp_path, values, sentence):
    rows = scored(sweep, *values)
    assert sentence in told(sweep, tmp_path, rows, seeds=len(values[0]))


def test_sentences_on_edge_test_and_what_is_left(sweep, tmp_path):
    rows = scored(sweep, (0.5, 0.6, 0.7), (0.1, 0.2, 0.3))
    rows[0]["params"] = {"optim.lr_peak": 9.9e-3, "optim.weight_decay": 0.1}
    rows[1]["state"] = "waiting"
    (tmp_path / "final.json").write_text(
        json.dumps(FINAL | {"trial": 4, "repeated_exactly": False})
    )
    found = told(sweep, tmp_path, rows)
    assert "optim.lr_peak = 0.0099 is at the edge of its range 1e-05 to 0.01" in found
    assert "optim.weight_decay = 0.1 is the last of the choices" in found
    assert "trial 4 has 71.0\u202f% (95\xa0% interval 68.5\u202f% to" in found
    assert "not the best of now, trial 0" in found
    assert "repeated for the test, were not the same" in found
    assert found.endswith("1 of 2 trials has not ended yet.")


def test_a_test_score_of_one_seed_has_no_interval(sweep, tmp_path):
    one = {"values": [0.7], "mean": 0.7, "low": None, "high": None}
    (tmp_path / "final.json").write_text(json.dumps(FINAL | {"test": one}))
    found = told(sweep, tmp_path, scored(sweep, (0.5,)), seeds=1)
    assert "On the test split, scored once, trial 0 has 70.0\u202f%." in found


def test_a_loss_is_told_as_a_number(sweep, tmp_path):
    rows = scored(sweep, (0.51234, 0.51234), (0.9, 0.9))
    plan = {"metric": "validation/loss_nats", "direction": "minimize", "seeds": 2}
    found = told(sweep, tmp_path, rows, **plan)
    assert found.startswith("Trial 0 is best: validation/loss_nats 0.5123 (mean")


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (lambda rows: rows[:8], "7 trials have a score; fANOVA needs 10."),
        (
            lambda rows: [row | {"values": [0.5] * 3} for row in rows],
            "All trials have the same score",
        ),
        (
            lambda rows: [row | {"params": {"optim.lr_peak": 1e-3}} for row in rows],
            "never varied: optim.lr_peak",
        ),
    ],
)
def test_importance_says_why_it_is_not_told(sweep, tmp_path, change, note):
    loaded = load_sweep(sweep.write(tmp_path, change(sweep.rows(12, 3))))
    found = importance(loaded)
    assert found.shares == {} and note in found.note


def test_panels_mark_what_failed_and_what_lies_beyond(sweep, tmp_path, monkeypatch):
    rows = sweep.rows(12, 3)
    rows[5]["values"] = [-90.0, -90.0, -90.0]
    loaded = load_sweep(sweep.write(tmp_path, rows))
    ranking = best_trials(loaded.trials, "maximize")
    drawn = []
    monkeypatch.setattr(
        sweep_figures, "to_svg", lambda figure, **_: drawn.append(figure.axes[0])
    )
    sweep_figures.isolation_svg(loaded, ranking, "optim.lr_peak", title="rate")
    (axes,) = drawn
    marks = [line.get_marker() for line in axes.lines]
    assert sorted(marks) == ["*", *"o" * 9, "v", "x"]
    star = axes.lines[marks.index("*")]
    best = rows[ranking.best]
    assert star.get_xdata()[0] == best["params"]["optim.lr_peak"]
    assert star.get_ydata()[0] == pytest.approx(100 * best["value"])
    assert axes.get_xscale() == "log"
    assert axes.get_ylim()[0] > 0  # the lost one does not squash the others


def test_parallel_lines_pass_below_an_axis_that_does_not_apply(
    sweep, tmp_path, monkeypatch
):
    loaded = load_sweep(sweep.write(tmp_path, sweep.rows(4, 3)))
    ranking = best_trials(loaded.trials, "maximize")
    drawn = []
    monkeypatch.setattr(
        sweep_parallel, "to_svg", lambda figure, **_: drawn.append(figure.axes[0])
    )
    names = {"optim.weight_decay": "decay", "transfer.rank": "rank"}
    sweep_parallel.parallel_svg(loaded, ranking, names)
    lines = [line.get_ydata() for line in drawn[0].lines if len(line.get_ydata()) == 3]
    assert len(lines) == 3  # trial 2 has no score
    assert lines[-1][-1] == 1.0  # the best is drawn last and has the highest score
    found = {(decay, round(rank, 2)) for decay, rank, _ in lines}
    # 0: first of three choices, no LoRA; 1: the second, rank 2 of 1 to 16; 3: rank 4
    assert found == {(0.0, sweep_parallel.ABSENT), (0.5, 0.07), (0.0, 0.2)}


def test_many_keys_stand_in_rows(sweep, tmp_path):
    space = [sweep.space[0] | {"key": f"optim.k{i}"} for i in range(8)]
    rows = [
        row | {"params": {f"optim.k{i}": 1e-3 for i in range(8)}}
        for row in scored(sweep, (0.5, 0.6), (0.7, 0.9))
    ]
    loaded = load_sweep(sweep.write(tmp_path, rows, space=space, seeds=2))
    html = parallel_html(loaded, best_trials(loaded.trials, "maximize"))
    assert html.count("<svg") == 2 and "Every row of keys ends at the score." in html


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e-5, "1e-05"), (0.0021898, "0.00219"), (12345, "12345"), ("", "(empty)"),
     (True, "True"), ("hf:owner/some-model", "…er/some-model")],
)  # fmt: skip
def test_values_beside_an_axis(value, text):
    assert short_setting(value) == text


def test_an_interval_of_shares_ends_where_shares_do():
    assert score_range(Interval(0.5, -0.3, 1.4), "test/accuracy") == (
        "0.0\u202f% to 100.0\u202f%"
    )
    assert score_range(Interval(0, -0.3, 1.4), "test/loss_nats") == "−0.3 to 1.4"


def test_curves_are_drawn_of_what_was_logged(sweep, tmp_path):
    def drawn(folder):
        loaded = load_sweep(folder)
        return curves_html(loaded, best_trials(loaded.trials, "maximize")).count("<svg")

    rows = sweep.rows(2, 3)
    folder = sweep.write(tmp_path / "a", rows)
    assert drawn(folder) == 2  # loss and accuracy
    (folder / "trials/0000/metrics.jsonl").write_text("")  # begun, nothing logged
    (folder / "trials/0001-s2/metrics.jsonl").unlink()
    assert drawn(folder) == 2
    assert drawn(sweep.write(tmp_path / "b", rows, metric="validation/loss_nats")) == 1
    # accuracy on validation items is no curve of accuracy on test items
    assert drawn(sweep.write(tmp_path / "c", rows, metric="test/accuracy")) == 1
    shutil.rmtree(folder / "trials")
    assert drawn(folder) == 0


@pytest.mark.parametrize(("larger", "kept"), [(True, (0.5, 4)), (False, (-2, 0.5))])
def test_a_lost_curve_is_cut_off_and_the_best_is_not(larger, kept, monkeypatch):
    levels = (0.5, 0.51, 0.52, 0.53, 4.0, -2.0)
    rows = [
        {"number": i, "state": "complete", "values": [y]} for i, y in enumerate(levels)
    ]
    ranking = best_trials(rows, "maximize" if larger else "minimize")
    bands = {
        i: mean_band([(np.array([1, 2]), np.array([y, y]))])
        for i, y in enumerate(levels)
    }
    drawn = []
    monkeypatch.setattr(
        sweep_figures, "to_svg", lambda figure, **_: drawn.append(figure.axes[0])
    )
    sweep_figures.curves_svg(bands, ranking, Score("score", 1.0, larger))
    low, high = drawn[0].get_ylim()
    assert low < kept[0] and high > kept[1]
    assert (low > -2.0) if larger else (high < 4.0)


def test_trials_of_one_reason_stand_together(sweep, tmp_path):
    lost = {"state": "failed", "values": [], "reason": "out of <memory>"}
    rows = [row | (lost if row["number"] else {}) for row in sweep.rows(3, 3)]
    loaded = load_sweep(sweep.write(tmp_path, rows))
    html = trials_html(loaded, best_trials(loaded.trials, "maximize"))
    assert "<li>Trials 1 and 2: out of &lt;memory&gt;</li>" in html


def test_names_are_short_where_they_differ():
    assert short_names(["a.rate", "b.rate", "c.rank"]) == {
        "a.rate": "a.rate", "b.rate": "b.rate", "c.rank": "rank"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("sweep.json", "{}", "no usable 'config'"),
        ("sweep.json", None, "is missing"),
        ("trials.json", "{}", "not a list of trials"),
        ("trials.json", "[{", "is not JSON"),
        ("trials.json", '[{"number": 0}]', "trial 0 has no usable 'state'"),
        ("trials.json", None, "does not exist"),
        ("final.json", '{"trial": 0}', "final.json has no usable 'test'"),
        ("final.json", '{"trial": 0, "test": {}}', "no usable 'values'"),
    ],
)
def test_broken_records_are_one_line(sweep, tmp_path, file, text, message):
    folder = sweep.write(tmp_path, sweep.rows(2, 3))
    (folder / file).unlink(missing_ok=True)
    if text is not None:
        (folder / file).write_text(text)
    with pytest.raises(InputError, match=message):
        write_sweep_report(folder)
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"state": "lost"}, "state is 'lost'"),
        ({"values": [0.5]}, "1 values where"),
        ({"order": None}, "complete without a place in the order"),
    ],
)
def test_broken_rows_are_one_line(sweep, tmp_path, row, message):
    rows = sweep.rows(2, 3)
    rows[1] |= row
    with pytest.raises(InputError, match=f"trial 1: {message}"):
        load_sweep(sweep.write(tmp_path, rows))
    with pytest.raises(InputError, match="direction is 'up'"):
        load_sweep(sweep.write(tmp_path, [], direction="up"))
