"""What the main experiment refuses before it trains anything."""

import pytest

from experiments.low_shot.checks import check_stages, cut_to_data, leave_out_probe
from experiments.low_shot.run import run
from tljax.data.sources import Facts, Source
from tljax.data.splits import Example
from tljax.settings import InputError


def source_of(**labels):
    """A source with these labels in its splits; 'b' and 'g' alternate elsewhere."""
    splits = {"train": "bg" * 60, "validation": "bg", "test": "bg", **labels}
    examples = {
        split: [
            Example(f"{split}{i}", f"text {i}", label) for i, label in enumerate(ls)
        ]
        for split, ls in splits.items()
    }
    facts = Facts("title", "licence", "origin", False, "")
    return Source(uri="csv:own", facts=facts, examples=examples, notes=())


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["b", "g", None], "1 of 3 items have no label"),
        (["b", "g", ""], "empty label|has the label ''"),
        ([], "has no items"),
    ],
)
def test_items_without_a_label_are_refused_in_every_split(
    settings_of, split, labels, said
):
    with pytest.raises(InputError, match=f"csv:own, split '{split}'.*({said})"):
        cut_to_data(settings_of("quick"), source_of(**{split: labels}))


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"train": "bbb"}, "only the class 'b'"),
        ({"validation": "bgx"}, "split 'validation' has the label 'x'"),
        ({"test": "bgx"}, "split 'test' has the label 'x'"),
        ({"test": "b"}, "1 test item; intervals need at least 2"),
    ],
)
def test_labels_that_no_run_could_learn_or_score_are_refused(settings_of, labels, said):
    with pytest.raises(InputError, match=said):
        cut_to_data(settings_of("quick"), source_of(**labels))


def test_what_is_cut_and_what_is_few_is_said(settings_of, capsys):
    three = source_of(train="bgx" * 20)
    settings = cut_to_data(settings_of("quick", plan__sizes="2,50,100"), three)
    assert settings.plan.sizes == (2, 50, 60)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3
    assert said[0].endswith("sizes [2, 50, 100] are cut to [2, 50, 60]")
    assert said[1].startswith("60 training labels are few")
    assert said[2].startswith("csv:own has 3 classes: with 2 labels")


def test_enough_labels_are_taken_without_a_word(settings_of, capsys):
    settings = settings_of("quick", plan__sizes="50,100")
    assert cut_to_data(settings, source_of()).plan.sizes == (50, 100)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("preset", ["quick", "smoke", "full"])
def test_presets_pass(settings_of, preset):
    check_stages(settings_of(preset, adapt__epochs="1"))


@pytest.mark.parametrize(
    ("preset", "overrides", "said"),
    [
        ("quick", {"model__heads": "3"}, "config.pretrain: .*heads=3"),
        (
            "quick",
            {"pretrain__mesh__data": "8", "adapt__epochs": "1",
             "adapt__optim__batch": "12"},
            "config.adapt: .*batch=12",
        ),
        ("quick", {"tuned__scratch__500__epochs": "0"}, "config.tuned.scratch.500: "),
        ("full", {"tuning__epochs": '{"100": [0.0]}'}, "config.tuning: config.epochs"),
        (
            "smollm2",
            {"probe__source": "TINY", "probe__layers": "1,2"},
            "smollm2_lora.100: config.transfer.frozen_layers=12, but the model has 2",
        ),
    ],
)  # fmt: skip
def test_values_that_a_later_stage_would_refuse_are_refused_now(
    settings_of, preset, overrides, said, tiny_llama
):
    overrides = {
        key: value.replace("TINY", f"hf:{tiny_llama}")
        for key, value in overrides.items()
    }
    with pytest.raises(InputError, match=said):
        check_stages(settings_of(preset, **overrides))


@pytest.mark.parametrize(
    ("columns", "overrides", "said"),
    [
        ("text=review", {}, "have no label"),
        ("text=review&label=y", {"tuned__transfer__100__epochs": "0"}, "epochs is 0"),
    ],
)
def test_a_refusal_leaves_no_folder(settings_of, tmp_path, columns, overrides, said):
    path = tmp_path / "reviews.csv"
    rows = [f"film {i},{'bg'[i % 2]}" for i in range(20)]
    path.write_text("\n".join(["review,y", *rows]))
    settings = settings_of("quick", task__source=f"csv:{path}?{columns}", **overrides)
    with pytest.raises(InputError, match=said):
        run(settings, tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_claims_all_about_a_model_that_cannot_be_had_are_refused(settings_of, tmp_path):
    settings = settings_of("smollm2", probe__source="hf:./gone")
    with pytest.raises(InputError, match="claims are all about hf:./gone"):
        leave_out_probe(settings, tmp_path)


def test_a_folder_of_another_kind_is_no_traceback(settings_of, tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"kind": "finetune"}')
    settings = settings_of("quick", plan__claims="()")
    assert leave_out_probe(settings, tmp_path).probe.source == ""
    assert "began without it" in capsys.readouterr().out
