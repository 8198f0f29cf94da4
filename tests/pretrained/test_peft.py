"""Adapters under PEFT's names, by hand."""

import numpy as np
import pytest

from tljax.pretrained.families import FAMILIES
from tljax.pretrained.peft import peft_adapter
from tljax.settings import InputError, TransferSettings

LORA = TransferSettings(method="lora", rank=2, alpha=6.0, scaling="rank_stabilized")


def moving(path):
    """One pair of factors at a path 'layers/0/attention/query'."""
    *groups, name = path.split("/")
    tree = {name: {"a": np.arange(6.0).reshape(3, 2), "b": np.ones((2, 4))}}
    for group in reversed(groups):
        tree = {group: tree}
    return tree | {"head": {"kernel": np.zeros((3, 2)), "bias": np.zeros(2)}}


@pytest.mark.parametrize(
    ("family", "path", "module"),
    [
        ("llama", "layers/7/attention/query", "model.layers.7.self_attn.q_proj"),
        ("qwen3", "layers/0/mlp/down", "model.layers.0.mlp.down_proj"),
        ("bert", "layers/1/mlp/up", "encoder.layer.1.intermediate.dense"),
    ],
)
def test_names_and_layout(family, path, module):
    config, tensors = peft_adapter(moving(path), FAMILIES[family], LORA, base="b")
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
        peft_adapter(fused, FAMILIES["gpt2"], LORA, base="b")
    for method in ("head", "full", "bottleneck"):
        settings = TransferSettings(method=method)
        with pytest.raises(InputError, match=f"'ia3'; this run's is '{method}'"):
            peft_adapter({"head": fused["head"]}, FAMILIES["llama"], settings, base="b")


def test_dora_has_its_lengths_too():
    dora = TransferSettings(method="dora", rank=2)
    tree = moving("layers/0/attention/query")
    tree["layers"]["0"]["attention"]["query"]["magnitude"] = np.arange(4.0)
    config, tensors = peft_adapter(tree, FAMILIES["llama"], dora, base="b")
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
    config, tensors = peft_adapter(tree, FAMILIES["llama"], ia3, base="b")
    names = ["model.layers.1.mlp.down_proj", "model.layers.1.self_attn.k_proj"]
    assert config["target_modules"] == names
    assert config["feedforward_modules"] == names[:1]
    assert config["peft_type"] == "IA3" and "r" not in config
    shapes = [tensors[f"base_model.model.{name}.ia3_l"].shape for name in names]
    assert shapes == [(1, 5), (3, 1)]
