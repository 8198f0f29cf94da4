"""The plan of the main experiment: what it compares, cuts and refuses."""

import dataclasses
import json

import numpy as np
import pytest

from experiments.low_shot.baseline import run_baseline
from experiments.low_shot.settings import (
    Choice,
    LowShotSettings,
    plan_for,
)
from experiments.low_shot.stages import finetune_settings, nearest, tuning_grids
from experiments.stages import adapt_settings, pretrain_settings
from tljax.data.labelled import LabelledSet, nested_subset
from tljax.report.records import load_predictions
from tljax.settings import InputError, from_config, to_dict

PRESETS = ("quick", "smollm2", "smoke", "full")
CHOICE = {"lr_peak": 0.1, "epochs": 1.0, "layer_decay": 1.0}


@pytest.mark.parametrize("preset", PRESETS)
def test_settings_survive_the_way_through_config_json(settings_of, preset):
    settings = settings_of(preset)
    assert from_config(LowShotSettings, to_dict(settings)) == settings


def test_unknown_preset_is_refused_with_the_nearest(settings_of):
    with pytest.raises(InputError, match="did you mean 'quick'"):
        settings_of("quik")


def test_arms_differ_in_first_weights_and_choice_alone(settings_of):
    settings = settings_of("quick")
    made = {
        arm: to_dict(
            finetune_settings(
                settings, arm=arm, n=50, seed=3, choice=choice, lm="lm", tuning=False
            )
        )
        for arm, choice in {
            "scratch": Choice(0.1, 2.0, 1.0),
            "transfer": Choice(0.2, 3.0, 0.5),
        }.items()
    }
    assert made["scratch"].pop("init") == {"source": ""}
    assert made["transfer"].pop("init") == {"source": "lm"}
    for config in made.values():
        for key in ("lr_peak", "layer_decay"):
            del config["optim"][key]
        del config["epochs"]
    assert made["scratch"] == made["transfer"]


def test_tuning_never_scores_the_test_split(settings_of):
    settings = settings_of("quick")
    common = {
        "arm": "scratch",
        "n": 50,
        "seed": 0,
        "choice": Choice(0.1, 1.0, 1.0),
        "lm": "lm",
    }
    tuned = finetune_settings(settings, **common, tuning=True)
    counted = finetune_settings(settings, **common, tuning=False)
    assert (tuned.task.score_test, counted.task.score_test) == (False, True)
    assert (tuned.record.validations, counted.record.validations) == (0, 4)


def test_pretraining_takes_the_experiments_model_and_text(settings_of):
    settings = settings_of("quick")
    made = pretrain_settings(settings)
    assert made.model == settings.model
    assert made.corpus == settings.corpus
    assert made.steps == settings.pretrain.steps


def test_adaptation_goes_on_from_the_language_model_on_the_tasks_training_text(
    settings_of,
):
    settings = settings_of("quick", adapt__epochs="2.5")
    made = adapt_settings(settings, lm="lm", tokens=100_000)
    assert made.init.source == made.tokenizer.source == "lm"
    assert made.corpus.source == settings.task.source
    assert made.corpus.heldout_split == "validation"
    assert made.optim == settings.adapt.optim
    assert made.steps == round(2.5 * 100_000 / (32 * 128))


def test_nearest_size_is_nearest_on_a_log_scale():
    choices = {"50": Choice(1.0, 1.0, 1.0), "500": Choice(2.0, 1.0, 1.0)}
    assert nearest(choices, 100).lr_peak == 1.0
    assert nearest(choices, 200).lr_peak == 2.0  # 200 / 50 = 4, 500 / 200 = 2.5


def test_every_size_has_its_own_grid_and_few_labels_cut_it_to_the_smallest_that_fits(
    settings_of,
):
    settings = settings_of("full")
    grids = tuning_grids(settings)
    assert {n: len(grid) for n, grid in grids.items()} == {100: 4, 500: 4, 2000: 4}
    assert {choice.epochs for choice in grids[500]} == {5.0}
    plan = plan_for(settings.plan, 300, settings.arms)
    few = tuning_grids(dataclasses.replace(settings, plan=plan))
    assert {n: grid[0].epochs for n, grid in few.items()} == {100: 10.0, 300: 5.0}


@pytest.mark.parametrize(
    ("preset", "key", "value", "said"),
    [
        ("full", "tuning.epochs", {"many": [5.0]}, "tuning.epochs: 'many' is no"),
        ("full", "tuning.epochs", {"0100": [5.0]}, "tuning.epochs: '0100' is no"),
        ("full", "tuning.epochs", {"100": []}, "tuning.epochs.100 is empty"),
        ("quick", "tuned.scratch", {"0100": CHOICE}, "tuned.scratch: '0100' is no"),
        ("quick", "tuned.scratch", {"1": CHOICE}, "tuned.scratch: '1' is no number"),
        ("quick", "tuned", {"transfr": {}}, "transfr is no arm; did you mean 'transf"),
        ("full", "tuned", {"scratch": {"50": CHOICE}}, "both given, but the grid"),
        ("quick", "tuned.scratch", {}, "tuned.scratch is empty and config.tuning"),
        ("smollm2", "probe.source", "", "lora.arm is 'smollm2_lora', but config.probe"),
        ("smollm2", "lora.arm", "smollm2", "lora.arm='smollm2' must be letters"),
        ("smollm2", "lora.arm", "", "smollm2_lora is no arm"),
    ],
)
def test_choices_that_nothing_could_read_are_refused(
    settings_of, preset, key, value, said
):
    with pytest.raises(InputError, match=said):
        text = value if isinstance(value, str) else json.dumps(value)
        settings_of(preset, **{key: text})


