"""The main experiment from end to end, in small: every stage once, all its files."""

import dataclasses
import json
import pathlib

import pytest

from experiments.low_shot.checks import leave_out_probe
from experiments.low_shot.run import run
from experiments.low_shot.settings import plan_for
from tljax.settings import InputError, to_dict

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


def test_other_peoples_model_gives_two_more_arms(
    tmp_path, settings_of, tiny_llama, monkeypatch, capsys
):
    settings = tiny(settings_of, tmp_path)
    probe = dataclasses.replace(
        settings.probe, source=f"hf:{tiny_llama}", arm="theirs", layers=(1, 2),
        poolings=("mean", "mean+last"), seeds=2,
    )  # fmt: skip
    adapt = dataclasses.replace(settings.adapt, epochs=0.0)
    plan = dataclasses.replace(settings.plan, seeds=8)  # five claims could pass
    transfer = dataclasses.replace(settings.lora.transfer, frozen_layers=1, rank=2)
    lora = dataclasses.replace(settings.lora, arm="moved", transfer=transfer)
    settings = dataclasses.replace(
        settings, probe=probe, lora=lora, adapt=adapt, plan=plan
    )
    work = tmp_path / "work"
    summary = run(settings, work)
    arms = {"scratch", "transfer", "tfidf", "theirs", "moved"}
    assert set(summary["arms"]) == arms
    assert {(c["arm"], c["against"]) for c in summary["claims"]} == {
        ("transfer", "scratch"), ("theirs", "scratch"), ("theirs", "tfidf"),
        ("moved", "scratch"), ("moved", "tfidf"),
    }  # fmt: skip
    assert set(json.loads((work / "tuning.json").read_text())) == {
        "scratch", "transfer", "moved"
    }  # fmt: skip
    config = json.loads((work / "runs" / "moved-n8-s3" / "config.json").read_text())
    assert config["init"]["source"] == config["tokenizer"]["source"] == probe.source
    assert (config["transfer"]["method"], config["model"]["depth"]) == ("lora", 2)
    ranked = json.loads((work / "probe_tuning.json").read_text())["8"]
    assert len(ranked) == 4 and all(len(row["values"]) == 2 for row in ranked)
    config = json.loads((work / "runs" / "theirs-n8-s3" / "config.json").read_text())
    assert (config["layer"], config["pooling"]) == (
        ranked[0]["layer"], ranked[0]["pooling"]
    )  # fmt: skip
    assert "a probe on hf:" in (work / "report.html").read_text()
    before = modified(work)
    assert run(settings, work) == summary
    assert modified(work) == before


def test_a_model_that_cannot_be_had_is_left_out_with_one_line(
    tmp_path, settings_of, tiny_llama, capsys
):
    settings = tiny(settings_of, tmp_path)
    probe = dataclasses.replace(settings.probe, source="hf:./gone", arm="theirs")
    settings = dataclasses.replace(settings, probe=probe)
    plan = plan_for(settings.plan, 36, settings.arms)
    settings = dataclasses.replace(settings, plan=plan)
    work = tmp_path / "work"
    without = leave_out_probe(settings, work)
    said = capsys.readouterr().out
    assert said.startswith(
        "the arms of hf:./gone (theirs) are left out, and with them 2 c"
    )
    assert said.count("\n") == 1 and "gone is not a folder" in said
    assert without.probe.source == "" and len(without.plan.claims) == 1
    # began without, it goes on without, though the model is there now
    work.mkdir()
    (work / "config.json").write_text(json.dumps(to_dict(without)))
    there = dataclasses.replace(probe, source=f"hf:{tiny_llama}", layers=(2,))
    later = dataclasses.replace(settings, probe=there)
    assert leave_out_probe(later, work).probe.source == ""
    assert "began without it" in capsys.readouterr().out
    # began with it, it is not silently dropped
    (work / "config.json").write_text(json.dumps(to_dict(later)))
    assert leave_out_probe(later, work) == later
    with pytest.raises(InputError, match="gone is not a folder"):
        leave_out_probe(settings, work)
    high = dataclasses.replace(there, layers=(3,))
    with pytest.raises(InputError, match="layers has 3; hf:.* has 2 layers"):
        leave_out_probe(dataclasses.replace(settings, probe=high), work)
