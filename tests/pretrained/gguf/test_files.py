"""GGUF files: what Transformers would have, written and read back, whole or refused."""

import errno
import json
import os
import random

import gguf
import ml_dtypes
import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from tljax.pretrained.gguf import writer
from tljax.pretrained.gguf.config import rope_factors
from tljax.pretrained.gguf.reader import open_gguf
from tljax.pretrained.gguf.writer import write_gguf
from tljax.settings import InputError

BLOCK = {
    "attn_norm": (4,), "ffn_norm": (4,), "attn_q": (4, 4), "attn_k": (2, 4),
    "attn_v": (2, 4), "attn_output": (4, 4), "ffn_gate": (6, 4), "ffn_up": (6, 4),
    "ffn_down": (4, 6),
}  # fmt: skip
METADATA = {
    "llama.block_count": 1, "llama.embedding_length": 4, "llama.context_length": 8,
    "llama.feed_forward_length": 6, "llama.attention.head_count": 2,
    "llama.attention.head_count_kv": 1, "llama.attention.layer_norm_rms_epsilon": 1e-5,
}  # fmt: skip
CONFIG = {
    "model_type": "llama", "hidden_size": 8, "num_hidden_layers": 2,
    "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1,
    "head_dim": 4, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
    "rope_theta": 50_000.0, "rope_scaling": None, "vocab_size": 264,
    "tie_word_embeddings": False, "hidden_act": "silu", "attention_bias": False,
    "mlp_bias": False, "eos_token_id": 258,
}  # fmt: skip
SCALING = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
}  # fmt: skip
CONFIGS = {
    "llama": CONFIG | {"rope_scaling": SCALING, "head_dim": 8, "rope_theta": 1e4},
    "qwen2": {key: one for key, one in CONFIG.items() if not key.endswith("_bias")}
    | {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen3": {key: one for key, one in CONFIG.items() if key != "mlp_bias"}
    | {"model_type": "qwen3", "head_dim": 6},
    "gemma3_text": {
        key: one for key, one in CONFIG.items() if key not in ("mlp_bias", "hidden_act")
    }
    | {
        "model_type": "gemma3_text", "tie_word_embeddings": True,
        "hidden_activation": "gelu_pytorch_tanh", "sliding_window": 16,
        "layer_types": ["sliding_attention"] * 2, "rope_local_base_freq": 1e4,
        "query_pre_attn_scalar": 4,
    },
}  # fmt: skip
TEXTS = [
    "it's a naïve café — “quoted” 日本語 😀",
    "def f(x):\n\treturn x[12] ** 2  # a\n\n",
    "  12 a   a1234 3.14 ½ <|end|>",
    "",
]
NAMED = {"eos_token": "<|end|>", "chat_template": "{{ messages }}"}


def tiny_tokenizer():
    """Text of a tokenizer.json: all bytes, two merges, one special token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "a"), ("1", "2")]
    vocab = [*alphabet, *map("".join, merges)]
    made = tokenizers.Tokenizer(
        models.BPE(vocab={token: i for i, token in enumerate(vocab)}, merges=merges)
    )
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<|end|>"])
    return made.to_str()


def tensors_of(config, seed=0):
    """Transformers' names and values of a config, multiples of 1/64."""
    width, inner, head = (
        config[key] for key in ("hidden_size", "intermediate_size", "head_dim")
    )
    rows = {
        "q": config["num_attention_heads"] * head,
        "k": config["num_key_value_heads"] * head,
    }
    rows["v"] = rows["k"]
    kind = config["model_type"]
    layer = {"input_layernorm": (width,), "post_attention_layernorm": (width,)}
    layer |= {f"self_attn.{one}_proj": (rows[one], width) for one in "qkv"}
    layer |= {"self_attn.o_proj": (width, rows["q"]), "mlp.down_proj": (width, inner)}
    layer |= {f"mlp.{one}_proj": (inner, width) for one in ("gate", "up")}
    if kind in ("qwen3", "gemma3_text"):
        layer |= {f"self_attn.{one}_norm": (head,) for one in "qk"}
    if kind == "gemma3_text":
        layer |= {f"{one}_feedforward_layernorm": (width,) for one in ("pre", "post")}
    shapes = {
        "model.embed_tokens.weight": (config["vocab_size"], width),
        "model.norm.weight": (width,),
    }
    for i in range(config["num_hidden_layers"]):
        shapes |= {f"model.layers.{i}.{name}.weight": layer[name] for name in layer}
        if kind == "qwen2":
            shapes |= {
                f"model.layers.{i}.self_attn.{one}_proj.bias": (rows[one],)
                for one in "qkv"
            }
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], width)
    draw = np.random.default_rng(seed)
    return {
        name: draw.integers(-128, 128, shape).astype(np.float32) / 64
        for name, shape in shapes.items()
    }


