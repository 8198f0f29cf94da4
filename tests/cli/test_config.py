"""--config= takes FILE.py, FILE.py:PRESET or a config.json; both cross one border."""

import json
import pathlib

import pytest

from tljax.cli.config import Command, load_config, parse_command
from tljax.settings import (
    SETTINGS_OF_KIND,
    HeadSettings,
    InitSettings,
    InputError,
    RecordSettings,
    from_config,
)

ROOT = pathlib.Path(__file__).parents[2]
PYTHON = """
from ml_collections import ConfigDict

def get_config(preset="plain"):
    return ConfigDict({"source": f"runs/{preset}"})
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "start.py"
    path.write_text(PYTHON)
    return path


def parse(*argv, flags=()):
    return parse_command(
        argv, kinds=InitSettings, program="bake", description="Bakes.", flags=flags
    )


def test_a_file_with_and_without_a_preset(file):
    assert load_config(f"{file}", {}, kinds=InitSettings) == {"source": "runs/plain"}
    assert load_config(f"{file}:warm", {}, kinds=InitSettings) == {
        "source": "runs/warm"
    }


def test_a_run_folder_and_its_config_json_are_the_same(tmp_path):
    (tmp_path / "config.json").write_text('{"source": "runs/a"}')
    for argument in (f"{tmp_path}", f"{tmp_path / 'config.json'}"):
        assert load_config(argument, {}, kinds=InitSettings) == {"source": "runs/a"}


def test_a_command_is_settings_a_folder_and_the_commands_own_flags(file):
    from tljax.cli.command import Flag

    assert parse(
        f"--config={file}",
        "--config.source=runs/b",
        "--workdir=w",
        "--only=report",
        flags=[Flag("only", "PHASE", "one phase"), Flag("dry", "", "no run")],
    ) == Command(
        InitSettings("runs/b"), pathlib.Path("w"), {"only": "report"}, ("source",)
    )


def test_a_home_that_is_nobody_s_is_a_plain_name(file):
    where = "~nobody_here/w"
    assert parse(f"--config={file}", f"--workdir={where}").workdir == pathlib.Path(
        where
    )
    with pytest.raises(InputError, match="~nobody_here/a.py does not exist"):
        load_config("~nobody_here/a.py", {}, kinds=InitSettings)


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("strat.py", "does not exist; did you mean 'start.py'"),
        ("start.txt", "must end in .py or .json"),
        ("list.json", "is not a JSON object"),
        ("broken.json", "is not JSON"),
        ("broken.py", "cannot be run: SyntaxError"),
        ("raises.py", "cannot be run: KeyError: 'flour'"),
        ("empty.py", "no function get_config"),
        ("number.py", "cannot be run: TypeError"),
    ],
)
def test_a_config_that_cannot_be_read_is_refused(argument, said, file, tmp_path):
    for name, text in {
        "start.txt": "",
        "list.json": "[]",
        "broken.json": "{",
        "broken.py": "def get_config(",
        "raises.py": "def get_config():\n    return {}['flour']",
        "empty.py": "",
        "number.py": "def get_config():\n    return 3",
    }.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=said):
        load_config(str(tmp_path / argument), {}, kinds=InitSettings)


def test_an_edit_within_the_same_second_is_seen(file):
    """Same size, same second: Python's own cache of compiled files would miss it."""
    assert load_config(str(file), {}, kinds=InitSettings)["source"] == "runs/plain"
    file.write_text(PYTHON.replace("plain", "grain"))
    assert load_config(str(file), {}, kinds=InitSettings)["source"] == "runs/grain"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "bake needs --config=FILE.py"),
        (["--config={file}"], "bake needs --workdir=DIR"),
        (["--workdir=w"], "bake needs --config="),
        (["--config={file}", "--workdir=w", "runs/c"], "takes no 'runs/c'"),
        (["--config={file}", "--workdir=w", "--only=a"], "no flag --only"),
    ],
)
def test_a_command_that_lacks_something_is_refused(argv, said, file):
    with pytest.raises(InputError, match=said):
        parse(*[word.format(file=file) for word in argv])


def test_values_of_the_file_are_checked_even_where_they_are_only_shown(tmp_path):
    path = tmp_path / "c.py"
    path.write_text("def get_config():\n    return {'pooling': 'sum'}")
    for last in ("--workdir=w", "--print_config"):
        with pytest.raises(InputError, match="config.pooling is 'sum'; allowed"):
            parse_command(
                [f"--config={path}", last],
                kinds=HeadSettings,
                program="bake",
                description="",
            )


def test_a_key_that_is_missing_in_the_file_is_said_with_its_meaning(tmp_path):
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"rounds": 2}))
    with pytest.raises(InputError, match="config.validations is missing: validations"):
        parse_command(
            [f"--config={path}", "--workdir=w"],
            kinds=RecordSettings,
            program="bake",
            description="",
        )


def presets(name: str) -> list[str]:
    text = (ROOT / "configs" / name).read_text()
    names = {"__file__": name}
    exec(compile(text, name, "exec"), names)
    return list(names["_PRESETS"])


@pytest.mark.parametrize("name", ["pretrain.py", "finetune.py"])
def test_every_preset_of_the_shipped_configs_passes_the_border(name):
    path = ROOT / "configs" / name
    assert presets(name)[0] == "default"
    for preset in presets(name):
        config = load_config(f"{path}:{preset}", {}, kinds=SETTINGS_OF_KIND)
        settings = from_config(SETTINGS_OF_KIND[config["kind"]], config)
        assert settings.kind == path.stem
    with pytest.raises(InputError, match="no preset 'tinny'; did you mean 'tiny'"):
        load_config(f"{path}:tinny", {}, kinds=SETTINGS_OF_KIND)


def test_the_two_shipped_configs_have_one_model_and_tokenizer_a_preset():
    assert set(presets("pretrain.py")) < set(presets("finetune.py"))
    for preset in presets("pretrain.py"):
        first, second = (
            load_config(
                str(ROOT / "configs" / f"{name}.py:{preset}"),
                {},
                kinds=SETTINGS_OF_KIND,
            )
            for name in ("pretrain", "finetune")
        )
        assert first["model"] == second["model"]
        assert first["tokenizer"] == second["tokenizer"]
