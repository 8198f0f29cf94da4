"""report.html: complete, in order, escaped, self-contained, replaced whole."""

import errno
import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tljax.report import page, run_page
from tljax.settings import InputError

SECTIONS = [
    "Accuracy for labels",
    "Results",
    "Claims declared beforehand",
    "Choices",
    "Learning curves",
    "Pre-training",
    "Calibration",
    "Where the arms disagree",
    "Contamination",
    "Cost",
    "How it was run",
]
VOID = {"meta", "link", "br"}


class Outline(HTMLParser):
    """Collects headings and tags, and fails on a tag that is not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def report(experiment_folder: Path) -> tuple[str, dict]:
    summary = page.write_experiment_report(experiment_folder)
    return (experiment_folder / "report.html").read_text(encoding="utf-8"), summary


@pytest.fixture
def work(experiment_folder: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(experiment_folder, tmp_path / "work"))


def test_sections_stand_in_order(report: tuple[str, dict]) -> None:
    html, _ = report
    assert re.findall(r"<h2>(.*?)</h2>", html) == SECTIONS
    assert html.index('class="answer"') < html.index("<h2>")


def test_tags_close_and_nothing_is_fetched_or_run(report: tuple[str, dict]) -> None:
    outline = Outline()
    outline.feed(report[0])
    outline.close()
    assert outline.open == []
    for tag, attributes in outline.tags:
        assert tag not in ("script", "img", "iframe")
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:,"))
    assert "@import" not in report[0]
    assert "url(http" not in report[0]


def test_text_and_settings_are_escaped(report: tuple[str, dict]) -> None:
    html, _ = report
    assert "quiet &lt;b&gt;force&lt;/b&gt; &amp; rare wit" in html
    assert "csv:&lt;own&gt;.csv?text=review&amp;label=stars" in html
    assert "<b>force" not in html
    assert "<own>" not in html


def test_ten_items_and_the_best_mean_in_bold(report: tuple[str, dict]) -> None:
    html, summary = report
    assert html.count("<blockquote>") == 10
    best = max(rows["500"]["mean"] for rows in summary["arms"].values())
    results = html[html.index("<h2>Results") : html.index("<h2>Claims")]
    assert f"<strong>{100 * best:.1f}</strong>" in results
    assert results.count("<strong>") >= 3  # one a row, more where means are equal


def test_summary_on_disk_is_what_is_returned_and_rebuilds_to_the_same_bytes(
    report: tuple[str, dict], experiment_folder: Path
) -> None:
    html, summary = report
    text = (experiment_folder / "summary.json").read_text(encoding="utf-8")
    assert json.loads(text) == summary
    assert [entry["n"] for entry in summary["baseline"]] == [50, 100, 500]
    page.write_experiment_report(experiment_folder)
    assert text == (experiment_folder / "summary.json").read_text(encoding="utf-8")
    assert html == (experiment_folder / "report.html").read_text(encoding="utf-8")


def test_a_missing_run_is_an_error_that_overwrites_nothing(work: Path) -> None:
    (work / "report.html").write_text("old")
    shutil.rmtree(work / "runs" / "scratch-n50-s3")
    with pytest.raises(InputError, match="scratch-n50-s3"):
        page.write_experiment_report(work)
    assert (work / "report.html").read_text() == "old"


def test_a_disk_that_takes_no_more_is_told_in_one_line_and_the_old_report_stays(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (work / "summary.json").write_text("old")
    (work / "lm" / "report.html").write_text("old")
    before = sorted(work.rglob("*"))

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(InputError, match=r"work/summary.json: No space left.*$"):
        page.write_experiment_report(work)
    with pytest.raises(InputError, match=r"lm/report.html: No space left.*$"):
        run_page.write_run_report(work / "lm")
    assert (work / "summary.json").read_text() == "old"
    assert (work / "lm" / "report.html").read_text() == "old"
    assert sorted(work.rglob("*")) == before


def test_a_run_whose_loss_was_not_finite_is_counted_and_told(work: Path) -> None:
    """As `tljax` leaves it: predictions that know nothing, and a last record."""
    run = work / "runs" / "transfer-n50-s1"
    stop = {"step": 3, "of_steps": 41, "reason": "not finite"}
    last = {"final": True, "step": 3, "params_sha256": None, "stopped": stop}
    (run / "metrics.jsonl").write_text(json.dumps(last) + "\n")
    path = run / "predictions" / "test.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        classes = row["probabilities"]
        row |= {
            "prediction": min(classes),
            "probabilities": dict.fromkeys(classes, 0.5),
        }
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = page.write_experiment_report(work)
    assert summary["lost_runs"] == ["transfer-n50-s1"]
    assert summary["arms"]["transfer"]["50"]["values"][1] == 0.5
    assert "1 run whose loss was not finite" in (work / "report.html").read_text()
    run_page.write_run_report(run)
    text = (run / "report.html").read_text()
    assert "ended after 3 of 41 steps: its loss or gradient was not finite" in text


def test_report_of_a_fine_tuning_run(work: Path) -> None:
    folder = work / "runs" / "transfer-n100-s0"
    numbers = run_page.write_run_report(folder)
    html = (folder / "report.html").read_text(encoding="utf-8")
    titles = ["Final metrics", "Learning curves", "Calibration", "Cost"]
    assert re.findall(r"<h2>(.*?)</h2>", html) == [*titles, "How it was run"]
    accuracy = numbers["test"]["accuracy"]
    assert accuracy["n"] == 48
    assert f"{100 * accuracy['value']:.1f}" in html


def test_report_of_a_pretraining_run(work: Path) -> None:
    numbers = run_page.write_run_report(work / "lm")
    html = (work / "lm" / "report.html").read_text(encoding="utf-8")
    assert numbers["bits_per_byte"]["value"] == 1.7
    assert "1.700 bits per byte" in html


def test_choices_are_told_with_what_they_were_chosen_from(work: Path) -> None:
    page.write_experiment_report(work)
    html = (work / "report.html").read_text(encoding="utf-8")
    assert "nothing was tuned in this run" in html
    point = {"lr_peak": 0.003, "epochs": 20.0, "layer_decay": 1.0}
    ranked = [
        point | {"validation_accuracy": 0.612, "values": [0.6, 0.624]},
        point | {"lr_peak": 0.01, "validation_accuracy": 0.6, "values": [0.6, 0.6]},
    ]
    tuning = {arm: {"100": ranked} for arm in ("scratch", "transfer")}
    (work / "tuning.json").write_text(json.dumps(tuning))
    page.write_experiment_report(work)
    html = (work / "report.html").read_text(encoding="utf-8")
    told = html.replace("\N{NO-BREAK SPACE}", " ").replace(
        "\N{NARROW NO-BREAK SPACE}", " "
    )
    assert told.count("best of 2 at n = 100: 61.2 % (next 60.0 %)") == 6  # arm x n


def test_adaptation_is_told_of_where_there_was_one(work: Path) -> None:
    before = page.write_experiment_report(work)
    assert "Adaptation" not in (work / "report.html").read_text(encoding="utf-8")
    shutil.copytree(work / "lm", work / "adapted")
    after = page.write_experiment_report(work)
    html = (work / "report.html").read_text(encoding="utf-8")
    assert "<h2>Adaptation to the task’s text</h2>" in html
    assert "Config of the adaptation" in html
    assert after["bits_per_byte"] == before["bits_per_byte"]  # of the corpus, not of it


def test_a_manifest_that_lacks_a_key_is_named(work: Path) -> None:
    path = work / "lm" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["devices"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"lm/manifest.json lacks devices;"):
        run_page.write_run_report(work / "lm")


def test_a_folder_that_is_no_run_is_refused(work: Path) -> None:
    with pytest.raises(InputError, match="kind None"):
        run_page.write_run_report(work)
