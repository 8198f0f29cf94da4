"""GGUF's metadata and config.json: both by hand, and each made from the other."""

import numpy as np
import pytest

from tljax.pretrained.gguf.config import (
    layers_of,
    read_config,
    rope_factors,
    write_config,
)
from tljax.pretrained.gguf.header import Header, Stored
from tljax.pretrained.gguf.names import ARCHITECTURES
from tljax.settings import InputError

METADATA = {
    "block_count": 2,
    "embedding_length": 8,
    "feed_forward_length": 12,
    "context_length": 64,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    "attention.layer_norm_rms_epsilon": float(np.float32(1e-5)),
    "rope.freq_base": 50_000.0,
}
LLAMA = {
    "model_type": "llama",
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "intermediate_size": 12,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 50_000.0,
    "rope_scaling": None,
    "vocab_size": 20,
    "tie_word_embeddings": True,
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
}
QWEN2 = {
    key: value
    for key, value in (LLAMA | {"model_type": "qwen2"}).items()
    if not key.endswith("_bias")
}
QWEN3 = QWEN2 | {"model_type": "qwen3", "attention_bias": False, "head_dim": 16}
GEMMA = {
    key: value for key, value in (QWEN3 | {"num_hidden_layers": 7}).items()
    if key != "hidden_act"
} | {
    "model_type": "gemma3_text",
    "hidden_activation": "gelu_pytorch_tanh",
    "sliding_window": 16,
    "layer_types": ["sliding_attention"] * 5 + ["full_attention", "sliding_attention"],
    "rope_local_base_freq": 10_000.0,
    "query_pre_attn_scalar": 16,
}  # fmt: skip
CONFIGS = {"llama": LLAMA, "qwen2": QWEN2, "qwen3": QWEN3, "gemma3": GEMMA}


def header(architecture, metadata, *names):
    tensors = {
        name: Stored("file", (20, 8), None, 0) for name in ("token_embd.weight", *names)
    }
    metadata = {
        key if key.startswith("tokenizer") else f"{architecture}.{key}": value
        for key, value in metadata.items()
        if value is not None
    }
    return Header("file", metadata, tensors)


def read(architecture, metadata, *names, factors=None):
    one = ARCHITECTURES[architecture]
    return read_config(header(architecture, metadata, *names), one, factors)


def written(config):
    """Metadata of a config, without the architecture's name."""
    one = next(
        a for a in ARCHITECTURES.values() if a.model_type == config["model_type"]
    )
    metadata = write_config(config, one)
    assert all(key.startswith(one.name + ".") for key in metadata)
    return one.name, {key.split(".", 1)[1]: v for key, v in metadata.items()}


def test_a_llama_by_hand():
    assert read("llama", METADATA) == LLAMA
    assert layers_of(header("llama", METADATA), ARCHITECTURES["llama"]) == 2


def test_what_the_tensors_say():
    config = read("llama", METADATA, "output.weight", "blk.0.ffn_up.bias")
    assert config["tie_word_embeddings"] is False
    assert (config["mlp_bias"], config["attention_bias"]) == (True, False)
    config = read("qwen3", METADATA, "blk.1.attn_q.bias")
    assert config["attention_bias"] is True


def test_what_may_be_left_out():
    without = {"attention.head_count_kv": None, "rope.freq_base": None}
    config = read("llama", METADATA | without)
    assert config["num_key_value_heads"] == 4
    assert config["rope_theta"] == 10_000.0


def test_ids_of_the_tokenizer():
    ids = {"tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2}
    config = read("llama", METADATA | ids)
    assert (config["bos_token_id"], config["eos_token_id"]) == (1, 2)
    for turn, ends in ((2, 2), (5, [2, 5])):
        told = METADATA | ids | {"tokenizer.ggml.eot_token_id": turn}
        assert read("llama", told)["eos_token_id"] == ends


def test_a_gemma_by_hand():
    metadata = METADATA | {
        "block_count": 7, "attention.key_length": 16, "attention.value_length": 16,
        "attention.sliding_window": 16,
    }  # fmt: skip
    assert read("gemma3", metadata) == GEMMA


def test_27b_has_a_scale_of_its_own():
    metadata = METADATA | {
        "block_count": 62, "attention.key_length": 16, "attention.sliding_window": 16,
    }  # fmt: skip
    assert read("gemma3", metadata)["query_pre_attn_scalar"] == 2  # 8 / 4 heads


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_survives_its_metadata(name):
    architecture, metadata = written(CONFIGS[name])
    assert architecture == name
    assert read(name, metadata) == CONFIGS[name]


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_scaling": {"rope_type": "linear", "factor": 8.0}},
        {"sliding_window": 512, "rope_local_base_freq": 5_000.0},
        {"layer_types": ["sliding_attention", "full_attention"] * 3
                        + ["sliding_attention"]},
        {"layer_types": ["full_attention"] * 7},
        {"layer_types": ["sliding_attention"] * 7},
        {"num_hidden_layers": 62, "query_pre_attn_scalar": 2,
         "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 10
                        + ["sliding_attention"] * 2},
    ],
)  # fmt: skip
def test_a_changed_gemma_survives_its_metadata(changes):
    config = GEMMA | changes
    _, metadata = written(config)
    assert metadata != written(GEMMA)[1]
    assert read("gemma3", metadata) == config


