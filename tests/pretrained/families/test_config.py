"""config.json by hand: Transformers' defaults where a key is missing, else one line."""

import re

import pytest

from tljax.pretrained.families import FAMILIES, family_of, read_settings
from tljax.settings import InputError

DECODER = {
    "vocab_size": 37, "hidden_size": 64, "num_hidden_layers": 3,
    "num_attention_heads": 32, "intermediate_size": 8, "max_position_embeddings": 64,
}  # fmt: skip
GPT2 = {"vocab_size": 37, "n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 64}

LLAMA3 = {
    "rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4,
    "original_max_position_embeddings": 16,
}  # fmt: skip


def read(family, **changes):
    """Settings of a config.json that says no more than it must."""
    config = GPT2 if family == "gpt2" else DECODER
    return read_settings({"model_type": family, **config, **changes}, "here")


# Transformers 5.23, configuration_FAMILY.py
@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("llama", {"kv_heads": 32, "rope_base": 1e4, "norm_epsilon": 1e-6}),
        ("llama", {"tied": False, "bias": "none", "windows": ()}),
        ("mistral", {"kv_heads": 8, "windows": (4096,) * 3, "rope_base": 1e4}),
        ("qwen2", {"kv_heads": 32, "windows": (), "bias": "qkv", "tied": False}),
        ("qwen3", {"kv_heads": 32, "head_width": 128, "windows": ()}),
        ("gemma3_text", {"kv_heads": 4, "head_width": 256, "tied": True}),
        ("gemma3_text", {"rope_base": 1e6, "rope_local_base": 1e4}),
        ("gemma3_text", {"windows": (4096,) * 3, "attention_scale": 0.0}),
        ("gpt2", {"mlp_width": 32, "norm_epsilon": 1e-5, "tied": True}),
        ("bert", {"norm_epsilon": 1e-12, "token_types": 2, "tied": True}),
    ],
)
def test_a_missing_key_means_what_it_means_to_transformers(family, expected):
    settings = read(family)
    assert {key: getattr(settings, key) for key in expected} == expected


def test_null_is_not_a_missing_key():
    assert read("mistral", sliding_window=None).windows == ()
    assert read("mistral", num_key_value_heads=None).kv_heads == 32
    assert read("qwen2", num_key_value_heads=None).kv_heads == 32


def test_windows_of_upper_layers_without_a_list_of_kinds():
    windows = read("qwen2", use_sliding_window=True, max_window_layers=1).windows
    assert windows == (0, 4096, 4096)
    assert read("gemma3_text", sliding_window_pattern=2).windows == (4096, 0, 4096)


def test_gemmas_two_kinds_of_layer_keep_their_own_base():
    both = {"full_attention": {}, "sliding_attention": {"rope_theta": 7.0}}
    found = read("gemma3_text", rope_parameters=both, rope_theta=5.0)
    assert (found.rope_base, found.rope_local_base) == (5.0, 7.0)
    scaling = {"rope_type": "linear", "factor": 8.0}
    found = read("gemma3_text", rope_scaling=scaling)
    assert (found.rope_base, found.rope_scaling, found.rope_factor) == (
        1e6, "linear", 8.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("family", "changes", "said"),
    [
        (
            "llama",
            {"vocab_size": "320"},
            "has vocab_size='320'; it must be a w",
        ),
        ("llama", {"vocab_size": None}, "config.json has vocab_size=None; it must be"),
        ("llama", {"vocab_size": True}, "config.json has vocab_size=True; it must be"),
        (
            "llama",
            {"vocab_size": 0},
            "has vocab_size=0; it must be a whole",
        ),
        (
            "llama",
            {"rope_parameters": [1]},
            "has rope_parameters=[1]; it must be an",
        ),
        (
            "llama",
            {"rope_scaling": "linear"},
            "has rope_scaling='linear'; it must be",
        ),
        (
            "llama",
            {"rope_theta": None},
            "config.json has rope_theta=None; it must be a",
        ),
        ("llama", {"partial_rotary_factor": 0.5}, "has partial_rotary_factor=0.5; kno"),
        ("llama", {"attention_bias": "yes"}, "attention_bias='yes'; known here: False"),
        ("qwen2", {"layer_types": ["full", "x", "y"]}, "has layer_types='full'; known"),
        ("qwen2", {"layer_types": 3}, "config.json has layer_types=3; it must be a l"),
        ("gemma3_text", {"rope_parameters": {"rope_theta": 1.0}}, "one for each of fu"),
        ("gemma3_text", {"rope_parameters": {"full_attention": 3}}, "full_attention=3"),
        ("gemma3_text", {"layer_types": ["chunked_attention"] * 3}, "known here: 'sli"),
        (
            "gemma3_text",
            {"head_dim": None},
            "in config.json, head_dim is None; it must be",
        ),
        ("bert", {"is_decoder": True}, "has is_decoder=True; known here: False"),
        ("llama", {"rope_theta": "24"}, "has rope_theta='24'; it must be a number"),
        ("llama", {"rope_theta": True}, "has rope_theta=True; it must be a number"),
        ("llama", {"rope_theta": 0.5}, "in config.json, rope_theta is 0.5; it must be"),
        ("llama", {"rope_scaling": LLAMA3}, "low_freq_factor=4.0, which must be less"),
        (
            "llama",
            {"rms_norm_eps": "1"},
            "in config.json, rms_norm_eps is '1'; it must",
        ),
        (
            "llama",
            {"num_attention_heads": 5},
            "hidden_size=64 is not divisible by num_",
        ),
        (
            "llama",
            {"num_attention_heads": 65, "head_dim": 2},
            "num_attention_heads=65 ",
        ),
        ("llama", {"head_dim": 5}, "config.json has head_dim=5; it must be even"),
        ("llama", {"hidden_size": 4}, "in config.json, hidden_size is 4; it must be"),
        (
            "qwen2",
            {"layer_types": ["full_attention"] * 2 + ["sliding_attention"]},
            "use_sliding_window=False, but 'sliding_attention' in layer_types; correct",
        ),
        (
            "gemma3_text",
            {"query_pre_attn_scalar": 0},
            "query_pre_attn_scalar=0; it mus",
        ),
    ],
)
def test_what_a_config_cannot_say_is_one_line(family, changes, said):
    with pytest.raises(InputError, match=f"^here: .*{re.escape(said)}") as error:
        read(family, **changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("value", [0, -1, True, "8", 1.5, 2**31, 10**18])
def test_sizes_are_held_against_a_range_before_anything_is_built(family, value):
    sizes = GPT2 if family == "gpt2" else DECODER
    more = ("head_dim", "num_key_value_heads") if family == "llama" else ()
    for key in (*sizes, *more):
        said = f"here: config.json has {key}={value!r}; it must be a whole number from"
        with pytest.raises(InputError, match=f"^{re.escape(said)}"):
            read(family, **{key: value})
    if family == "mistral" and value:
        with pytest.raises(
            InputError, match="has sliding_window=.*; it must be a whol"
        ):
            read(family, sliding_window=value)


def test_an_unknown_family_is_told_once():
    with pytest.raises(InputError) as error:
        read("lama")
    assert str(error.value).count("here: ") == 1
    with pytest.raises(InputError, match=re.escape(str(error.value))):
        family_of({"model_type": "lama"}, "here")
    with pytest.raises(InputError, match="^here: config.json has no 'vocab_size'$"):
        read_settings({"model_type": "llama"}, "here")
