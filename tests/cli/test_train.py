"""`tljax train`: both kinds end, and bad input is one line that leaves no trace."""

import json

import jax
import numpy as np
import pytest

from tljax.cli.main import main
from tljax.model import product
from tljax.train.checkpoint import load_params, params_sha256
from tljax.train.record import read_metrics


def test_a_run_that_started_from_another_has_its_tokenizer_and_all_its_records(
    labelled_run, language_run
):
    names = {path.name for path in labelled_run.iterdir()}
    assert {"config.json", "manifest.json", "metrics.jsonl", "classes.json"} <= names
    assert {"params", "predictions", "tokenizer.json"} <= names
    assert "populations" not in names
    tokenizers = [run / "tokenizer.json" for run in (labelled_run, language_run)]
    assert tokenizers[0].read_bytes() == tokenizers[1].read_bytes()
    assert read_metrics(labelled_run)[-1]["final"] is True


def test_pretraining_goes_on_from_another_runs_parameters(
    language_run, labelled_run, pretrain_arguments, tmp_path
):
    """At a rate of zero it ends where that run ended, tokenizer included; a head that
    the run has is left behind.
    """
    still = ["--config.optim.lr_peak=0", "--config.steps=1"]
    for source in (language_run, labelled_run):
        folder = tmp_path / source.name
        start = f"--config.init.source={source}"
        arguments = ["train", *pretrain_arguments, *still, start]
        assert main([*arguments, f"--workdir={folder}"]) == 0
        before, after = load_params(source / "params"), load_params(folder / "params")
        before.pop("head", None)
        jax.tree.map(np.testing.assert_array_equal, after, before)
        tokenizers = [run / "tokenizer.json" for run in (source, folder)]
        assert tokenizers[0].read_bytes() == tokenizers[1].read_bytes()


def test_pretraining_goes_on_from_an_embedding_with_padded_rows(
    tiny_llama, pretrain_arguments, tmp_path
):
    sizes = ("model.", "tokenizer.")
    given = [one for one in pretrain_arguments if not any(s in one for s in sizes)]
    source = f"--config.init.source=hf:{tiny_llama}"
    command = ["train", *given, source, "--config.steps=1", f"--workdir={tmp_path}/a"]
    assert main(command) == 0
    assert load_params(tmp_path / "a" / "params")["embedding"]["tokens"].shape[0] == 320


def test_pretraining_by_onednn_ends_where_it_does_without(
    language_run, pretrain_arguments, monkeypatch, tmp_path
):
    monkeypatch.setattr(product, "onednn_is_faster", lambda: True)
    assert main(["train", *pretrain_arguments, f"--workdir={tmp_path}/a"]) == 0
    told, own = (read_metrics(run) for run in (tmp_path / "a", language_run))
    for one, other in zip(told[:3], own[:3], strict=True):
        np.testing.assert_allclose(one["loss_nats"], other["loss_nats"], rtol=1e-3)
    ended = [one[-1]["bits_per_byte"]["value"] for one in (told, own)]
    np.testing.assert_allclose(*ended, rtol=1e-3)


def test_what_was_copied_stands_in_the_manifest(labelled_run, language_run):
    told = json.loads((labelled_run / "manifest.json").read_text())["init"]
    leaves = len(jax.tree.leaves(load_params(language_run / "params")))
    assert told == {
        "source": str(language_run),
        "copied": leaves,
        "fresh": ["head/bias", "head/kernel"],
        "left": [],
        "params_sha256": params_sha256(load_params(language_run / "params")),
    }
    assert json.loads((language_run / "manifest.json").read_text())["init"] is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("vocab_size=299", "vocab_size is 299, but the tokenizer of"),
        ("normalization=lower", "normalization is 'lower', but the tokenizer of"),
    ],
)
def test_a_tokenizer_that_is_taken_must_be_the_one_described(
    language_run, finetune_arguments, tmp_path, refused, change, said
):
    start = f"--config.init.source={language_run}"
    arguments = [*finetune_arguments, start, f"--config.tokenizer.{change}"]
    assert said in refused("train", *arguments, f"--workdir={tmp_path / 'run'}")