def test_llama_3s_scaling_survives_as_factors():
    scaling = {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
    }  # fmt: skip
    config = LLAMA | {"head_dim": 8, "rope_theta": 1e4, "rope_scaling": scaling}
    assert rope_factors(LLAMA) is None
    factors = rope_factors(config)
    assert factors.shape == (4,) and factors[0] == 1 < factors[-1] < 8
    _, metadata = written(config)
    assert read("llama", metadata, factors=factors) == config


def test_transformers_5_says_the_same_in_other_words():
    rope = {"rope_theta": 50_000.0, "rope_type": "linear", "factor": 4.0}
    older = {"rope_scaling": {"type": "linear", "factor": 4.0}}
    newer = {key: value for key, value in LLAMA.items() if not key.startswith("rope")}
    newer |= {"rope_parameters": rope}
    assert written(newer) == written(LLAMA | older)
    both = {
        "full_attention": rope,
        "sliding_attention": {"rope_theta": 10_000.0, "rope_type": "default"},
    }
    newer = {key: value for key, value in GEMMA.items() if not key.startswith("rope")}
    assert written(newer | {"rope_parameters": both}) == written(GEMMA | older)


def test_an_older_config_leaves_the_head_to_be_worked_out():
    config = {key: value for key, value in LLAMA.items() if key != "head_dim"}
    assert written(config) == written(LLAMA)


@pytest.mark.parametrize(
    ("architecture", "metadata", "told"),
    [
        (
            "llama",
            {"embedding_length": None},
            "key 'llama.embedding_length' is missing",
        ),
        ("llama", {"block_count": 0}, "'llama.block_count' is 0; more than 0"),
        ("llama", {"attention.head_count": [2, 2]}, "must be a whole number"),
        ("llama", {"attention.layer_norm_rms_epsilon": float("nan")}, "is nan; more"),
        ("llama", {"rope.dimension_count": 1}, "'llama.rope.dimension_count' is 1, a"),
        ("qwen3", {"attention.value_length": 4}, "attention.value_length' is 4"),
        ("llama", {"vocab_size": 7}, "vocab_size' is 7, but .* has 20 rows; convert"),
        ("qwen2", {"rope.scaling.type": "longrope"}, "known here: none, linear"),
        ("gemma3", {}, "'gemma3.attention.sliding_window' is missing"),
        (
            "gemma3",
            {"attention.sliding_window": 16, "final_logit_softcapping": 30.0},
            "softcapping' is 30.0; logits are not capped here",
        ),
        (
            "gemma3",
            {"attention.sliding_window": 16, "attention.sliding_window_pattern": 0},
            "sliding_window_pattern' is 0",
        ),
    ],
)
def test_metadata_that_is_refused(architecture, metadata, told):
    with pytest.raises(InputError, match=f"^file: .*{told}"):
        read(architecture, METADATA | metadata)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (
            LLAMA | {"hidden_size": None},
            "hidden_size=None; a GGUF needs a whole number",
        ),
        (LLAMA | {"rms_norm_eps": "small"}, "rms_norm_eps='small'; a GGUF needs a num"),
        (
            LLAMA | {"hidden_act": "gelu"},
            "hidden_act='gelu'; a GGUF can say only 'silu'",
        ),
        (LLAMA | {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "'yarn'"),
        (LLAMA | {"rope_scaling": {"rope_type": "linear"}}, "factor=None"),
        (QWEN2 | {"use_sliding_window": True}, "can say only full attention"),
        (QWEN3 | {"layer_types": ["full_attention", "sliding_attention"]}, "only full"),
        (
            GEMMA | {"query_pre_attn_scalar": 24},
            "query_pre_attn_scalar=24.0; .* only 16",
        ),
        (GEMMA | {"final_logit_softcapping": 30.0}, "can say only none"),
        (GEMMA | {"use_bidirectional_attention": True}, "can say only False"),
        (GEMMA | {"sliding_window": None}, "sliding_window=None"),
        (
            GEMMA | {"layer_types": ["full_attention"] * 6 + ["sliding_attention"]},
            "can say only every n-th 'full_attention'",
        ),
    ],
)
def test_a_config_that_gguf_cannot_say(config, told):
    with pytest.raises(InputError, match=f"^config.json has .*{told}"):
        written(config)
