"""The main experiment from end to end, in small: every stage once, all its files."""

import json
import pathlib

from experiments.low_shot.run import run

WORDS = {"good": ("lovely", "warm"), "bad": ("dreary", "cold")}


def reviews(folder: pathlib.Path) -> tuple[str, str]:
    """URIs of 60 short texts, without and with their two labels."""
    rows = [
        (f"a {WORDS[label][i % 2]} film, number {i}", label)
        for i in range(30)
        for label in WORDS
    ]
    text, table = folder / "reviews.txt", folder / "reviews.csv"
    text.write_text("\n\n".join(review for review, _ in rows))
    lines = [f'"{review}",{label}' for review, label in rows]
    table.write_text("\n".join(["review,label", *lines]))
    return f"text:{text}", f"csv:{table}?text=review&label=label"


def tiny(settings_of, folder: pathlib.Path):
    """Two steps of everything; tuned here, on a grid of one point."""
    corpus, task = reviews(folder)
    stages = {
        f"{stage}__{key}": value
        for stage in ("pretrain", "adapt", "finetune")
        for key, value in {
            "optim__name": "adamw",  # Muon compiles twice as long
            "optim__batch": "8",
            "record__rounds": "1",
            "record__validations": "1",
        }.items()
    }
    return settings_of(
        "smoke",
        corpus__source=corpus,
        corpus__length="16",
        tokenizer__vocab_size="300",
        model__width="16",
        model__depth="1",
        model__mlp_width="16",
        model__dtype="float32",
        pretrain__steps="2",
        adapt__epochs="0.1",  # rounds to one step
        task__source=task,
        task__length="16",
        plan__sizes="8",
        plan__seeds="7",  # the fewest with which one claim could pass
        tuning__rates="0.01",
        tuning__layer_decays="1.0",
        tuning__epochs='{"8": [2.0]}',
        tuning__seeds="1",
        tuned="{}",
        **stages,
    )


def modified(folder: pathlib.Path) -> dict[pathlib.Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_every_stage_leaves_its_files_and_a_second_call_changes_none(
    tmp_path, settings_of, monkeypatch
):
    settings = tiny(settings_of, tmp_path)
    monkeypatch.chdir(tmp_path)
    summary = run(settings, pathlib.Path("work"))

    work = tmp_path / "work"
    assert set(summary["arms"]) == {"scratch", "transfer", "tfidf"}
    assert [claim["n"] for claim in summary["claims"]] == [8]
    assert summary["test_items"] == 12
    assert json.loads((work / "summary.json").read_text()) == summary
    assert f"--workdir={work}" in (work / "report.html").read_text()
    tuning = json.loads((work / "tuning.json").read_text())
    assert {arm: len(sizes["8"]) for arm, sizes in tuning.items()} == {
        "scratch": 1,
        "transfer": 1,
    }
    adaptation = json.loads((work / "adapted" / "config.json").read_text())
    assert adaptation["init"]["source"] == str(work / "lm")
    assert adaptation["steps"] == 1
    for seed in range(7):
        for arm, source in {"scratch": "", "transfer": str(work / "adapted")}.items():
            folder = work / "runs" / f"{arm}-n8-s{seed}"
            config = json.loads((folder / "config.json").read_text())
            assert config["init"]["source"] == source

    before = modified(work)
    monkeypatch.chdir("/")  # the same folder by another name
    assert run(settings, work) == summary
    assert modified(work) == before

    (work / "summary.json").unlink()
    assert run(settings, work)["arms"] == summary["arms"]
    assert (work / "summary.json").exists()