@pytest.mark.parametrize(("name", "value"), [("lr_peak", "0.1"), ("layer_decay", ".5")])
def test_a_rate_for_every_arm_at_once_is_refused(settings_of, name, value):
    with pytest.raises(InputError, match=rf"set config\.tuned\.ARM\.N\.{name}"):
        settings_of("quick", **{f"finetune__optim__{name}": value})


def test_plan_is_cut_to_what_exists_with_one_claim_a_size_and_two_of_the_probe(
    settings_of,
):
    settings = settings_of("quick", probe__source="pkg:smollm2-135m")
    plan = plan_for(settings.plan, 300, settings.arms)
    assert plan.sizes == (50, 100, 300)
    told = [(claim.arm, claim.against, claim.n) for claim in plan.claims]
    ours = [("transfer", "scratch", n) for n in (50, 100, 300)]
    others = [("smollm2", "scratch", 100), ("smollm2", "tfidf", 100)]
    assert told == ours + others
    # what config.json brings back
    assert plan_for(plan, 300, settings.arms) == plan
    without = ("scratch", "transfer", "tfidf")
    assert len(plan_for(settings.plan, 300, without).claims) == 3
    with pytest.raises(InputError, match="the arm 'smollm2'.*the arms are scratch, t"):
        plan_for(plan, 300, without)


def test_claim_about_a_size_that_was_cut_away_is_refused(settings_of):
    settings = settings_of("quick")
    plan = plan_for(settings.plan, 5000, settings.arms)
    with pytest.raises(InputError, match="n = 500; the sizes are 50, 100, 300"):
        plan_for(plan, 300, settings.arms)


def test_plan_that_cannot_pass_names_the_seeds_needed(settings_of):
    with pytest.raises(InputError, match="seeds to 7"):
        settings_of("quick", plan__seeds="6", probe__source="")
    with pytest.raises(InputError, match="seeds to 8"):
        settings_of("quick", plan__seeds="6", probe__source="hf:some")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("arm", "tfidf", "arm='tfidf' must be letters"),
        ("arm", "a-b", "arm='a-b' must be letters"),
        ("layers", "", "must name some"),
        ("poolings", "men", "has 'men'; did you mean 'mean'"),
    ],
)
def test_a_probe_that_could_not_be_made_is_refused(settings_of, key, value, said):
    with pytest.raises(InputError, match=said):
        settings_of("quick", probe__source="hf:some", **{f"probe__{key}": value})


def test_grid_without_epochs_is_refused(settings_of):
    with pytest.raises(InputError, match="give epochs and layer_decays"):
        settings_of("quick", tuning__rates="1e-3")


def labelled(rows, classes):
    ids, texts, labels = zip(*rows, strict=True)
    return LabelledSet(
        ids=ids,
        tokens=(),
        labels=np.array([classes.index(one) for one in labels], np.int32),
        classes=classes,
        texts=texts,
    )


def test_baseline_learns_a_word_that_tells_and_is_not_run_twice(tmp_path):
    words = {"negative": "dull", "positive": "fine"}
    rows = [
        (f"{split}{i}", f"{words[label]} film {i}", label)
        for split in "ab"
        for i, label in enumerate(["negative", "positive"] * 10)
    ]
    train, test = (labelled(part, tuple(words)) for part in (rows[:20], rows[20:]))
    folder = tmp_path / "tfidf-n8-s0"
    run_baseline(train, test, n=8, seed=0, folder=folder)
    assert load_predictions(folder, "test").correct_I.mean() == 1.0
    path = folder / "predictions" / "test.jsonl"
    path.write_text("kept")
    run_baseline(train, test, n=8, seed=0, folder=folder)
    assert path.read_text() == "kept"


@pytest.mark.parametrize("n", [1, 2])
def test_baseline_gives_classes_that_its_subset_lacks_no_probability(tmp_path, n):
    classes = ("bad", "fair", "good")
    rows = [(f"{i}", f"a {classes[i % 3]} film {i}", classes[i % 3]) for i in range(9)]
    data = labelled(rows, classes)
    run_baseline(data, data, n=n, seed=0, folder=tmp_path)
    chosen = np.unique(data.labels[nested_subset(data.labels, n, 0, classes)])
    found = load_predictions(tmp_path, "test").probabilities_IC
    assert found.shape == (9, 3)
    assert np.flatnonzero(found.sum(0)).tolist() == chosen.tolist()
    np.testing.assert_allclose(found.sum(1), 1.0, atol=1e-5)  # written with 6 digits
