"""Members of a fine-tuning population: what they may differ in, what they share."""

import dataclasses
import pathlib

import numpy as np
import pytest

from tljax.cli import finetune
from tljax.cli.crew import Crew, Member
from tljax.cli.models import load_params_of, source_settings
from tljax.settings import (
    FinetuneSettings,
    InitSettings,
    InputError,
    TransferSettings,
    from_config,
)
from tljax.transfer.transplant import flat


@pytest.fixture
def member(finetune_config, tmp_path):
    """A run on twenty items of two classes."""
    (tmp_path / "run").mkdir()
    rows = [f"some words of number {i},{'ny'[i % 2]}" for i in range(20)]
    (tmp_path / "items.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    finetune_config["task"]["source"] = (
        f"csv:{tmp_path}/items.csv?text=text&label=label"
    )
    settings = from_config(FinetuneSettings, finetune_config)
    return Member(settings, tmp_path / "run")


def changed(member, **settings):
    return dataclasses.replace(
        member, settings=dataclasses.replace(member.settings, **settings)
    )


def test_runs_of_one_name_but_another_config_share_no_checkpoint(member):
    elsewhere = dataclasses.replace(member, folder=pathlib.Path("other") / "run")
    assert finetune.identity([member]) == finetune.identity([elsewhere])
    names = {
        finetune.identity([one])
        for one in (member, changed(member, seed=1), changed(member, epochs=1.0))
    }
    assert len(names) == 3


def test_less_than_one_item_is_no_training(member):
    assert Crew([member]).plans[member.folder].steps > 0
    with pytest.raises(InputError, match=r"epochs=0\.01 of 14 items .* at least 0\.07"):
        Crew([changed(member, epochs=0.01)])
    with pytest.raises(InputError, match=r"config\.epochs is 0"):
        finetune.check(changed(member, epochs=0.0).settings)


def test_members_differ_in_their_own_keys_only(member):
    finetune._check_shared([member, changed(member, seed=1, epochs=1.0)])
    optim = dataclasses.replace(member.settings.optim, batch=3)
    with pytest.raises(ValueError, match="differs in more than"):
        finetune._check_shared([member, changed(member, optim=optim)])


def test_layers_above_frozen_ones_begin_as_the_source_s(member, tiny_llama, tmp_path):
    source = f"hf:{tiny_llama}"
    theirs = load_params_of(source)
    transfer = TransferSettings(frozen_layers=1)
    tokenizer = dataclasses.replace(member.settings.tokenizer, source="")
    for one in (transfer, TransferSettings()):
        crew = Crew(
            [
                changed(
                    member,
                    init=InitSettings(source),
                    model=source_settings(source),
                    tokenizer=tokenizer,
                    transfer=one,
                )
            ]
        )
        moving = flat(crew.first_params(crew.settings))
        for path, leaf in flat(theirs).items():
            if path in moving:
                np.testing.assert_array_equal(moving[path], leaf)
        assert "layers/1/mlp/up/kernel" in moving
        assert ("layers/0/mlp/up/kernel" in moving) == (one != transfer)


@pytest.mark.parametrize(
    ("length", "pooling", "said"),
    [(32, "mean", "=32 leaves no token of config.task.length=32"), (4, "cls", "cls")],
)
def test_a_prompt_must_leave_room_and_a_state_of_the_text(
    member, length, pooling, said
):
    settings = changed(
        member,
        init=InitSettings("lm"),
        transfer=TransferSettings(method="prompt", prompt_length=length),
        head=dataclasses.replace(member.settings.head, pooling=pooling),
    ).settings
    with pytest.raises(InputError, match=said):
        finetune.check(settings)


def test_plans_are_padded_to_the_longest(member):
    short = dataclasses.replace(changed(member, epochs=1.0), folder=pathlib.Path("b"))
    crew = Crew([member, short])
    plans = [crew.plans[one.folder] for one in (member, short)]
    long, padded = map(crew.padded_plan, plans)
    steps = plans[1].steps
    assert steps < plans[0].steps == len(long["gather_TBL"])
    assert {name: rows.shape for name, rows in padded.items()} == {
        name: rows.shape for name, rows in long.items()
    }
    assert (padded["gather_TBL"][steps:] == -1).all()
    assert not padded["weights_TBM"][steps:].any()
    assert padded["weights_TBM"][:steps].sum() == 14


@pytest.mark.parametrize(
    ("depth", "source", "told"), [(30, "lm", True), (2, "lm", False), (30, "", False)]
)
def test_layers_that_as_good_as_stand_still_are_told_of(
    member, capsys, depth, source, told
):
    settings = member.settings
    deep = dataclasses.replace(
        settings,
        init=dataclasses.replace(settings.init, source=source),
        model=dataclasses.replace(settings.model, depth=depth),
        optim=dataclasses.replace(settings.optim, layer_decay=0.3),
    )
    finetune._tell_of_layer_decay([dataclasses.replace(member, settings=deep)])
    said = capsys.readouterr().out
    assert ("leaves the lowest of 30 layers 2e-16 of" in said) == told
    assert bool(said) == told
