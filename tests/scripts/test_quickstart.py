"""Which Python the scripts choose, and what a set-up leaves behind.

Interpreters are shell scripts that say their version and write down how they were
called; PATH holds only them and the few tools that the scripts use. Nothing is
installed.
"""

import os
import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[2]
TOOLS = ("awk", "bash", "cat", "cksum", "cp", "dirname", "grep", "mkdir", "mv", "rm")
TOOLS += ("sed", "tail", "tee")
FAKE_PYTHON = """#!/usr/bin/env bash
echo "$0 $*" >> "$FAKE_LOG"
case "$1 ${2:-}" in
  -c*) [ MINOR -ge 12 ] && echo "$0" ;;
  "-m venv") mkdir -p "${@: -1}/bin"; cp "$0" "${@: -1}/bin/python" ;;
  "-m pip") [ "$3" = --version ] || exit "${FAKE_PIP_STATUS:-0}" ;;
esac
"""
FAKE_UV = """#!/usr/bin/env bash
[ "$1 $2" = "python find" ] && echo "{python}"
"""
REFUSING_SHIM = """#!/usr/bin/env bash
echo "pyenv: python3.13: command not found" >&2
exit 127
"""


def write_command(path: pathlib.Path, text: str) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


class Checkout:
    """A copy of the scripts in `folder`, with a PATH of its own."""

    def __init__(self, folder: pathlib.Path):
        self.folder, self.bin, self.home = folder / "a b", folder / "bin", folder / "h"
        self.log = folder / "calls"
        self.home.mkdir()
        shutil.copytree(ROOT / "scripts", self.folder / "scripts")
        for name in ("setup.cfg", "pyproject.toml"):
            shutil.copy(ROOT / name, self.folder)
        self.bin.mkdir()
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool))

    def python(self, name: str, minor: int) -> pathlib.Path:
        """A fake interpreter; `name` is relative to PATH's folder."""
        return write_command(self.bin / name, FAKE_PYTHON.replace("MINOR", str(minor)))

    def call(self, script: str, *arguments: str, **environment: str):
        """Runs scripts/`script`; returns (finished process, calls of fake Pythons)."""
        self.log.write_text("")
        done = subprocess.run(
            [str(self.folder / "scripts" / script), *arguments],
            env={"PATH": str(self.bin), "HOME": str(self.home)}
            | {"FAKE_LOG": str(self.log)}
            | environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
        )
        return done, self.log.read_text().splitlines()

    def chosen(self, **environment: str) -> str:
        """The interpreter that makes the environment."""
        done, calls = self.call("quickstart.sh", **environment)
        assert done.returncode == 0, done.stderr
        makers = [call for call in calls if "-m venv" in call]
        assert len(makers) == 1, calls
        return makers[0].split(" -m ")[0]


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


def test_no_python_is_one_clear_line_and_exit_2(checkout):
    checkout.python("python3", minor=11)
    done, _ = checkout.call("quickstart.sh")
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "no Python 3.12 or later" in done.stderr
    assert not (checkout.folder / ".venv").exists()


def test_the_named_python_comes_first(checkout):
    checkout.python("python3.13", minor=13)
    named = checkout.python("elsewhere/my python", minor=12)
    assert checkout.chosen(PYTHON=str(named)) == str(named)


def test_a_named_python_that_is_too_old_is_passed_over_aloud(checkout):
    newer = checkout.python("python3.13", minor=13)
    old = checkout.python("old", minor=9)
    done, calls = checkout.call("quickstart.sh", PYTHON=str(old))
    assert f"PYTHON={old} does not run as Python 3.12" in done.stderr
    assert any(call.startswith(f"{newer} -m venv") for call in calls)


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        ({"python3.12": 12, "python3.13": 13}, "python3.13"),
        ({"python3.12": 12, "python3": 14}, "python3.12"),
        ({"python3.13": 11, "python3.12": 12}, "python3.12"),
        ({"python3": 12}, "python3"),
    ],
)
def test_the_first_that_runs_as_3_12_or_later_is_taken(checkout, there, taken):
    paths = {name: checkout.python(name, minor) for name, minor in there.items()}
    assert checkout.chosen() == str(paths[taken])


