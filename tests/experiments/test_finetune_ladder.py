"""finetune_ladder from end to end in small, and what it refuses before it trains."""

import dataclasses
import json
import os
import pathlib

import pytest

from configs.finetune_ladder import CLAIMS
from experiments.ablation import run as phases
from experiments.ablation.claims import STATISTICS
from experiments.ablation.run import check, finetune_settings, run
from experiments.ablation.settings import AblationSettings
from tljax.cli.config import load_config
from tljax.settings import InputError, from_config, to_dict

CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "finetune_ladder.py"
PRESETS = ("smoke", "quick", "full")
WORDS = {"good": ("lovely", "warm"), "bad": ("dreary", "cold")}


def settings_of(preset: str, **overrides: str) -> AblationSettings:
    texts = {key.replace("__", "."): text for key, text in overrides.items()}
    config = load_config(f"{CONFIG}:{preset}", texts, kinds=AblationSettings)
    return from_config(AblationSettings, config)


def table(path: pathlib.Path, thing: str, labels=WORDS) -> str:
    """The URI of 60 short texts about a thing, with two labels."""
    rows = [
        f'"a {WORDS[word][i % 2]} {thing}, number {i}",{label}'
        for i in range(30)
        for word, label in zip(WORDS, labels, strict=True)
    ]
    path.write_text("\n".join(["review,label", *rows]))
    return f"csv:{path}?text=review&label=label"


def tiny(folder: pathlib.Path) -> AblationSettings:
    """Two arms of two epochs, one of them from the task's own text."""
    task = table(folder / "films.csv", "film")
    config = load_config(f"{CONFIG}:smoke", {}, kinds=AblationSettings)
    config["corpus"] |= {"source": task.replace("&label=label", ""), "length": 16}
    config["tokenizer"]["vocab_size"] = 300
    config["model"] |= {"width": 16, "depth": 1, "mlp_width": 16, "dtype": "float32"}
    short = {"rounds": 1, "validations": 1}
    for stage in ("pretrain", "adapt"):
        config[stage]["optim"] |= {"name": "adamw", "batch": 8}  # Muon compiles longer
        config[stage]["record"] |= short
    config["pretrain"]["steps"] = 2
    config["adapt"]["epochs"] = 0.1
    config["task"] |= {
        "source": task, "n": 16, "length": 16,
        "others": [table(folder / "phones.csv", "phone")],
    }  # fmt: skip
    names = ("full", "ulmfit")
    config["arms"] = {name: config["arms"][name] for name in names}
    for arm in config["arms"].values():
        arm["epochs"] = 2.0
        arm["optim"]["batch"] = 4
        arm["record"] |= {"rounds": 2, "validations": 2}
    config["tuning"]["rates"] = dict.fromkeys(names, (0.01, 0.02))
    (claim,) = (one for one in CLAIMS if one["name"] == "ULMFiT beats full")
    config["plan"] |= {"seeds": 6, "claims": [{**claim, "split": "phones"}]}
    return from_config(AblationSettings, config)


