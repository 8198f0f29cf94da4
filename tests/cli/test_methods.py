"""`tljax methods` and docs/methods.md tell what the table of methods says."""

import pathlib
import shlex

import pytest

from tljax.cli.keys import override
from tljax.cli.main import main
from tljax.cli.methods import markdown_tables
from tljax.settings import (
    FinetuneSettings,
    PretrainSettings,
    TransferSettings,
    from_config,
)
from tljax.transfer.beside import BESIDE
from tljax.transfer.method import METHODS

DOCS = pathlib.Path(__file__).parents[2] / "docs" / "methods.md"


@pytest.mark.parametrize("table", markdown_tables(), ids=["methods", "beside"])
def test_the_documentation_is_the_table(table):
    assert table in DOCS.read_text("utf-8")


def test_list_names_every_method(capsys):
    assert main(["methods", "list"]) == 0
    shown = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in shown if line[:2] == "  " != line[2:4]]
    assert names == [*METHODS, *BESIDE]


@pytest.mark.parametrize("name", BESIDE)
def test_show_tells_a_key_that_is_there(name, capsys):
    """With a value that it takes, other than the one that is off."""
    one = BESIDE[name]
    assert main(["methods", "show", name]) == 0
    assert one.key in capsys.readouterr().out
    key, _, value = one.key.partition("=")
    if value:
        kind = PretrainSettings if key.startswith("corpus.") else FinetuneSettings
        override(kind, config := {}, key, value)
        group, _, name = key.partition(".")
        assert config[group][name] is not None


@pytest.mark.parametrize("name", METHODS)
def test_show_tells_keys_and_a_command_that_is_no_error(name, capsys):
    assert main(["methods", "show", name]) == 0
    shown = capsys.readouterr().out
    fields = TransferSettings.__dataclass_fields__
    for key in METHODS[name].keys:
        assert f"config.transfer.{key} = " in shown
        assert fields[key].metadata["help"][:20] in shown
    command = shlex.split(shown.partition("for example:")[2])
    config = {}
    for word in command:
        key, _, value = word.removeprefix("--config.").partition("=")
        if key.startswith("transfer."):
            override(FinetuneSettings, config, key, value)
    settings = from_config(TransferSettings, config["transfer"])
    assert settings.method == name
    read = {key for key in fields if getattr(settings, key) != fields[key].default}
    assert read - {"method"} <= set(METHODS[name].keys)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["shw"], "has no 'shw'; did you mean 'show'?"),
        (["show"], "takes one name, 0 given"),
        (["list", "lora"], "takes nothing more, 1 given"),
        (["show", "lorra"], "'lorra' is no method; did you mean 'lora'?; there are: f"),
        (["show", "mixot"], "'mixot' is no method; did you mean 'mixout'?"),
    ],
)
def test_what_methods_refuses(words, said, refused):
    assert said in refused("methods", *words)