def write_theirs(path, metadata=METADATA, raw=None, architecture="llama", **shapes):
    """A file as llama.cpp would write it: each tensor 0 1 2 3 ..., in float32.

    raw: name -> (bytes as an array, type) of tensors that are stored otherwise.
    """
    writer = gguf.GGUFWriter(path, architecture)
    add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string,
           list: writer.add_array}  # fmt: skip
    for key, value in metadata.items():
        if value is not None:
            add[type(value)](key, value)
    named = {f"blk.0.{stem}.weight": shape for stem, shape in BLOCK.items()}
    named |= {"token_embd.weight": (5, 4), "output_norm.weight": (4,)}
    for name, shape in (named | shapes).items():
        if raw and name in raw:
            data, kind = raw[name]
            writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType[kind])
        elif shape:
            values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def refusal(path):
    with pytest.raises(InputError) as error:
        open_gguf(path)
    line = str(error.value)
    assert str(path) in line and "\n" not in line
    return line


def test_a_llama_of_llama_cpp_by_hand(tmp_path):
    checkpoint = open_gguf(write_theirs(tmp_path / "model.gguf"))

    assert checkpoint.where == str(tmp_path / "model.gguf")
    assert checkpoint.config == {
        "model_type": "llama",
        "hidden_size": 4,
        "num_hidden_layers": 1,
        "intermediate_size": 6,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 2,
        "max_position_embeddings": 8,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "rope_scaling": None,
        "vocab_size": 5,
        "tie_word_embeddings": True,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
    }
    assert (checkpoint.tokenizer_json, checkpoint.tokenizer_config) == (None, {})
    shapes = {name: one.shape for name, one in checkpoint.tensors.items()}
    layer = "model.layers.0."
    assert shapes == {
        "model.embed_tokens.weight": (5, 4),
        "model.norm.weight": (4,),
        layer + "input_layernorm.weight": (4,),
        layer + "post_attention_layernorm.weight": (4,),
        layer + "self_attn.q_proj.weight": (4, 4),
        layer + "self_attn.k_proj.weight": (2, 4),
        layer + "self_attn.v_proj.weight": (2, 4),
        layer + "self_attn.o_proj.weight": (4, 4),
        layer + "mlp.gate_proj.weight": (6, 4),
        layer + "mlp.up_proj.weight": (6, 4),
        layer + "mlp.down_proj.weight": (4, 6),
    }
    for one in checkpoint.tensors.values():
        values = one.read()
        assert (values.shape, values.dtype, one.stored) == (
            one.shape,
            np.float32,
            "F32",
        )
    norm = checkpoint.tensors[layer + "input_layernorm.weight"].read()
    assert norm.tolist() == [0, 1, 2, 3]


def test_query_and_key_rows_come_in_transformers_order(tmp_path):
    # one key head of width 4, whose rows GGUF has as 0 2 1 3
    shapes = {"blk.0.attn_q.weight": (8, 4), "blk.0.attn_k.weight": (4, 4),
              "blk.0.attn_v.weight": (4, 4), "blk.0.attn_output.weight": (4, 8),
              "blk.0.attn_q.bias": (8,)}  # fmt: skip
    metadata = METADATA | {"llama.attention.key_length": 4}
    opened = open_gguf(write_theirs(tmp_path / "model.gguf", metadata, **shapes))
    first_column = {
        name: opened.tensors[f"model.layers.0.self_attn.{name}"].read().T.reshape(-1)
        for name in ("k_proj.weight", "v_proj.weight", "q_proj.bias")
    }
    assert first_column["k_proj.weight"][:4].tolist() == [0, 8, 4, 12]
    assert first_column["v_proj.weight"][:4].tolist() == [0, 4, 8, 12]
    assert first_column["q_proj.bias"].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert opened.config["attention_bias"] is True


