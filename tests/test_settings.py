"""The border: what a config may say, and one clear line for what it may not."""

import dataclasses
import functools
import json
import operator

import pytest
from ml_collections import ConfigDict

from tljax.settings import (
    FinetuneSettings,
    InputError,
    PretrainSettings,
    TaskSettings,
    describe,
    from_config,
    setting,
    suggestion,
    to_dict,
)


def changed(config: dict, key: str, value: object) -> dict:
    """The config with one dotted key set."""
    *groups, name = key.split(".")
    functools.reduce(operator.getitem, groups, config)[name] = value
    return config


@pytest.mark.parametrize(
    "wrap", [dict, ConfigDict, lambda c: json.loads(json.dumps(c))]
)
def test_settings_come_back_as_they_went_in(pretrain_config, finetune_config, wrap):
    for kind, config in (
        (PretrainSettings, pretrain_config),
        (FinetuneSettings, finetune_config),
    ):
        assert to_dict(from_config(kind, wrap(config))) == config


def test_settings_cannot_be_changed(pretrain_config):
    settings = from_config(PretrainSettings, pretrain_config)
    for group, name in ((settings, "seed"), (settings.model, "width")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(group, name, 3)


def test_a_whole_number_is_a_float_but_no_other_type_is_another(pretrain_config):
    settings = from_config(
        PretrainSettings, changed(pretrain_config, "optim.lr_peak", 1)
    )
    assert settings.optim.lr_peak == 1.0
    assert type(settings.optim.lr_peak) is float


WRONG = [
    ("optim.lr_peek", 1e-3, r"config\.optim\.lr_peek is not a setting; did you mean "
     r"'lr_peak'\?; allowed: name, lr_peak"),
    ("zzz", 1, r"config\.zzz is not a setting; allowed: kind, seed"),
    ("kind", "finetune", r"config\.kind is 'finetune'; allowed: 'pretrain'"),
    ("model.mlp", "swigl", r"'swigl'; allowed: 'swiglu', .*did you mean 'swiglu'\?"),
    ("model", 3, r"config\.model is 3; it must be a group of settings"),
    ("steps", 0, r"config\.steps is 0; it must be at least 1"),
    ("steps", 8.0, r"config\.steps is 8\.0; it must be of type int"),
    ("steps", "8", r"config\.steps is '8'; it must be of type int"),
    ("steps", True, r"config\.steps is True; it must be of type int"),
    ("steps", None, r"config\.steps is None; it must be of type int"),
    ("model.tied", 1, r"config\.model\.tied is 1; it must be of type bool"),
    ("optim.lr_peak", True, r"lr_peak is True; it must be of type float"),
    ("optim.lr_peak", -0.1, r"lr_peak is -0\.1; it must be at least 0\.0"),
    ("optim.lr_peak", float("nan"), "lr_peak is nan; it must be a finite number"),
    ("optim.lr_peak", float("inf"), "lr_peak is inf; it must be a finite number"),
    ("model.dropout", 0.95, r"dropout is 0\.95; it must be in \[0\.0, 0\.9\]"),
    ("corpus.length", 7, r"corpus\.length is 7; it must be in \[8, 1048576\]"),
    ("corpus.length", 10**12, r"it must be in \[8, 1048576\]"),
    ("steps", 2**31, r"config\.steps is 2147483648; it must be at most 2147483647"),
    ("steps", 10**99, r"config\.steps is 10{39}; it must be at most 2147483647"),
    ("model.depth", 10**9, r"it must be in \[1, 1000\]"),
    ("model", ["width"], r"config\.model is \['width'\]; it must be a group of"),
    ("seed", 2**32, r"seed is 4294967296; it must be in \[0, 4294967295\]"),
    ("seed", -1, r"seed is -1; it must be in \[0, 4294967295\]"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "said"), WRONG)
def test_what_a_setting_may_not_be(pretrain_config, key, value, said):
    with pytest.raises(InputError, match=said) as caught:
        from_config(PretrainSettings, changed(pretrain_config, key, value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["seed", "optim", "optim.batch", "record.choose"])
def test_a_missing_key_is_named_with_its_meaning(pretrain_config, key):
    *groups, name = key.split(".")
    del functools.reduce(operator.getitem, groups, pretrain_config)[name]
    meaning = {k: m for k, _, m in describe(PretrainSettings)}.get(
        f"config.{key}", "a group of settings"
    )
    with pytest.raises(InputError) as caught:
        from_config(PretrainSettings, pretrain_config)
    assert str(caught.value) == f"config.{key} is missing: {meaning}"


def test_the_best_cannot_be_chosen_without_a_look(pretrain_config):
    config = changed(pretrain_config, "record.choose", "best")
    from_config(PretrainSettings, config)
    with pytest.raises(InputError, match=r"config\.record\.choose='best' needs"):
        from_config(PretrainSettings, changed(config, "record.validations", 0))


def test_a_patience_that_no_validation_could_try_is_refused(pretrain_config):
    """Of 4 validations the first is never worse and after the last the run ends."""
    config = changed(pretrain_config, "record.validations", 9)  # of 4 rounds
    from_config(PretrainSettings, changed(config, "record.patience", 2))
    with pytest.raises(InputError, match="patience=3 never ends .* to 5 or more"):
        from_config(PretrainSettings, changed(config, "record.patience", 3))
    config = changed(config, "record.patience", 1)
    with pytest.raises(InputError, match="patience=1 never ends a run of 0 valid"):
        from_config(PretrainSettings, changed(config, "record.validations", 0))


def test_a_cooldown_that_the_schedule_does_not_read_is_refused(pretrain_config):
    config = changed(pretrain_config, "optim.schedule", "slanted")
    from_config(PretrainSettings, config)
    with pytest.raises(InputError, match=r"cooldown=0\.5 is read by .*'trapezoid'"):
        from_config(PretrainSettings, changed(config, "optim.cooldown", 0.5))


@dataclasses.dataclass(frozen=True)
class Nested:
    sizes: tuple[int, ...] = setting("some numbers", low=2)
    rates: dict[str, float] = setting("rates by name", high=1.0)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"sizes": 3, "rates": {}}, "config.sizes is 3; it must be a list"),
        (
            {"sizes": [3, 1], "rates": {}},
            r"config.sizes\[1\] is 1; it must be at least",
        ),
        ({"sizes": [3, "4"], "rates": {}}, r"config.sizes\[1\] is '4'; .* type int"),
        ({"sizes": [], "rates": {"a": 2}}, r"config.rates.a is 2.0; it must be"),
    ],
)
def test_lists_and_tables_are_checked_inside(config, said):
    with pytest.raises(InputError, match=said):
        from_config(Nested, config)