def test_another_tokenizer_than_the_first_weights_is_refused(
    language_run, finetune_arguments, tmp_path, refused, copy_of
):
    other = copy_of(language_run)
    told = json.loads((other / "tokenizer.json").read_text())
    told["model"]["merges"].pop()
    (other / "tokenizer.json").write_text(json.dumps(told))
    sources = [f"--config.init.source={language_run}"]
    sources += [f"--config.tokenizer.source={other}"]
    folder = tmp_path / "run"
    line = refused("train", *finetune_arguments, *sources, f"--workdir={folder}")
    assert "has another tokenizer than config.init.source" in line


def test_data_that_changed_since_a_run_began_is_refused(
    pretrain_arguments, reviews, tmp_path, refused
):
    own = tmp_path / "own.csv"
    own.write_text(reviews.read_text())
    source = f"--config.corpus.source=csv:{own}?text=review"
    arguments = ["train", *pretrain_arguments, source, f"--workdir={tmp_path / 'run'}"]
    assert main(arguments) == 0
    (tmp_path / "run" / "metrics.jsonl").unlink()  # as if killed before its end
    own.write_text(reviews.read_text().replace("lovely", "lively"))
    line = refused(*arguments)
    assert "began with other data" in line and "train is" in line


def test_going_on_from_another_architecture_names_the_keys(
    language_run, pretrain_arguments, tmp_path, refused
):
    other = ["--config.model.mlp_width=24", f"--config.init.source={language_run}"]
    folder = tmp_path / "run"
    line = refused("train", *pretrain_arguments, *other, f"--workdir={folder}")
    assert "config.model.mlp_width=24 but 16 there" in line


def test_overrides_stand_in_the_runs_config(language_run):
    config = json.loads((language_run / "config.json").read_text())
    assert (config["steps"], config["optim"]["name"]) == (2, "adamw")
    assert config["model"]["mlp"] == "relu2"  # of the file


def test_an_ended_run_is_told_and_left_alone(language_run, capsys):
    before = {path: path.stat().st_mtime_ns for path in language_run.rglob("*")}
    config = f"--config={language_run / 'config.json'}"
    assert main(["train", config, f"--workdir={language_run}"]) == 0
    out = capsys.readouterr().out
    assert f"{language_run} has ended after 2 steps" in out
    assert "bits per byte" in out and "±" in out
    assert {path: path.stat().st_mtime_ns for path in language_run.rglob("*")} == before


def test_another_config_in_the_folder_names_the_keys_and_keeps_the_run(
    language_run, pretrain_arguments, refused
):
    before = (language_run / "config.json").read_bytes()
    line = refused(
        "train", *pretrain_arguments, "--config.steps=3", f"--workdir={language_run}"
    )
    assert "config.steps is 2 there, 3 asked" in line
    assert (language_run / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config.optim.lr_peek=1"], "did you mean 'lr_peak'?"),
        (["--config.optm.lr_peak=1"], "did you mean 'optim'?"),
        (["--config.steps=ten"], "--config.steps=ten is not a whole number"),
        (["--config.steps=2.5"], "--config.steps=2.5 is not a whole number"),
        (["--config.model.tied=maybe"], "not true or false"),
        (["--config.optim.lr_peak=nan"], "lr_peak is nan; it must be a finite"),
        (["--config.optim=adamw"], "is a group; set one of its keys: name"),
        (["--config.steps=0"], "config.steps is 0; it must be at least 1"),
        (["--config.model.mlp=swigl"], "did you mean 'swiglu'?"),
        (["--config.kind=pretain"], "did you mean 'pretrain'?"),
        (["--config.model.heads=3"], "width=16 is not divisible by config.model.heads"),
        (
            ["--config.mesh.data=3", "--config.optim.batch=4"],
            "optim.batch=4 is not divisible by mesh.data x",
        ),
        (["--config.mesh.data=16", "--config.optim.batch=16"], "there are 8"),
        (["--config.mesh.run=2"], "mesh.run=2: pre-training is one run"),
        (["--config.corpus.source=text:nowhere"], "nowhere does not exist"),
        (["--config.corpus.source=pkg:imdb_review"], "did you mean 'imdb_reviews'?"),
        (["--config.tokenizer.source=nowhere"], "nowhere is not a folder"),
        (["--workdirr=x"], "did you mean 'workdir'?"),
        (
            ["--config.model.positions=learned", "--config.model.context=4"],
            "=16, but the model has 4 positions; set it to at most 4",
        ),
    ],
)
def test_bad_input_of_pretraining_is_one_line_and_leaves_no_folder(
    arguments, said, pretrain_arguments, refused, tmp_path
):
    folder = tmp_path / "run"
    line = refused("train", *pretrain_arguments, *arguments, f"--workdir={folder}")
    assert said in line
    assert not folder.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config.task.n=1000"], "only 28 labelled training items"),
        (["--config.init.source=nowhere"], "nowhere is not a folder"),
        (["--config.mesh.tensor=2"], "tensor=2; a fine-tuning run is trained on one"),
        (["--config.epochs=0"], "config.epochs is 0; it must be more than 0"),
        (
            ["--config.record.choose=best", "--config.record.validations=0"],
            "needs config.record.validations of at least 1",
        ),
        (["--config.task.score_test=1"], "not true or false"),
        (
            ["--config.transfer.method=lora", "--config.transfer.targets=["],
            "no regular",
        ),
        (
            ["--config.transfer.method=head", "--config.transfer.frozen_layers=1"],
            "frozen_layers=1 is not read with config.transfer.method='head', only",
        ),
        (
            ["--config.model.positions=learned", "--config.model.context=4"],
            "=16, but the model has 4 positions; set it to at most 4",
        ),
    ],
)
def test_bad_input_of_finetuning_is_one_line_and_leaves_no_folder(
    arguments, said, finetune_arguments, refused, tmp_path
):
    folder = tmp_path / "run"
    line = refused("train", *finetune_arguments, *arguments, f"--workdir={folder}")
    assert said in line
    assert not folder.exists()