def test_a_quantised_matrix_is_read_as_float32(tmp_path):
    # two blocks of Q4_1: 0.5 q - 1 with q = 0 ... 15 in low and high halves alike
    block = np.array([0.5, -1.0], "<f2").tobytes() + bytes(17 * i for i in range(16))
    down = np.frombuffer(block * 4, np.uint8).reshape(4, 20)
    shapes = {"blk.0.ffn_gate.weight": (32, 4), "blk.0.ffn_up.weight": (32, 4)}
    path = write_theirs(
        tmp_path / "model.gguf",
        METADATA | {"llama.feed_forward_length": 32},
        {"blk.0.ffn_down.weight": (down, "Q4_1")},
        **shapes,
    )
    one = open_gguf(path).tensors["model.layers.0.mlp.down_proj.weight"]
    assert (one.stored, one.shape) == ("Q4_1", (4, 32))
    row = [0.5 * q - 1 for q in range(16)] * 2
    assert one.read().tolist() == [row] * 4
    assert one.read().dtype == np.float32


def test_half_types_stay_what_they_are(tmp_path):
    values = np.arange(20).reshape(5, 4) / 4
    for kind, dtype in (("F16", np.float16), ("BF16", ml_dtypes.bfloat16)):
        data = values.astype(dtype).view(np.uint16)
        path = write_theirs(
            tmp_path / f"{kind}.gguf", METADATA, {"token_embd.weight": (data, kind)}
        )
        one = open_gguf(path).tensors["model.embed_tokens.weight"]
        assert (one.stored, one.shape, one.read().dtype) == (kind, (5, 4), dtype)
        np.testing.assert_array_equal(one.read().astype(np.float64), values)


def test_opening_reads_no_tensor(tmp_path):
    path = write_theirs(tmp_path / "model.gguf")
    opened = open_gguf(path)
    with path.open("r+b") as file:  # the last tensor, output_norm
        file.seek(-32, os.SEEK_END)
        file.write(np.array([9, 8, 7, 6], "<f4").tobytes())
    assert opened.tensors["model.norm.weight"].read().tolist() == [9, 8, 7, 6]


@pytest.mark.parametrize(
    ("metadata", "shapes", "told"),
    [
        ({"split.count": 3}, {}, "is one of 3 parts"),
        ({"llama.block_count": 2}, {}, "says 2 layers, the tensors' names 0 to 0"),
        ({"llama.block_count": 2**32 - 1}, {}, "says 4294967295 layers"),
        ({"llama.context_length": None}, {}, "'llama.context_length' is missing"),
        ({"llama.attention.head_count": 3}, {}, "should have (3, 4)"),
        (
            {},
            {"blk.0.attn_v.weight": None},
            "'blk.0.attn_v.weight' is missing; a llama",
        ),
        ({}, {"blk.0.ffn_up.weight": (5, 4)}, "shape (5, 4); by the config it should"),
        (
            {},
            {"blk.0.ffn_gate_inp.weight": (4, 4)},
            "'blk.0.ffn_gate_inp.weight' is no",
        ),
        ({}, {"rope_freqs.weight": (1,)}, "'rope_freqs.weight' holds other factors"),
        ({"tokenizer.ggml.model": "rwkv"}, {}, "tokenizer.ggml.model is 'rwkv'; known"),
    ],
)
def test_refused(tmp_path, metadata, shapes, told):
    path = write_theirs(tmp_path / "model.gguf", METADATA | metadata, **shapes)
    assert told in refusal(path)


def test_an_unknown_architecture_is_refused(tmp_path):
    path = write_theirs(tmp_path / "model.gguf", architecture="mamba")
    line = refusal(path)
    assert "architecture 'mamba' is none that is known here" in line
    assert line.endswith("known: llama, qwen2, qwen3, gemma3")


def test_an_unknown_type_is_refused_when_opened(tmp_path):
    data = np.zeros((5, 84), np.uint8)
    path = write_theirs(
        tmp_path / "model.gguf", METADATA, {"token_embd.weight": (data, "Q2_K")}
    )
    assert "tensor 'token_embd.weight' is of type Q2_K; known here: F32" in refusal(
        path
    )


@pytest.fixture
def written(tmp_path):
    """written(kind of model, type, **changes of config) -> path."""

    def write(kind="llama", stored="F32", **changes):
        config = CONFIGS[kind] | changes
        path = tmp_path / f"{kind}-{stored}.gguf"
        tensors = tensors_of(config)
        write_gguf(path, config, tensors, tiny_tokenizer(), NAMED, stored)
        return path

    return write


@pytest.mark.parametrize("kind", CONFIGS)
def test_what_is_written_is_read(written, kind):
    opened = open_gguf(written(kind))

    assert opened.config == CONFIGS[kind]
    tensors = tensors_of(CONFIGS[kind])
    assert set(opened.tensors) == set(tensors)
    for name, values in tensors.items():
        np.testing.assert_array_equal(opened.tensors[name].read(), values, name)
    before = tokenizers.Tokenizer.from_str(tiny_tokenizer())
    after = tokenizers.Tokenizer.from_str(opened.tokenizer_json)
    for text in TEXTS:
        assert after.encode(text).ids == before.encode(text).ids
        assert after.decode(after.encode(text).ids) == text.replace("<|end|>", "")
    assert opened.tokenizer_config == NAMED | {"add_bos_token": False}