def modified(folder: pathlib.Path) -> dict[pathlib.Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_every_phase_leaves_its_files_goes_on_when_stopped_and_repeats_nothing(
    tmp_path, monkeypatch
):
    settings, work = tiny(tmp_path), tmp_path / "work"
    going = {"name": "finetune_ladder", "known": STATISTICS}
    whole = phases.finetune

    def stopped(members, *, populations, title):
        if title == "ulmfit":
            raise KeyboardInterrupt
        whole(members, populations=populations, title=title)

    monkeypatch.setattr(phases, "finetune", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(settings, work, **going)
    tuned = (work / "tuning.json").stat().st_mtime_ns
    first = work / "runs" / "full-n16-s0" / "metrics.jsonl"
    before = first.stat().st_mtime_ns
    monkeypatch.setattr(phases, "finetune", whole)
    summary = run(settings, work, **going)
    assert (work / "tuning.json").stat().st_mtime_ns == tuned
    assert first.stat().st_mtime_ns == before

    assert summary["items"] == {"test": 12, "phones": 12}
    assert json.loads((work / "summary.json").read_text()) == summary
    (claim,) = summary["claims"]
    arms = summary["arms"]
    assert claim["estimate"] == pytest.approx(
        arms["ulmfit"]["accuracy_phones"]["mean"]
        - arms["full"]["accuracy_phones"]["mean"]
    )
    assert set(arms["full"]) >= {"accuracy_test", "train_loss", "late_degradation"}
    for arm, start in {"full": "lm", "ulmfit": "adapted"}.items():
        config = json.loads((work / f"runs/{arm}-n16-s3/config.json").read_text())
        assert config["init"]["source"] == str(work / start)
        assert config["optim"]["lr_peak"] == arms[arm]["lr_peak"]
    ranked = json.loads((work / "tuning.json").read_text())["full"]["16"]
    accuracies = [row["validation_accuracy"] for row in ranked]
    assert accuracies == sorted(accuracies, reverse=True) and len(ranked) == 2
    assert arms["full"]["lr_peak"] == ranked[0]["lr_peak"]
    for folder in (work / "tuning").glob("*/trials/*"):
        found = [path.name for path in (folder / "predictions").iterdir()]
        assert found == ["validation.jsonl"]
    page = (work / "report.html").read_text()
    assert "error 6.87 full, 5.00 all together" in page
    assert f"--workdir={work}" in page

    before = modified(work)
    monkeypatch.chdir("/")
    assert run(settings, pathlib.Path(os.path.relpath(work)), **going) == summary
    assert modified(work) == before
    (work / "summary.json").unlink()  # only the report is made again
    again = run(settings, work, **going)
    assert {**again, "phases_seconds": 0} == {**summary, "phases_seconds": 0}

    lm = dataclasses.replace(settings.pretrain, source=str(work / "lm"))
    other = dataclasses.replace(settings, pretrain=lm)
    check(other, STATISTICS)
    wide = dataclasses.replace(settings.model, width=32)
    with pytest.raises(InputError, match="another model: config.model.width is 16"):
        check(dataclasses.replace(other, model=wide), STATISTICS)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_survive_config_json_and_every_arm_can_be_trained(preset, tmp_path):
    films = table(tmp_path / "films.csv", "film")
    phones = table(tmp_path / "phones.csv", "phone")
    settings = settings_of(preset, task__source=films, task__others=phones,
                           plan__claims="[]")  # fmt: skip
    assert from_config(AblationSettings, to_dict(settings)) == settings
    check(settings, STATISTICS)
    names = {claim.statistic for claim in settings_of(preset).plan.claims}
    assert names == set(STATISTICS)


def test_arms_differ_in_what_they_are_about_alone():
    settings = settings_of("quick")
    starts = {"": "", "lm": "LM", "tapt": "TAPT"}
    made = {
        arm: to_dict(finetune_settings(settings, arm, seed=0, rate=0.1, starts=starts))
        for arm in settings.arms
    }
    full = made.pop("full")
    differ = {
        arm: {f"{k}.{j}" for k, group in config.items() if group != full.get(k)
              for j in {**group, **full.get(k, {})}
              if group.get(j) != full.get(k, {}).get(j)}
        for arm, config in made.items()
    }  # fmt: skip
    slanted = {"optim.schedule", "optim.layer_decay"}
    assert differ == {
        "scratch": {"init.source"},
        "last": {"transfer.method"},
        "discr": {"optim.layer_decay"},
        "discr_stlr": slanted,
        "freez": {"optim.unfreeze"},
        "chain_thaw": {"optim.unfreeze"},
        "lp_ft": {"head.start"},
        "tapt": {"init.source"},
        "ulmfit": {"init.source", "optim.unfreeze", *slanted},
    }


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"arms__full__init__source": "ml"}, "arms.full.init.source is 'ml'; allowed"),
        ({"arms__full__optim__lr_peak": ".1"}, "lr_peak is 0.1, but .*rates chooses"),
        ({"arms__ful__epochs": "1"}, "arms.ful is not a setting; did you mean 'full'"),
        ({"tuning__rates": '{"full": [0.1]}'}, "as many rates for every arm"),
        ({"tuning__rates": '{"ful": [0.1]}'}, "ful is no arm; did you mean 'full'"),
        ({"plan__seeds": "8"}, "with 7 claims .*set plan.seeds to 9"),
        ({"adapt__epochs": "0"}, "adapt.epochs is 0.0, and an arm has"),
        ({"task__score_test": "false", "task__others": "[]"}, "score_test is False"),
        ({"task__score_test": "false"}, "others is predicted where"),
        ({"task__others": "csv:a/x.csv,csv:b/x.csv"}, "others are named x by"),
        ({"task__others": "[]"}, "items 'product_reviews'; there are test"),
    ],
)
def test_a_plan_that_nobody_could_carry_out_is_refused(overrides, said):
    with pytest.raises(InputError, match=said):
        settings_of("quick", **overrides)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"model__heads": "3"}, "config.pretrain: .*heads=3"),
        ({"arms__last__optim__unfreeze": "gradual"}, "config.arms.last: .*unfreeze"),
        (
            {"arms__full__record__validations": "1"},
            "'full degrades late, ULMFiT less' needs 2 validations .*arms.full",
        ),
        ({"pretrain__source": "nowhere"}, "nowhere"),
        ({"task__others": "TWO"}, "has the label '1', which the training split has"),
    ],
)
def test_values_that_a_later_phase_would_refuse_are_refused_now(
    overrides, said, tmp_path
):
    films = table(tmp_path / "films.csv", "film")
    phones = table(tmp_path / "product_reviews.csv", "phone")
    (tmp_path / "other").mkdir()
    numbered = table(tmp_path / "other" / "product_reviews.csv", "phone", "12")
    overrides = {k: numbered if v == "TWO" else v for k, v in overrides.items()}
    overrides = {"task__source": films, "task__others": phones, **overrides}
    with pytest.raises(InputError, match=said):
        run(settings_of("quick", **overrides), tmp_path / "work", name="x",
            known=STATISTICS)  # fmt: skip
    assert not (tmp_path / "work").exists()


def test_a_claim_about_no_known_statistic_is_refused():
    settings = settings_of("quick")
    known = {"acuracy": STATISTICS["accuracy"]}
    with pytest.raises(InputError, match="about 'accuracy'; did you mean 'acuracy'"):
        check(settings, known)
