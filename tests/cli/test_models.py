"""A run folder that does not fit itself is refused before anything is computed."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from tljax.cli.flags import MODEL
from tljax.cli.main import main
from tljax.cli.models import embedding_rows, load_params_of, open_model
from tljax.cli.predict import Classifier
from tljax.data.tokenizer import Tokenizer
from tljax.pretrained.packaged import MODELS
from tljax.settings import InputError, TransferSettings


def config_of(run):
    return json.loads((run / "config.json").read_text())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"width": 32},
            r"embedding/tokens \[\d+, 16\], its config.json expects .* 32\]",
        ),
        ({"depth": 2}, "have layers/1/[a-z/]+ missing, its config.json expects"),
        ({"mlp_width": 8}, r"layers/0/mlp/down/kernel \[16, 16\], its .*\[8, 16\]"),
        ({"norm_place": "after"}, r"final_norm/scale \[16\], its .* expects none"),
        (
            {"heads": 5},
            "config.model.width=16 is not divisible by config.model.heads=5",
        ),
    ],
)
def test_parameters_that_the_config_does_not_describe(
    change, said, language_run, copy_of
):
    run = copy_of(language_run, model=config_of(language_run)["model"] | change)
    with pytest.raises(InputError, match=said) as caught:
        load_params_of(str(run))
    assert str(caught.value).startswith(f"{run}: ")


def test_a_head_has_the_width_of_its_model(labelled_run, copy_of):
    from tljax.train.checkpoint import load_params, save_params

    run = copy_of(labelled_run)
    params = load_params(run / "params")
    save_params(run / "params", params | {
        "head": params["head"] | {"kernel": np.zeros((9, 2), np.float32)}})  # fmt: skip
    with pytest.raises(InputError, match=r"have head/kernel \[9, 2\], .*\[16, 2\]"):
        load_params_of(str(run))


@pytest.fixture(scope="module")
def lora_run(tmp_path_factory, finetune_arguments, language_run):
    """A LoRA run that started from `language_run`."""
    folder = tmp_path_factory.mktemp("runs") / "lora"
    start = [f"--config.init.source={language_run}", f"--workdir={folder}"]
    lora = ["--config.transfer.method=lora", "--config.transfer.rank=2"]
    assert main(["train", *finetune_arguments, *start, *lora]) == 0
    return folder


def test_an_adapter_of_another_rank_or_model_is_refused(lora_run, copy_of):
    config = config_of(lora_run)
    run = copy_of(lora_run, transfer=config["transfer"] | {"rank": 4})
    with pytest.raises(InputError, match=r"/a \[16, 2\], its .* expects \[16, 4\]"):
        load_params_of(str(run))
    shutil.rmtree(run)
    run = copy_of(lora_run, model=config["model"] | {"depth": 2})
    with pytest.raises(InputError, match="have layers/1/.* missing"):
        load_params_of(str(run))
    shutil.rmtree(run)
    run = copy_of(lora_run, init={})
    with pytest.raises(InputError, match="config.init.source is missing"):
        load_params_of(str(run))


def test_a_run_that_cannot_be_merged_predicts_and_no_more(
    finetune_arguments, language_run, reviews, tmp_path, refused
):
    run, out = tmp_path / "run", tmp_path / "labels.jsonl"
    start = [f"--config.init.source={language_run}", f"--workdir={run}"]
    method = ["--config.transfer.method=prefix", "--config.optim.lr_peak=0.1"]
    assert main(["train", *finetune_arguments, *start, *method]) == 0
    lines = (run / "predictions" / "test.jsonl").read_text().splitlines()
    wanted = {
        row["text"]: row["probabilities"]["good"] for row in map(json.loads, lines)
    }
    classifier = Classifier(run)
    found = classifier.probabilities(list(wanted))[:, 1]
    np.testing.assert_allclose(found, list(wanted.values()), atol=1e-5)
    # the same weights without what the method added tell something else
    bare = dataclasses.replace(classifier._model, transfer=TransferSettings())
    classifier._model = bare
    assert np.abs(classifier.probabilities(list(wanted))[:, 1] - found).max() > 1e-3
    file = [f"--input={reviews}", "--text=review", f"--out={tmp_path / 'x.npy'}"]
    for verb in (
        ["export", f"--run={run}", f"--out={out}x"],
        ["embed", f"--model={run}", *file],
    ):
        assert "method='prefix' adds to the model what" in refused(*verb)
    again = [*finetune_arguments, f"--config.init.source={run}", f"--workdir={out}"]
    assert "method='prefix' adds to the model what" in refused("train", *again)


@pytest.mark.parametrize("text", ["{}", "[]", '{"init": {}}', '{"init": 3}'])
def test_a_damaged_manifest_is_refused(text, lora_run, copy_of, tmp_path, refused):
    run = copy_of(lora_run)
    (run / "manifest.json").write_text(text)
    out = tmp_path / "out"
    assert "manifest.json" in refused("export", f"--run={run}", f"--out={out}")
    assert not out.exists()


@pytest.mark.parametrize("config", ["{}", "[]", None])
def test_a_damaged_config_is_refused(config, lora_run, copy_of, tmp_path, refused):
    run = copy_of(lora_run)
    path = run / "config.json"
    path.unlink()
    path.mkdir() if config is None else path.write_text(config)
    for form in ("peft", "safetensors"):
        said = refused("export", f"--run={run}", f"--out={run}x", f"--format={form}")
        assert "config.json" in said


def test_a_tokenizer_of_more_tokens_than_rows_is_refused(language_run, copy_of):
    run = copy_of(language_run)
    path = run / "tokenizer.json"
    whole = json.loads(path.read_text())
    whole["model"]["vocab"]["zz"] = 400
    path.write_text(json.dumps(whole))
    with pytest.raises(InputError, match=r"has 401 tokens, the embedding .* \d+ rows"):
        open_model(str(run))
    with pytest.raises(InputError, match="has 401 tokens"):
        embedding_rows(str(run), Tokenizer.load(path))


def test_a_source_without_tokenizer_is_said(
    language_run, copy_of, finetune_arguments, tmp_path, refused
):
    run = copy_of(language_run)
    (run / "tokenizer.json").unlink()
    start = [f"--config.init.source={run}", f"--workdir={tmp_path / 'out'}"]
    said = refused("train", *finetune_arguments, *start)
    assert f"{run} has no tokenizer.json; put its model's own there" in said
    assert not (tmp_path / "out").exists()


def test_the_flag_names_all_packaged_models():
    assert all(f"pkg:{name}" in MODEL.meaning for name in MODELS)