def test_the_file_holds_values_as_llama_cpp_has_them(written):
    reader = gguf.GGUFReader(written("llama"))
    held = {one.name: one.data for one in reader.tensors}
    tensors = tensors_of(CONFIGS["llama"])
    np.testing.assert_array_equal(
        held["rope_freqs.weight"], rope_factors(CONFIGS["llama"])
    )
    q = tensors["model.layers.1.self_attn.q_proj.weight"]  # two heads of 8 rows
    order = [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15]
    np.testing.assert_array_equal(held["blk.1.attn_q.weight"], q[order])
    np.testing.assert_array_equal(
        held["blk.1.attn_v.weight"], tensors["model.layers.1.self_attn.v_proj.weight"]
    )
    assert reader.fields["llama.vocab_size"].contents() == 264
    assert reader.fields["general.file_type"].contents() == 0
    assert reader.fields["tokenizer.ggml.eos_token_id"].contents() == 258
    norm = "model.layers.0.input_layernorm.weight"
    gemma = gguf.GGUFReader(written("gemma3_text"))
    held = {one.name: one.data for one in gemma.tensors}
    expected = tensors_of(CONFIGS["gemma3_text"])[norm] + 1
    np.testing.assert_array_equal(held["blk.0.attn_norm.weight"], expected)


@pytest.mark.parametrize(
    ("stored", "matrix", "odd", "dtype"),
    [
        ("F16", "F16", "F16", np.float16),
        ("BF16", "BF16", "BF16", ml_dtypes.bfloat16),
        ("Q8_0", "Q8_0", "F16", np.float32),
    ],
)
def test_matrices_have_the_type_asked_for(written, stored, matrix, odd, dtype):
    opened = open_gguf(written("llama", stored))
    tensors = tensors_of(CONFIGS["llama"])
    down = "model.layers.0.mlp.down_proj.weight"  # rows of 32
    kinds = {name: one.stored for name, one in opened.tensors.items()}
    assert kinds[down] == matrix
    assert kinds["model.embed_tokens.weight"] == odd  # rows of 8
    assert kinds["model.layers.0.input_layernorm.weight"] == "F32"
    assert opened.tensors[down].read().dtype == dtype
    # Q8_0's step: the greatest, under 2, by 127; half of it, and the scale's rounding
    tolerance = 2 / 127 * (0.5 + 127 * 2**-11) if stored == "Q8_0" else 0
    for name, values in tensors.items():
        found = opened.tensors[name].read().astype(np.float32)
        # multiples of 1/64 below 2 have 7 bits: all types but Q8_0 hold them
        near = tolerance if kinds[name] == "Q8_0" else 0
        np.testing.assert_allclose(found, values, rtol=0, atol=near, err_msg=name)


def test_bfloat16_values_are_taken_as_they_are(tmp_path):
    config = CONFIGS["qwen2"]
    tensors = {
        name: one.astype(ml_dtypes.bfloat16) for name, one in tensors_of(config).items()
    }
    write_gguf(tmp_path / "model.gguf", config, tensors, None, {}, "BF16")
    opened = open_gguf(tmp_path / "model.gguf")
    for name, values in tensors.items():
        found = opened.tensors[name].read()
        assert found.astype(np.float32).tobytes() == values.astype("f4").tobytes()
    assert opened.tokenizer_json is None


def test_a_tied_output_is_not_written_twice(tmp_path):
    config = CONFIGS["qwen2"]
    tensors = tensors_of(config)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    write_gguf(tmp_path / "model.gguf", config, tensors, None, {}, "F32")
    opened = open_gguf(tmp_path / "model.gguf")
    assert "lm_head.weight" not in opened.tensors
    assert opened.config["tie_word_embeddings"] is True


