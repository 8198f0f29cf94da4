"""Tiny models of every family compute what Transformers computed (golden/make.py)."""

import dataclasses
import importlib.util
import json
import pathlib

import jax
import numpy as np
import pytest

from tljax.model import transformer
from tljax.pretrained.checkpoint import Checkpoint, Tensor, tell
from tljax.pretrained.families import FAMILIES, family_of, read_settings, write_config
from tljax.pretrained.tree import read_params, write_tensors
from tljax.settings import InputError

GOLDEN = pathlib.Path(__file__).parent / "golden"
CASES = sorted(path.stem for path in GOLDEN.glob("*.json"))
CLOSE = {"rtol": 0, "atol": 2e-4}  # float32, another order of summation; logits to 20


def load_make():
    spec = importlib.util.spec_from_file_location("golden_make", GOLDEN / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make = load_make()


def checkpoint_of(case):
    """The checkpoint that Transformers was given, drawn again."""
    golden = json.loads((GOLDEN / f"{case}.json").read_text())
    tensors = {
        name: Tensor(
            tuple(shape),
            "F32",
            lambda n=name, s=shape: drawn(case, n, s),
            tell(case, name),
        )
        for name, shape in golden["shapes"].items()
    }
    return golden, Checkpoint(case, golden["config"], tensors, None, {})


def drawn(case, name, shape):
    return make.draw(f"{case}/{name}", tuple(shape))


def read(case):
    golden, checkpoint = checkpoint_of(case)
    family = family_of(checkpoint.config, case)
    settings = read_settings(checkpoint.config, case)
    settings = dataclasses.replace(settings, dtype="float32")
    params, ledger = read_params(checkpoint, family, settings, lambda path, x: x)
    return golden, checkpoint, settings, params, ledger


def batch_of(mask, **arrays):
    return {
        "segments_BL": mask.astype(np.int32),
        **{f"{name}_BL": value.astype(np.int32) for name, value in arrays.items()},
    }


@pytest.mark.parametrize("case", CASES)
def test_values_are_those_of_transformers(case):
    golden, _, settings, params, _ = read(case)
    given = make.inputs()

    @jax.jit
    def compute(params, batch):
        states_BLD = transformer.apply(settings, params, batch)
        encoder = not settings.causal
        return states_BLD if encoder else transformer.logits_of(params, states_BLD)

    values = compute(params, batch_of(**given))
    shown = np.array([values[row, position] for row, position in golden["shown"]])
    np.testing.assert_allclose(shown, golden["values"], **CLOSE)
    assert np.abs(shown).max() > 1  # else a tolerance of 2e-4 would show little


@pytest.mark.parametrize("case", CASES)
def test_every_tensor_and_leaf_stands_in_the_ledger(case):
    _, checkpoint, _, params, ledger = read(case)
    leaves = transformer_paths(params)
    assert sorted(line.leaf for line in ledger if line.leaf) == sorted(leaves)
    assert {line.tensor.split(".")[-1] for line in ledger} <= {"weight", "bias"}
    family = family_of(checkpoint.config, case)
    names = {name.removeprefix(family.prefix) for name in checkpoint.tensors}
    assert {line.tensor for line in ledger} == names
    left = [line.tensor for line in ledger if not line.leaf]
    pooler = ["pooler.dense.bias", "pooler.dense.weight"]
    assert left == (pooler if case == "bert" else [])


def transformer_paths(params):
    flat = jax.tree_util.tree_flatten_with_path(params)[0]
    return [jax.tree_util.keystr(p, simple=True, separator="/") for p, _ in flat]


@pytest.mark.parametrize("case", CASES)
def test_written_back_they_are_what_was_read(case):
    _, checkpoint, settings, params, _ = read(case)
    family, config = write_config(settings, make.VOCAB)
    assert family.name == checkpoint.config["model_type"]
    again = read_settings(config, "again")
    assert again == dataclasses.replace(settings, dtype="auto")
    written = write_tensors(params, family)
    kept = {name for name in checkpoint.tensors if not name.startswith("pooler")}
    named = {name.removeprefix("bert."): value for name, value in written.items()}
    if case != "bert":
        named = written
    assert set(named) == kept
    for name in kept:
        # of norms kept less 1, the last bit goes
        close = {"rtol": 0, "atol": 1e-6 if "gemma" in case else 0}
        np.testing.assert_allclose(named[name], drawn(case, name, named[name].shape),
                                   **close)  # fmt: skip


def test_every_family_has_a_golden_file():
    assert {checkpoint_of(case)[1].config["model_type"] for case in CASES} == set(
        FAMILIES
    )


def without(name):
    golden, checkpoint = checkpoint_of("qwen3")
    tensors = {k: v for k, v in checkpoint.tensors.items() if k != name}
    return dataclasses.replace(checkpoint, tensors=tensors)


def refused(checkpoint, said):
    settings = read_settings(checkpoint.config, "here")
    family = family_of(checkpoint.config, "here")
    with pytest.raises(InputError, match=said):
        read_params(checkpoint, family, settings, lambda path, x: x)


def test_a_missing_and_a_left_over_tensor_are_errors():
    name = "model.layers.1.self_attn.k_norm.weight"
    refused(without(name), f"qwen3 has no tensor '{name}' .*key_norm.*; fetch")
    whole = without("")
    over = "model.layers.0.extra" + "x" * 999 + "\n"
    extra = dataclasses.replace(whole.tensors[name], told=tell("1.safetensors", over))
    tensors = {**whole.tensors, over: extra}
    said = (
        r"^1.safetensors: tensor 'model.layers.0.extrax{1,60} has no place in a qwen3"
    )
    refused(dataclasses.replace(whole, tensors=tensors), said)
    wrong = {**whole.tensors, name: Tensor((3,), "F32", lambda: 0, tell("f", name))}
    refused(
        dataclasses.replace(whole, tensors=wrong),
        rf"^f: tensor '{name}' has shape \(3,\), but by config.json .* \(10,\)",
    )


def test_a_tensor_under_two_names_is_refused():
    whole = without("")
    short = "embed_tokens.weight"
    one = whole.tensors[f"model.{short}"]
    tensors = {**whole.tensors, short: dataclasses.replace(one, told=tell("f", short))}
    said = f"^f: tensor '{short}' and qwen3: tensor 'model.{short}' are one tensor"
    refused(dataclasses.replace(whole, tensors=tensors), said)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(value):
    whole = without("")
    name = "model.layers.1.mlp.up_proj.weight"
    values = whole.tensors[name].read()
    values[-1, 0] = value
    broken = dataclasses.replace(whole.tensors[name], read=lambda: values)
    tensors = {**whole.tensors, name: broken}
    said = f"^qwen3: tensor '{name}' holds NaN or infinite values; fetch"
    refused(dataclasses.replace(whole, tensors=tensors), said)


def test_a_depth_that_the_tensors_do_not_have_is_told_at_once():
    _, checkpoint = checkpoint_of("qwen3")
    config = checkpoint.config | {"num_hidden_layers": 1000, "layer_types": None}
    said = "qwen3 has no tensor 'model.layers.* fetch the model again"
    refused(dataclasses.replace(checkpoint, config=config), said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "lama"}, "'lama' is none .*did you mean 'llama'.*known: ll"),
        ({"hidden_size": None}, "hidden_size=None; it must be a whole number"),
        ({"hidden_act": "relu"}, "hidden_act='relu'; known here: 'silu'"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type 'yarn'; known here"),
        ({"num_attention_heads": 0}, "num_attention_heads=0; it must be"),
        ({"num_key_value_heads": 4}, "heads=6 is not divisible by num_key_value_he"),
        ({"hidden_size": "48"}, "hidden_size='48'; it must be a whole number"),
    ],
)  # fmt: skip
def test_configs_that_cannot_be_built_are_refused(change, said):
    golden, _ = checkpoint_of("llama_untied_llama3")
    with pytest.raises(InputError, match=said):
        read_settings(golden["config"] | change, "here")
    lacking = {k: v for k, v in golden["config"].items() if k != "intermediate_size"}
    with pytest.raises(InputError, match="here: config.json has no 'intermediate_size"):
        read_settings(lacking, "here")


def test_a_model_that_no_family_can_express_is_refused(model_settings):
    settings = dataclasses.replace(model_settings, mlp="relu2")
    with pytest.raises(InputError, match="no family of Transformers computes.*relu2"):
        write_config(settings, 10)
    family, config = write_config(model_settings, 10)
    assert (family.name, config["rope_theta"]) == ("qwen3", 100.0)
