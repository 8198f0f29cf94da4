"""Overrides are read as their key's type; every key can be shown."""

import dataclasses
from collections.abc import Mapping

import pytest

from tljax.cli.keys import keys_text, kind_of, override, parse_value
from tljax.settings import InputError, setting


@dataclasses.dataclass(frozen=True)
class Oven:
    heat: float = setting("degrees", low=0.0, high=300.0)
    fan: bool = setting("moves the air")


@dataclasses.dataclass(frozen=True)
class Bread:
    kind: str = setting("what is baked", choices=("bread",))
    grams: int = setting("flour", low=1)
    minutes: tuple[float, ...] = setting("of each rise")
    oven: Oven
    ovens: Mapping[str, Mapping[str, Oven]] = setting("ovens.TOWN.NAME")


def bread() -> dict:
    oven = {"heat": 220.0, "fan": False}
    return {
        "kind": "bread",
        "grams": 500,
        "minutes": (60.0,),
        "oven": dict(oven),
        "ovens": {"bern": {"1": dict(oven)}},
    }


@pytest.mark.parametrize(
    ("key", "text", "path", "value"),
    [
        ("grams", "750", ("grams",), 750),
        ("oven.heat", "1e2", ("oven", "heat"), 100.0),
        ("oven.heat", "90", ("oven", "heat"), 90.0),
        ("oven.fan", "True", ("oven", "fan"), True),
        ("kind", "3", ("kind",), "3"),
        ("minutes", "60,90.5", ("minutes",), [60.0, 90.5]),
        ("minutes", "(60, 90)", ("minutes",), [60.0, 90.0]),
        ("minutes", "[60, 90]", ("minutes",), [60, 90]),
        ("minutes", "()", ("minutes",), []),
        ("ovens.bern.1.heat", "7", ("ovens", "bern", "1", "heat"), 7.0),
        ("ovens.bern", '{"2": {}}', ("ovens", "bern"), {"2": {}}),
    ],
)
def test_an_override_is_read_as_the_type_of_its_key(key, text, path, value):
    config, expected = bread(), bread()
    override(Bread, config, key, text)
    node, group = expected, config
    for name in path[:-1]:
        node, group = node[name], group[name]
    node[path[-1]] = value
    assert config == expected
    assert type(group[path[-1]]) is type(value)


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        ("gram", "1", "--config.gram is not a setting; did you mean 'grams'?"),
        ("oven.heap", "1", "--config.oven.heap is not a setting; did you mean 'heat'?"),
        ("oven.heat.x", "1", "config.oven.heat is not a group"),
        ("oven", "hot", "--config.oven is a group; set one of its keys: heat, fan"),
        ("grams", "1.5", "--config.grams=1.5 is not a whole number"),
        ("grams", "", "--config.grams= is not a whole number"),
        ("oven.heat", "hot", "--config.oven.heat=hot is not a number"),
        ("oven.fan", "1", "--config.oven.fan=1 is not true or false"),
        ("minutes", "60,soon", "--config.minutes=soon is not a number"),
        ("minutes", "[60", "--config.minutes=.60 is not a list or JSON"),
        ("ovens.basel.1.heat", "7", "--config.ovens.basel is not a setting"),
    ],
)
def test_an_override_that_fits_no_key_is_refused(key, text, said):
    with pytest.raises(InputError, match=said):
        override(Bread, bread(), key, text)


def test_text_is_taken_as_it_is():
    assert parse_value("1e-3", str, "--x") == "1e-3"


def test_the_kind_is_the_configs_own():
    kinds = {"bread": Bread, "oven": Oven}
    assert kind_of({"kind": "oven"}, kinds) is Oven
    assert kind_of({}, Bread) is Bread
    with pytest.raises(InputError, match="'bred'; did you mean 'bread'"):
        kind_of({"kind": "bred"}, kinds)
    with pytest.raises(InputError, match=r"config.kind is \['bread'\]; did you mean"):
        kind_of({"kind": ["bread"]}, kinds)


def test_keys_are_shown_with_type_meaning_and_bounds():
    lines = [" ".join(line.split()) for line in keys_text(Bread, None).split("\n")]
    assert lines[0] == "keys:"
    assert "config.grams (int) flour [at least 1]" in lines
    assert "config.oven.heat (float) degrees [0 to 300]" in lines
    assert "config.kind (str) what is baked [one of bread]" in lines


def test_keys_are_shown_with_their_values():
    config = bread()
    del config["oven"]["fan"]
    lines = [" ".join(line.split()) for line in keys_text(Bread, config).split("\n")]
    assert "config.oven.heat = 220.0 degrees [0 to 300]" in lines
    assert 'config.oven.fan = "(missing)" moves the air' in lines
    assert "config.minutes = [60.0] of each rise" in lines


def test_keys_that_kinds_share_are_shown_once():
    @dataclasses.dataclass(frozen=True)
    class Cake:
        kind: str = setting("what is baked", choices=("cake",))
        grams: int = setting("flour", low=1)
        sugar: int = setting("how sweet")

    shown = keys_text({"bread": Bread, "cake": Cake}, None)
    assert shown.count("config.grams (int)") == 1
    assert shown.count("config.kind (str)") == 2
    assert shown.index("'cake'") < shown.index("config.sugar") < shown.index("every")
