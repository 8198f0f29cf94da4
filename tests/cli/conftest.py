"""Tiny runs (width 16, one layer, a few steps) trained once by the command itself."""

import json
import pathlib
import shutil

import pytest

from tljax.cli.main import main
from tljax.cli.members import member_of

ROOT = pathlib.Path(__file__).parents[2]
SIZES = [
    "--config.model.width=16",
    "--config.model.depth=1",
    "--config.model.mlp_width=16",
    "--config.model.dtype=float32",
    "--config.tokenizer.vocab_size=300",
    "--config.record.rounds=2",
    "--config.record.validations=1",
]
PRETRAIN = [f"--config={ROOT / 'configs' / 'pretrain.py'}:tiny", *SIZES]
PRETRAIN += ["--config.steps=2", "--config.optim.batch=2", "--config.corpus.length=16"]
PRETRAIN += ["--config.optim.name=adamw"]  # Muon compiles twice as long
FINETUNE = [f"--config={ROOT / 'configs' / 'finetune.py'}:tiny", *SIZES]
FINETUNE += ["--config.task.n=8", "--config.task.length=16", "--config.epochs=2"]
FINETUNE += ["--config.optim.lr_peak=0.01"]


@pytest.fixture(scope="session")
def reviews(tmp_path_factory) -> pathlib.Path:
    """A CSV of 40 reviews: columns review, stars ('good' or 'bad')."""
    path = tmp_path_factory.mktemp("data") / "reviews.csv"
    rows = [f"a {word} film number {i},{label}" for i in range(20)
            for word, label in (("lovely", "good"), ("dreary", "bad"))]  # fmt: skip
    path.write_text("\n".join(["review,stars", *rows]) + "\n")
    return path


@pytest.fixture(scope="session")
def finetune_arguments(reviews) -> list[str]:
    """Arguments of `tljax train` (without --workdir) that learn from the reviews."""
    return [*FINETUNE, f"--config.task.source=csv:{reviews}?text=review&label=stars"]


@pytest.fixture(scope="session")
def pretrain_arguments(reviews) -> list[str]:
    """Arguments of `tljax train` (without --workdir) that read the reviews."""
    return [*PRETRAIN, f"--config.corpus.source=csv:{reviews}?text=review"]


@pytest.fixture(scope="session")
def language_run(tmp_path_factory, pretrain_arguments) -> pathlib.Path:
    """A pre-training run that has ended."""
    folder = tmp_path_factory.mktemp("runs") / "lm"
    assert main(["train", *pretrain_arguments, f"--workdir={folder}"]) == 0
    return folder


@pytest.fixture(scope="session")
def labelled_run(tmp_path_factory, finetune_arguments, language_run) -> pathlib.Path:
    """A fine-tuning run that started from `language_run` and has ended."""
    folder = tmp_path_factory.mktemp("runs") / "reviews"
    start = f"--config.init.source={language_run}"
    arguments = ["train", *finetune_arguments, start, f"--workdir={folder}"]
    assert main(arguments) == 0
    return folder


@pytest.fixture
def members(finetune_config, tmp_path):
    """members(folder) -> two trials of two seeds; the second's rate is far too high."""
    rows = [f"some words of number {i},{'ny'[i % 2]}" for i in range(20)]
    (tmp_path / "items.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    source = f"csv:{tmp_path}/items.csv?text=text&label=label"
    finetune_config["task"] |= {"source": source, "score_test": False}
    finetune_config["model"]["depth"] = 1
    often = {"checkpoint_seconds": 1e6, "rounds": 4, "validations": 4}
    finetune_config["record"] |= often

    def members(folder):
        return [
            member_of(
                finetune_config
                | {"kind": "finetune", "seed": seed}
                | {"optim": finetune_config["optim"] | {"lr_peak": lr_peak}},
                folder / f"{trial}-s{seed}",
            )
            for trial, lr_peak in enumerate((0.01, 3.0))
            for seed in range(2)
        ]

    return members


@pytest.fixture
def refused(capsys):
    """refused(argv) -> the one line on stderr of a command that ends with status 2."""

    def run(*argv) -> str:
        capsys.readouterr()
        assert main([str(one) for one in argv]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("tljax: error: ")
        assert captured.err.count("\n") == 1
        return captured.err

    return run


@pytest.fixture
def copy_of(tmp_path):
    """copy_of(folder, **changes of config.json) -> a run folder that may be spoilt."""

    def copy(folder: pathlib.Path, **changes) -> pathlib.Path:
        fresh = tmp_path / f"copy_{folder.name}"
        shutil.copytree(folder, fresh)
        config = json.loads((fresh / "config.json").read_text())
        (fresh / "config.json").write_text(json.dumps(config | changes))
        return fresh

    return copy
