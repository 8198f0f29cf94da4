"""What members may differ in, and which of them train together."""

import dataclasses
import pathlib

import pytest

from tljax.cli import members as population
from tljax.cli.members import Division, Member, check_shared
from tljax.settings import FinetuneSettings, InputError, from_config


@pytest.fixture
def changed(finetune_config, tmp_path):
    """changed(name, group={key: value}) -> a member of that name that differs so."""
    settings = from_config(FinetuneSettings, finetune_config)

    def build(name, **groups):
        new = {
            key: dataclasses.replace(getattr(settings, key), **value)
            if isinstance(value, dict)
            else value
            for key, value in groups.items()
        }
        return Member(dataclasses.replace(settings, **new), tmp_path / name)

    return build


def test_runs_of_one_name_but_another_config_share_no_checkpoint(changed):
    one = changed("run")
    elsewhere = dataclasses.replace(one, folder=pathlib.Path("other") / "run")
    assert population.identity([one]) == population.identity([elsewhere])
    others = one, changed("run", seed=1), changed("run", epochs=1.0)
    assert len({population.identity([each]) for each in others}) == 3


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"seed": 1, "epochs": 1.0, "task": {"n": 7}}),
        ({}, {"optim": {"lr_peak": 0.1, "weight_decay": 0.1, "lora_plus": 4.0}}),
        ({"regularize": {"mixout": 0.1}}, {"regularize": {"mixout": 0.5, "wise": 0.3}}),
        ({}, {"regularize": {"wise": 0.3}}),
        ({"model": {"dropout": 0.1}}, {"model": {"dropout": 0.2}}),
        (
            {"transfer": {"method": "lora", "dropout": 0.1}},
            {"transfer": {"method": "lora", "dropout": 0.2, "alpha": 4.0}},
        ),
    ],
)
def test_members_differ_in_their_own_keys(changed, first, second):
    check_shared([changed("a", **first), changed("b", **second)])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"optim": {"batch": 3}}, r"optim\.batch is 8 in a, 3 in b.*the same in all"),
        ({"model": {"width": 8}}, r"model\.width is 16 in a, 8 in b.*the same in all"),
        ({"transfer": {"method": "lora"}}, r"transfer\.method is 'full' in a, 'lora'"),
        ({"regularize": {"mixout": 0.1}}, r"mixout is 0\.0 in a, 0\.1 in b.*0 in all"),
        ({"model": {"dropout": 0.1}}, r"dropout is 0\.0 in a, 0\.1 in b.*0 in all"),
    ],
)
def test_what_they_may_not_differ_in_is_named_with_both_values(changed, change, said):
    members = [changed("a"), changed("same", seed=9), changed("b", **change)]
    with pytest.raises(InputError, match=r"^config\.\w*\.?" + said):
        check_shared(members)


def test_a_division_is_kept_until_all_have_ended(changed, tmp_path):
    members, folder = [changed(name) for name in "abcde"], tmp_path / "populations"
    assert population.read_division(folder, members) is None
    division = Division("vmap", 2)
    population.write_division(folder, members, division)
    assert population.read_division(folder, members) == division
    assert population.read_division(folder, members[:4]) is None
    groups = division.groups(members)
    assert [[one.folder.name for one in group] for group in groups] == [
        ["a", "b"], ["c", "d"], ["e"],
    ]  # fmt: skip
    for group in groups:
        (folder / population.identity(group)).mkdir()
    (folder / "another").mkdir()
    population.forget_checkpoints(folder, groups[0])
    assert len(list(folder.iterdir())) == 4
    population.forget_population(folder, members, division)
    assert [path.name for path in folder.iterdir()] == ["another"]
