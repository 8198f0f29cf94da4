"""LoRA factors under PEFT's names, by hand."""

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
        ("bert", "layers/1/mlp/up", "bert.encoder.layer.1.intermediate.dense"),
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


def test_what_peft_cannot_say_is_refused():
    fused = moving("layers/0/attention/query")
    with pytest.raises(InputError, match=r"part of h\.0\.attn\.c_attn\.weight in gpt2"):
        peft_adapter(fused, FAMILIES["gpt2"], LORA, base="b")
    with pytest.raises(InputError, match="no LoRA factors"):
        peft_adapter({"head": fused["head"]}, FAMILIES["llama"], LORA, base="b")