@pytest.mark.parametrize(
    ("transfer", "said"),
    [
        (["frozen_layers=3"], "but the model has 1 layers"),
        (["method=lora", "targets=layers/9/.*"], "matches no matrix"),
    ],
)
def test_what_of_a_source_moves_is_checked_before_anything_is_read(
    transfer, said, finetune_arguments, language_run, refused, tmp_path
):
    folder = tmp_path / "run"
    given = [f"--config.transfer.{one}" for one in transfer]
    source = f"--config.init.source={language_run}"
    line = refused("train", *finetune_arguments, source, *given, f"--workdir={folder}")
    assert said in line
    assert not folder.exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "does not exist"),
        (b"", "is empty"),
        (b"review,stars\n", "holds no rows"),
        (b"review,star\na,b\n", "no column 'stars'; did you mean 'star'?"),
        (b"review,stars\na,\xff\n", "line 2: not UTF-8"),
        (b"review,stars\n" + b"".join(b"a%d,b\n" % i for i in range(9)), "the class"),
    ],
)
def test_a_bad_file_is_one_line_and_leaves_no_folder(
    content, said, finetune_arguments, refused, tmp_path
):
    path, folder = tmp_path / "own.csv", tmp_path / "run"
    if content is not None:
        path.write_bytes(content)
    source = f"--config.task.source=csv:{path}?text=review&label=stars"
    line = refused("train", *finetune_arguments, source, f"--workdir={folder}")
    assert said in line
    assert not folder.exists()


def test_another_architecture_than_the_source_runs_is_named(
    finetune_arguments, language_run, refused, tmp_path
):
    line = refused(
        "train",
        *finetune_arguments,
        f"--config.init.source={language_run}",
        "--config.model.width=32",
        f"--workdir={tmp_path / 'run'}",
    )
    assert "config.model.width=32 but 16 there" in line
    assert not (tmp_path / "run").exists()


def test_a_work_folder_that_is_a_file_is_refused_and_kept(
    pretrain_arguments, refused, tmp_path
):
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    assert "is a file" in refused("train", *pretrain_arguments, f"--workdir={path}")
    assert path.read_text() == "mine"


def test_help_and_print_config_show_every_key_with_its_meaning(capsys):
    from tljax.settings import SETTINGS_OF_KIND, describe

    for flag in ("--help", "--print_config"):
        with pytest.raises(SystemExit) as exit:
            main(["train", flag])
        assert exit.value.code == 0
        shown = " ".join(capsys.readouterr().out.split())
        for kind in SETTINGS_OF_KIND.values():
            for key, _, meaning in describe(kind):
                assert key in shown
                assert meaning in shown


def test_print_config_shows_the_values_after_overrides(capsys, pretrain_arguments):
    with pytest.raises(SystemExit):
        main(["train", *pretrain_arguments, "--print_config"])
    shown = capsys.readouterr().out
    assert "config.steps = 2 " in shown
    assert 'config.optim.name = "adamw"' in shown
    assert "config.task.source" not in shown  # of the other kind