def test_lists_become_tuples():
    built = from_config(Nested, {"sizes": [3, 4], "rates": {"a": 1}})
    assert built == Nested(sizes=(3, 4), rates={"a": 1.0})


def test_every_setting_says_what_it_means(pretrain_config, finetune_config):
    def leaves(config, prefix):
        for name, value in config.items():
            key = f"{prefix}.{name}"
            yield from leaves(value, key) if isinstance(value, dict) else [key]

    for kind, config in (
        (PretrainSettings, pretrain_config),
        (FinetuneSettings, finetune_config),
    ):
        rows = describe(kind)
        given = list(leaves(config, "config"))
        assert [key for key, _, _ in rows if key in given] == given
        others = {key.rpartition(".")[0] for key, _, _ in rows if key not in given}
        assert others <= {  # may be left out
            "config.head", "config.init", "config.model", "config.optim",
            "config.record", "config.regularize", "config.seeds", "config.task",
            "config.transfer",
        }  # fmt: skip
        assert all(meaning for _, _, meaning in rows)
    assert ("config.epochs", "float", "passes over the n labelled items") in rows


def test_suggestions():
    assert suggestion("widht", ["width", "depth"]) == "; did you mean 'width'?"
    assert suggestion("banana", ["width", "depth"]) == ""


def test_a_key_at_its_default_may_be_left_out_and_is(pretrain_config):
    short = from_config(PretrainSettings, pretrain_config)
    pretrain_config["model"] |= {"windows": [], "norm": "rms", "head_width": 0}
    assert from_config(PretrainSettings, pretrain_config) == short
    assert "norm" not in to_dict(short)["model"]
    pretrain_config["model"] |= {"windows": [0, 4], "norm": "layer"}
    made = from_config(PretrainSettings, pretrain_config)
    assert to_dict(made)["model"]["windows"] == (0, 4)
    assert from_config(PretrainSettings, to_dict(made)) == made


def test_other_test_sets_are_named_by_their_uris():
    task = {
        "source": "pkg:a", "n": 0, "length": 8, "validation_items": 0,
        "score_test": True,
        "others": ["pkg:products", "csv:some/phones.csv?text=a&label=b"],
    }  # fmt: skip
    found = from_config(TaskSettings, task, "config.task")
    assert list(found.named_others) == ["products", "phones"]
    for others, said in (
        (["csv:a/x.csv?label=y", "csv:b/x.csv?label=y"], "others are named x by"),
        (["csv:test.csv?label=y"], "others are named test by"),
    ):
        with pytest.raises(InputError, match=said):
            from_config(TaskSettings, {**task, "others": others}, "config.task")
    with pytest.raises(InputError, match="others is predicted where"):
        from_config(TaskSettings, {**task, "score_test": False}, "config.task")
