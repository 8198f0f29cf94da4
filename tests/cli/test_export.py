"""What an export takes from where, and what a refused one leaves."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest

from tljax.cli.export import _output_of
from tljax.cli.main import main
from tljax.model import transformer
from tljax.pretrained.card import model_card
from tljax.settings import InputError, to_dict
from tljax.train.checkpoint import save_params


def test_the_output_matrix_is_found_behind_classifiers(tmp_path, model_settings):
    settings = dataclasses.replace(model_settings, tied=False)
    shapes = jax.eval_shape(
        functools.partial(transformer.init_params, settings, 3), jax.random.key(0)
    )
    whole = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes)
    output = whole.pop("output")
    kernel = np.zeros((settings.width, 2), np.float32)
    head = {"head": {"kernel": kernel, "bias": np.zeros(2, np.float32)}}

    def run(name, source, added):
        folder = tmp_path / name
        folder.mkdir()
        config = {"model": to_dict(settings), "init": {"source": source}}
        (folder / "config.json").write_text(json.dumps(config))
        save_params(folder / "params", whole | added)
        return config | {"init": {"source": str(folder)}}

    begun = run("lm", "", {"output": output})
    for name in "ab":
        begun = run(name, begun["init"]["source"], head)
        np.testing.assert_array_equal(_output_of(begun)["kernel"], output["kernel"])
    with pytest.raises(InputError, match="has the output matrix"):
        _output_of(run("scratch", "", head))


def test_a_refused_gguf_leaves_no_folder(tiny_llama, tmp_path, refused):
    run = tmp_path / "run"
    (tmp_path / "run.new").mkdir()  # a folder of the user's
    assert main(["import", f"--source=hf:{tiny_llama}", f"--out={run}"]) == 0
    assert sorted(one.name for one in tmp_path.iterdir()) == ["run", "run.new"]
    path = run / "tokenizer.json"
    whole = json.loads(path.read_text()) | {"normalizer": {"type": "Lowercase"}}
    path.write_text(json.dumps(whole))
    out = tmp_path / "deep" / "out"
    said = refused("export", f"--run={run}", f"--out={out}", "--format=gguf")
    assert "GGUF" in said
    assert not (tmp_path / "deep").exists()


@pytest.mark.parametrize(
    ("transfer", "said"),
    [
        ({}, "1,000 parameters. Made"),
        ({"method": "lora"}, "1,000 parameters, of which the run moved 10. Made"),
    ],
)
def test_the_card_says_what_its_hash_is_of(transfer, said):
    moving = 10 if transfer else 1000
    card = model_card(
        name="mine",
        config={"kind": "finetune"} | ({"transfer": transfer} if transfer else {}),
        manifest={"parameters": 1000, "parameters_moving": moving},
        results={"params_sha256": "abc"},
    )
    assert said in card
    assert ("without the frozen weights" in card) == bool(transfer)
    assert "is `abc`" in card
