"""Members of a fine-tuning population: what they may differ in, what they share."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from tljax.cli import finetune
from tljax.cli.crew import Crew, Member
from tljax.cli.main import main
from tljax.cli.models import load_params_of, source_settings
from tljax.settings import (
    FinetuneSettings,
    InitSettings,
    InputError,
    RegularizeSettings,
    TransferSettings,
    from_config,
)
from tljax.train.record import read_metrics
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


def test_members_differ_in_how_strong_a_regulariser_is_but_not_in_whether(member):
    weak, strong, shrunk = (
        changed(member, regularize=RegularizeSettings(**on))
        for on in ({"mixout": 0.1}, {"mixout": 0.5, "wise": 0.3}, {"wise": 0.3})
    )
    dropped = [
        changed(member, model=dataclasses.replace(member.settings.model, dropout=p))
        for p in (0.1, 0.2)
    ]
    for pair in ([weak, strong], [member, shrunk], dropped):
        finetune._check_shared(pair)
    for other in (weak, strong, dropped[0]):
        with pytest.raises(ValueError, match="differs in more than"):
            finetune._check_shared([member, other])


@pytest.mark.parametrize(
    ("on", "changes", "said"),
    [
        ({"l2_start": 0.1}, {"init": InitSettings("")}, "l2_start=0.1: .*source is em"),
        ({"wise": 0.5}, {"transfer": TransferSettings("lora")}, "'lora' the weights"),
        ({"mixout": 0.5}, {"transfer": TransferSettings("head")}, "'head' the weights"),
        ({"mixout": 0.5}, {"transfer": TransferSettings("full", 2)}, "every layer is"),
        ({"rdrop": 1.0}, {}, "rdrop=1.0: both passes would be one"),
        ({"neftune": 5.0}, {"transfer": TransferSettings("full", 1)}, "tokens' place"),
        (
            {"lm_weight": 0.5},
            {"transfer": TransferSettings("full", 1)},
            "tokens' place",
        ),
        ({"replay": 1.0}, {"transfer": TransferSettings("head")}, "tokens' place"),
        ({"lm_weight": 0.5}, {"model": {"causal": False}}, "sees the next word"),
        ({"replay": 1.0}, {"model": {"tied": False}}, "keeps no output"),
    ],
)
def test_a_regulariser_that_nothing_would_read_is_refused(member, on, changes, said):
    settings = changed(member, init=InitSettings("lm")).settings
    if "model" in changes:
        changes = {"model": dataclasses.replace(settings.model, **changes["model"])}
    settings = dataclasses.replace(settings, **changes)
    finetune.check(settings)
    on = RegularizeSettings(**on)
    with pytest.raises(InputError, match=r"^config\.regularize\..*" + said):
        finetune.check(dataclasses.replace(settings, regularize=on))


def test_a_regularised_member_ends_as_the_lone_run(
    finetune_arguments, language_run, reviews, tmp_path
):
    text = f"replay_source=csv:{reviews}?text=review"
    on = ("ema=0.5", "wise=0.5", "l2_start=0.1", "mixout=0.2", "ewc=0.1", text)
    arguments = [*finetune_arguments, *(f"--config.regularize.{one}" for one in on)]
    start = f"--config.init.source={language_run}"
    assert main(["train", *arguments, start, f"--workdir={tmp_path / 'lone'}"]) == 0
    config = json.loads((tmp_path / "lone" / "config.json").read_text())
    lone = Member(from_config(FinetuneSettings, config), tmp_path / "b")
    others = {"ema": 0.9, "wise": 1.0, "l2_start": 1.0, "mixout": 0.4, "ewc": 1.0}
    on = dataclasses.replace(lone.settings.regularize, **others)
    other = changed(lone, regularize=on)
    members = [dataclasses.replace(other, folder=tmp_path / "a"), lone]
    finetune.finetune(members, populations=tmp_path / "populations")
    last = [
        read_metrics(tmp_path / name)[-1]["params_sha256"]
        for name in ("a", "b", "lone")
    ]
    assert last[1] == last[2] != last[0]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"wise": 0}, r"wise is 0"),
        ({"replay": 0.5}, r"replay=0\.5 needs config\.regularize\.replay_source"),
        ({"ewc": 2}, r"ewc=2\.0 needs config\.regularize\.replay_source"),
        ({"replay_every": 2}, r"replay_every=2 is read where .*replay is above 0"),
        ({"replay_source": "a"}, r"replay_source='a' is read where .*ewc is above"),
    ],
)
def test_half_a_setting_is_refused(config, said):
    with pytest.raises(InputError, match=r"^config\.regularize\." + said):
        from_config(RegularizeSettings, config, "config.regularize")


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
