"""Adapters under PEFT's names, by hand."""

import dataclasses

import numpy as np
import pytest

from tljax.pretrained.families import FAMILIES
from tljax.pretrained.peft import peft_adapter
from tljax.settings import InputError, ModelSettings, TransferSettings

MODEL = ModelSettings(
    width=4, depth=2, heads=2, kv_heads=1, mlp="swiglu", mlp_width=8, qk_norm=False,
    bias="none", tied=True, causal=True, rope_base=100.0, dropout=0.0,
    scan_layers=False, dtype="float32",
)  # fmt: skip
LORA = TransferSettings(method="lora", rank=2, alpha=6.0, scaling="rank_stabilized")


def moving(path):
    """One pair of factors at a path 'layers/0/attention/query'."""
    *groups, name = path.split("/")
    tree = {name: {"a": np.arange(6.0).reshape(3, 2), "b": np.ones((2, 4))}}
    for group in reversed(groups):
        tree = {group: tree}
    return tree | {"head": {"kernel": np.zeros((3, 2)), "bias": np.zeros(2)}}


def adapter(moving, settings, family="llama", model=MODEL):
    return peft_adapter(moving, FAMILIES[family], settings, model=model, base="b")


@pytest.mark.parametrize(
    ("family", "path", "module"),
    [
        ("llama", "layers/7/attention/query", "model.layers.7.self_attn.q_proj"),
        ("qwen3", "layers/0/mlp/down", "model.layers.0.mlp.down_proj"),
        ("bert", "layers/1/mlp/up", "encoder.layer.1.intermediate.dense"),
    ],
)
def test_names_and_layout(family, path, module):
    config, tensors = adapter(moving(path), LORA, family)
    start = f"base_model.model.{module}"
    assert set(tensors) == {f"{start}.lora_A.weight", f"{start}.lora_B.weight"}
    by_hand = [[0, 2, 4], [1, 3, 5]]
    np.testing.assert_array_equal(tensors[f"{start}.lora_A.weight"], by_hand)
    assert tensors[f"{start}.lora_B.weight"].shape == (4, 2)
    assert config["target_modules"] == [module]
    assert (config["r"], config["lora_alpha"], config["use_rslora"]) == (2, 6.0, True)
    assert config["base_model_name_or_path"] == "b"
    encoder = family == "bert"
    kind = "FEATURE_EXTRACTION" if encoder else "CAUSAL_LM"
    assert config["task_type"] == kind


def test_what_peft_cannot_say_is_refused():
    fused = moving("layers/0/attention/query")
    with pytest.raises(InputError, match=r"part of h\.0\.attn\.c_attn\.weight in gpt2"):
        adapter(fused, LORA, "gpt2")
    for method in ("head", "full", "bottleneck"):
        settings = TransferSettings(method=method)
        with pytest.raises(InputError, match=f"'prefix'; this run's is '{method}'"):
            adapter({"head": fused["head"]}, settings)


def test_dora_has_its_lengths_too():
    dora = TransferSettings(method="dora", rank=2)
    tree = moving("layers/0/attention/query")
    tree["layers"]["0"]["attention"]["query"]["magnitude"] = np.arange(4.0)
    config, tensors = adapter(tree, dora)
    start = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    assert set(tensors) == {
        f"{start}{end}" for end in ("A.weight", "B.weight", "magnitude_vector")
    }
    np.testing.assert_array_equal(tensors[f"{start}magnitude_vector"], np.arange(4.0))
    assert config["use_dora"] and config["peft_type"] == "LORA"


def test_ia3_scales_outputs_and_the_inner_inputs():
    layer = {
        "attention": {"key": {"ia3": np.arange(3.0)}},
        "mlp": {"down": {"ia3": np.arange(5.0)}},
    }
    ia3 = TransferSettings(method="ia3")
    tree = {"layers": {"1": layer}}
    config, tensors = adapter(tree, ia3)
    names = ["model.layers.1.mlp.down_proj", "model.layers.1.self_attn.k_proj"]
    assert config["target_modules"] == names
    assert config["feedforward_modules"] == names[:1]
    assert config["peft_type"] == "IA3" and "r" not in config
    shapes = [tensors[f"base_model.model.{name}.ia3_l"].shape for name in names]
    assert shapes == [(1, 5), (3, 1)]


def test_a_prompt_stands_behind_the_embeddings_scale():
    prompt_PD = np.arange(12.0).reshape(3, 4)
    scaled = dataclasses.replace(MODEL, embedding_scale=2.0)
    config, tensors = adapter(
        {"embedding": {"prompt": prompt_PD}},
        TransferSettings(method="prompt", prompt_length=3),
        model=scaled,
    )
    np.testing.assert_array_equal(tensors["prompt_embeddings"], 2 * prompt_PD)
    assert (config["peft_type"], config["num_virtual_tokens"]) == ("PROMPT_TUNING", 3)
    assert (config["token_dim"], config["task_type"]) == (4, "CAUSAL_LM")


def prefix(layers=2):
    """Keys (1, 0) and (0, 1) of a head of two channels; values that name themselves."""
    places = [
        {
            "prefix_key": np.array([[1.0, 0.0], [0.0, 1.0]]),
            "prefix_value": np.array([[1.0, 2.0], [3.0, 4.0]]) + 10 * layer,
        }
        for layer in range(layers)
    ]
    return {"layers": {str(i): {"attention": one} for i, one in enumerate(places)}}


PREFIX = TransferSettings(method="prefix", prefix_length=2)


def test_a_prefix_has_its_keys_turned_by_its_length():
    config, tensors = adapter(prefix(), PREFIX)
    cos, sin = (
        np.cos(2.0),
        np.sin(2.0),
    )  # two positions, the first pair's frequency is 1
    by_hand = [
        [cos, sin, 1, 2, cos, sin, 11, 12],
        [-sin, cos, 3, 4, -sin, cos, 13, 14],
    ]
    np.testing.assert_allclose(tensors["prompt_embeddings"], by_hand, rtol=1e-6)
    assert (config["peft_type"], config["num_layers"]) == ("PREFIX_TUNING", 2)
    assert (config["num_attention_heads"], config["token_dim"]) == (1, 2)


@pytest.mark.parametrize(
    ("settings", "model", "said"),
    [
        ({"frozen_layers": 1}, {}, "frozen_layers=1 layers have none"),
        ({}, {"positions": "learned"}, "moves learned positions"),
        ({}, {"windows": (0, 4)}, "windows would hide it"),
    ],
)
def test_a_prefix_that_peft_would_compute_otherwise_is_refused(settings, model, said):
    with pytest.raises(InputError, match=said):
        adapter(
            prefix(),
            dataclasses.replace(PREFIX, **settings),
            model=dataclasses.replace(MODEL, **model),
        )
