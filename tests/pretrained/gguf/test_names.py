"""GGUF's names and orders of rows: by hand, and each way undoes the other."""

import numpy as np
import pytest

from tljax.pretrained.gguf.names import (
    ARCHITECTURES,
    check_complete,
    check_shapes,
    deinterleave,
    find_architecture,
    heads_of,
    interleave,
    is_norm,
    to_gguf,
    to_transformers,
)
from tljax.settings import InputError

LLAMA, GEMMA = ARCHITECTURES["llama"], ARCHITECTURES["gemma3"]


def names_of(architecture, layers):
    outer = ["token_embd.weight", "output_norm.weight", "output.weight"]
    return outer + [
        f"blk.{i}.{stem}.weight" for i in range(layers) for stem in architecture.layer
    ]


@pytest.mark.parametrize(
    ("architecture", "name", "theirs"),
    [
        ("llama", "token_embd.weight", "model.embed_tokens.weight"),
        ("llama", "output.weight", "lm_head.weight"),
        ("llama", "output_norm.weight", "model.norm.weight"),
        ("llama", "blk.12.attn_q.weight", "model.layers.12.self_attn.q_proj.weight"),
        ("llama", "blk.0.attn_norm.weight", "model.layers.0.input_layernorm.weight"),
        (
            "llama",
            "blk.0.ffn_norm.weight",
            "model.layers.0.post_attention_layernorm.weight",
        ),
        (
            "gemma3",
            "blk.0.ffn_norm.weight",
            "model.layers.0.pre_feedforward_layernorm.weight",
        ),
        (
            "gemma3",
            "blk.0.post_attention_norm.weight",
            "model.layers.0.post_attention_layernorm.weight",
        ),
        (
            "gemma3",
            "blk.0.post_ffw_norm.weight",
            "model.layers.0.post_feedforward_layernorm.weight",
        ),
        ("qwen2", "blk.3.attn_k.bias", "model.layers.3.self_attn.k_proj.bias"),
        ("qwen3", "blk.3.attn_k_norm.weight", "model.layers.3.self_attn.k_norm.weight"),
    ],
)
def test_a_name_both_ways(architecture, name, theirs):
    assert to_transformers(name, ARCHITECTURES[architecture]) == theirs
    assert to_gguf(theirs, ARCHITECTURES[architecture]) == name


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=lambda a: a.name)
def test_every_name_has_one_counterpart(architecture):
    names = names_of(architecture, 3)
    theirs = [to_transformers(name, architecture) for name in names]
    assert len(set(theirs)) == len(names) and None not in theirs
    assert [to_gguf(name, architecture) for name in theirs] == names


@pytest.mark.parametrize(
    "name",
    [
        "blk.0.ffn_gate_exps.weight",
        "blk.0.attn_q.weight.lora_a",
        "blk.0.attn_q_norm.weight",  # qwen3's
        "blk.00.attn_q.weight",
        "blk.٣.attn_q.weight",  # a digit, but none of ours
        f"blk.{'9' * 5000}.attn_q.weight",
        "blk.0.attn_norm.bias",
        "output.bias",
        "attn_q.weight",
        "",
    ],
)
def test_an_unknown_name_has_none(name):
    assert to_transformers(name, LLAMA) is None


def test_an_unknown_name_of_transformers_has_none():
    assert to_gguf("model.layers.0.mlp.experts.0.w1.weight", LLAMA) is None
    assert to_gguf("model.layers.0.input_layernorm.bias", LLAMA) is None
    assert to_gguf("embed_tokens.weight", LLAMA) is None


def test_rows_of_a_head_by_hand():
    # two heads of width 6: GGUF puts the pair that turns together side by side
    rows = np.arange(12)[:, None] * np.ones((1, 2))
    turned = interleave(rows, 2)
    assert turned[:, 0].tolist() == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]
    np.testing.assert_array_equal(deinterleave(turned, 2), rows)
    assert deinterleave(np.array([0, 2, 1, 3]), 1).tolist() == [0, 1, 2, 3]


def test_which_tensors_have_heads_and_which_are_norms():
    config = {"num_attention_heads": 4, "num_key_value_heads": 2}
    assert heads_of("blk.0.attn_q.bias", config) == 4
    assert heads_of("blk.10.attn_k.weight", config) == 2
    for name in ("blk.0.attn_v.weight", "blk.0.attn_q_norm.weight", "output.weight"):
        assert heads_of(name, config) == 0
    norms = {name for name in names_of(GEMMA, 1) if is_norm(name)}
    assert len(norms) == 7 and "output_norm.weight" in norms


def test_all_of_a_model_must_be_there():
    names = names_of(LLAMA, 2)
    check_complete(names, LLAMA, 2, "file")
    check_complete([one for one in names if one != "output.weight"], LLAMA, 2, "file")
    for given, layers, told in (
        (names, 3, "says 3 layers, the tensors' names 0 to 1;"),
        (names, 4_000_000_000, "says 4000000000 layers"),
        ([one for one in names if ".1." in one], 1, "names 1 to 1 with gaps"),
        ([one for one in names if "blk" not in one], 2, "names none"),
        (
            [one for one in names if "attn_v" not in one],
            2,
            "tensor 'blk.0.attn_v.weight' is missing, and 1 more; a llama has it",
        ),
    ):
        with pytest.raises(InputError, match=f"^file: .*{told}"):
            check_complete(given, LLAMA, layers, "file")
    with pytest.raises(InputError, match="'blk.0.attn_q.bias' is missing, and 5 more"):
        check_complete(names, ARCHITECTURES["qwen2"], 2, "file")


CONFIG = {
    "hidden_size": 8, "intermediate_size": 12, "head_dim": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 20,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("token_embd.weight", (20, 8)),
        ("blk.0.attn_q.weight", (16, 8)),
        ("blk.0.attn_q.bias", (16,)),
        ("blk.0.attn_k.weight", (8, 8)),
        ("blk.0.attn_output.weight", (8, 16)),
        ("blk.0.ffn_down.weight", (8, 12)),
        ("blk.0.ffn_up.bias", (12,)),
        ("blk.0.attn_q_norm.weight", (4,)),
        ("blk.0.post_ffw_norm.weight", (8,)),
    ],
)
def test_a_shape_is_what_the_config_asks_for(name, shape):
    check_shapes({name: shape}, CONFIG, "file")
    wrong = (*shape[:-1], shape[-1] + 1)
    with pytest.raises(InputError, match=f"^file: tensor '{name}' has shape"):
        check_shapes({name: wrong}, CONFIG, "file")


def test_an_unknown_architecture_is_told_the_known_ones():
    assert find_architecture("gemma3", "file") is GEMMA
    assert find_architecture("gemma3_text", "file", of="model_type") is GEMMA
    known = "known: llama, qwen2, qwen3, gemma3$"
    with pytest.raises(InputError, match=f"architecture 'lama' .*'llama'.*{known}"):
        find_architecture("lama", "file")