def test_uv_is_asked(checkout):
    python = checkout.python("kept/by/uv/python", minor=13)
    write_command(checkout.bin / "uv", FAKE_UV.format(python=python))
    assert checkout.chosen() == str(python)


@pytest.mark.parametrize("by_variable", [True, False])
def test_pyenv_versions_are_found_where_the_shim_refuses(checkout, by_variable):
    write_command(checkout.bin / "python3.13", REFUSING_SHIM)
    root = checkout.folder / "pyenv" if by_variable else checkout.home / ".pyenv"
    for version, minor in (("3.9.18", 9), ("3.12.1", 12), ("3.13.0", 13)):
        checkout.python(str(root / "versions" / version / "bin/python"), minor)
    environment = {"PYENV_ROOT": str(root)} if by_variable else {}
    chosen = checkout.chosen(**environment)
    assert chosen == str(root / "versions/3.13.0/bin/python")


def test_a_second_call_sets_nothing_up(checkout):
    checkout.python("python3.13", minor=13)
    checkout.call("quickstart.sh")
    _, calls = checkout.call("quickstart.sh")
    assert not [call for call in calls if "-m venv" in call or "-m pip" in call]
    assert calls[-1].endswith(
        "-m experiments.low_shot"
        " --config=configs/low_shot.py:quick --workdir=runs/low_shot"
    )


def test_preset_and_flags_reach_the_experiment(checkout):
    checkout.python("python3.13", minor=13)
    _, calls = checkout.call("quickstart.sh", "smoke", "--config.seeds=9")
    assert calls[-1].endswith(
        "--config=configs/low_shot.py:smoke --workdir=runs/low_shot_smoke"
        " --config.seeds=9"
    )
    _, calls = checkout.call("quickstart.sh", "--workdir=runs/mine")
    assert calls[-1].endswith("--config=configs/low_shot.py:quick --workdir=runs/mine")


def test_test_extras_are_added_once_and_kept(checkout):
    checkout.python("python3.13", minor=13)
    checkout.call("quickstart.sh")
    done, calls = checkout.call("test.sh", "-k", "resume")
    assert [call.split()[-1] for call in calls if "--editable" in call] == [".[test]"]
    assert not [call for call in calls if "-m venv" in call], done.stderr
    assert "-m pytest -n auto" in calls[-1] and calls[-1].endswith(" -k resume")
    _, calls = checkout.call("quickstart.sh")
    assert not [call for call in calls if "-m pip" in call]


def test_changed_requirements_are_installed_again(checkout):
    checkout.python("python3.13", minor=13)
    checkout.call("test.sh")
    with open(checkout.folder / "setup.cfg", "a") as file:
        file.write("# changed\n")
    _, calls = checkout.call("quickstart.sh")
    assert [call.split()[-1] for call in calls if "--editable" in call] == [".[test]"]


def test_an_interrupted_set_up_is_repaired_by_the_next_call(checkout):
    checkout.python("python3.13", minor=13)
    done, calls = checkout.call("quickstart.sh", FAKE_PIP_STATUS="1")
    assert done.returncode == 1
    assert "installation failed" in done.stderr
    assert not [call for call in calls if "experiments" in call]
    done, calls = checkout.call("quickstart.sh")
    assert done.returncode == 0
    assert [call for call in calls if "-m venv --clear" in call]
    assert [call for call in calls if "experiments.low_shot" in call]


def test_an_environment_whose_python_is_gone_is_made_anew(checkout):
    checkout.python("python3.13", minor=13)
    checkout.call("quickstart.sh")
    (checkout.folder / ".venv/bin/python").unlink()
    done, calls = checkout.call("quickstart.sh")
    assert done.returncode == 0
    assert [call for call in calls if "-m venv" in call]


def test_the_scripts_can_be_run():
    for name in ("scripts/quickstart.sh", "scripts/test.sh", ".ci/run"):
        assert os.access(ROOT / name, os.X_OK), name