@pytest.mark.parametrize(
    ("config", "tensors", "stored", "told"),
    [
        ({}, {}, "Q4_0", "F32, F16, BF16, Q8_0, not 'Q4_0'"),
        ({"model_type": "bert"}, {}, "F32", "model_type 'bert' is none .* gemma3_text"),
        ({"hidden_act": "gelu"}, {}, "F32", "hidden_act='gelu'"),
        (
            {"num_hidden_layers": 3},
            {},
            "F32",
            "says 3 layers, the tensors' names 0 to 1",
        ),
        ({"max_position_embeddings": 2**40}, {}, "F32", "a GGUF holds from 0 to 42949"),
        ({"rms_norm_eps": 1e300}, {}, "F32", "a GGUF holds what float32 can"),
        ({}, {"model.norm.weight": None}, "F32", "'output_norm.weight' is missing"),
        ({}, {"lm_head.weight": None}, "F32", "has no 'lm_head.weight'"),
        (
            {},
            {"model.rotary.weight": np.ones(1)},
            "F32",
            "'model.rotary.weight' is none",
        ),
        ({}, {"model.norm.weight": np.ones(7)}, "F32", r"has shape \(7,\)"),
        (
            {},
            {"lm_head.weight": np.full((264, 8), 1e5)},
            "F16",
            "tensor 'output.weight' has values up to 100000, which F16 cannot hold",
        ),
    ],
)
def test_what_cannot_be_written_leaves_what_was_there(
    tmp_path, config, tensors, stored, told
):
    path = tmp_path / "model.gguf"
    path.write_text("the old file")
    given = {
        name: values
        for name, values in (tensors_of(CONFIG) | tensors).items()
        if values is not None
    }
    with pytest.raises(InputError, match=told) as error:
        write_gguf(path, CONFIG | config, given, tiny_tokenizer(), NAMED, stored)
    assert "\n" not in str(error.value)
    assert path.read_text() == "the old file"
    assert os.listdir(tmp_path) == ["model.gguf"]


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "model.gguf"
    path.write_text("the old file")

    def full(number):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(writer.os, "fsync", full)
    with pytest.raises(InputError, match="cannot write .*: No space left on device; m"):
        write_gguf(path, CONFIG, tensors_of(CONFIG), None, {}, "F32")
    assert path.read_text() == "the old file"
    assert os.listdir(tmp_path) == ["model.gguf"]


def test_a_folder_is_made_but_not_of_a_file(tmp_path):
    path = tmp_path / "new" / "model.gguf"
    write_gguf(path, CONFIG, tensors_of(CONFIG), None, {}, "F32")
    assert os.listdir(path.parent) == ["model.gguf"]
    with pytest.raises(InputError, match="cannot write .*File exists"):
        write_gguf(path / "model.gguf", CONFIG, tensors_of(CONFIG), None, {}, "F32")


def damage(data, draw):
    """A few bytes of the header replaced: by others, by extremes, by neighbours."""
    data = bytearray(data)
    for _ in range(draw.choice([1, 1, 2, 8])):
        place = draw.randrange(len(data))
        data[place] = draw.choice([0, 1, 255, data[place] ^ 128, draw.randrange(256)])
    return bytes(data)


def test_damage_is_refused_in_one_line_or_does_no_harm(tmp_path):
    """Headers of a llama with a tokenizer and of a gemma, cut and damaged by chance."""
    tokenizer = json.loads(tiny_tokenizer())
    keep = list(tokenizer["model"]["vocab"])[:3] + ["Ġ", "a", "Ġa"]
    tokenizer["model"] |= {
        "vocab": {token: i for i, token in enumerate(keep)}, "merges": [["Ġ", "a"]],
    }  # fmt: skip
    tokenizer["added_tokens"][0]["id"] = len(keep)
    small = {"vocab_size": 8, "num_hidden_layers": 1, "eos_token_id": 6}
    gemma = {"layer_types": ["sliding_attention"]}
    draw, opened, lines = random.Random(0), 0, []
    for kind, changes in (("llama", {}), ("gemma3_text", gemma)):
        config = CONFIGS[kind] | small | changes
        path = tmp_path / f"{kind}.gguf"
        text = json.dumps(tokenizer)
        write_gguf(path, config, tensors_of(config), text, NAMED, "Q8_0")
        whole = path.read_bytes()
        end = whole.index(b"blk.0.ffn_down.weight") + 60
        cuts = [whole[:n] for n in range(0, len(whole), 29)]
        damaged = [damage(whole[:end], draw) + whole[end:] for _ in range(250)]
        for data in cuts + damaged:
            path.write_bytes(data)
            try:
                checkpoint = open_gguf(path)
                for one in checkpoint.tensors.values():
                    assert one.read().shape == one.shape
                opened += 1
            except InputError as error:
                lines.append(str(error))
    assert opened > 50 and len(lines) > 300
    assert all(str(tmp_path) in line and "\n" not in line for line in lines)
