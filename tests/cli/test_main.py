"""`tljax` finds its verbs, and help and refusals wait for neither JAX nor data."""

import subprocess
import sys

import pytest

from tljax.cli.main import VERBS, main


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["help"]])
def test_help_names_every_verb(argv, capsys):
    assert main(argv) == 0
    shown = capsys.readouterr().out
    for name, verb in VERBS.items():
        assert f"\n  {name} " in shown
        assert verb.meaning[:20] in shown


@pytest.mark.parametrize("name", sorted(VERBS))
def test_every_verb_has_its_own_help(name, capsys):
    try:
        assert main([name, "--help"]) == 0
    except SystemExit as exit:
        assert exit.code == 0
    assert capsys.readouterr().out.startswith(f"usage: tljax {name} ")


def test_the_version_is_told(capsys):
    import tljax

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tljax {tljax.__version__}\n"


def test_an_unknown_verb_is_refused_with_the_nearest(refused):
    assert "'evalute' is not a verb; did you mean 'evaluate'?" in refused("evalute")
    assert "did you mean" not in refused("xyzzy")


@pytest.mark.parametrize(
    ("argv", "status"),
    [
        (["--help"], 0),
        (["data", "list"], 0),
        (["train", "--help"], 0),
        (["methods", "--help"], 0),
        (["train", "--config=nowhere.py", "--workdir=w"], 2),
        (["report", "nowhere"], 2),
    ],
)
def test_what_needs_no_jax_imports_none(argv, status):
    """A process of its own: this one has imported JAX already."""
    code = (
        "import sys\n"
        "from tljax.cli.main import main\n"
        "try:\n"
        f"    status = main({argv!r})\n"
        "except SystemExit as exit:\n"
        "    status = exit.code\n"
        "heavy = {'jax', 'tensorflow_datasets', 'matplotlib'} & set(sys.modules)\n"
        f"sys.exit(str(heavy) if heavy else status != {status})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_training_imports_what_it_may_never_need_when_it_needs_it():
    code = (
        "import sys, tljax.cli.finetune, tljax.cli.pretrain\n"
        "late = {'grain', 'gguf', 'orbax', 'tensorflow_datasets'} & set(sys.modules)\n"
        "sys.exit(str(late) if late else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
