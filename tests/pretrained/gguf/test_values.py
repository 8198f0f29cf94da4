"""Blocks packed by hand from ggml's definitions, and what comes out of them."""

import struct

import ml_dtypes
import numpy as np
import pytest
from gguf.constants import GGMLQuantizationType

from tljax.pretrained.gguf.names import ARCHITECTURES
from tljax.pretrained.gguf.values import (
    block_bytes,
    dequantized,
    kind_for,
    quantized,
    to_gguf,
    to_transformers,
)
from tljax.settings import InputError

CONFIG = {"num_attention_heads": 2, "num_key_value_heads": 1}
D, M = 0.5, -3.0  # scale and least value of a small block; exact in float16
HALF = struct.pack("<e", D)

# A number for each place, of 32 and of 256, within the bits that a type has; all of
# them occur, and no two places are alike in all types.
FOUR = [(7 * i + i // 16) % 16 for i in range(32)]
FIVE = [(11 * i + i // 16) % 32 for i in range(32)]
EIGHT = [(37 * i) % 255 - 127 for i in range(32)]
FOUR_K = [(5 * i + i // 32) % 16 for i in range(256)]
FIVE_K = [(13 * i + i // 32) % 32 for i in range(256)]
SIX_K = [(29 * i + i // 32) % 64 for i in range(256)]
# of each 32 of a K block: 6-bit scale and least value, of both halves of the range
SCALES = [1, 2, 63, 17, 33, 5, 62, 48]
LEASTS = [0, 63, 1, 32, 40, 2, 61, 16]
SIGNED = [(-1) ** i * (8 * i + 1) for i in range(16)]  # of each 16 of a Q6_K block
D_K, M_K = 0.25, 0.125


def nibbles(numbers):
    """16 bytes: number i in the low half of byte i, number i + 16 in the high."""
    return bytes(numbers[i] % 16 | numbers[i + 16] % 16 << 4 for i in range(16))


def fifth_bits(numbers):
    """4 bytes: bit i is the fifth bit of number i."""
    return struct.pack("<I", sum((one >> 4) << i for i, one in enumerate(numbers)))


def nibbles_k(numbers):
    """128 bytes: of each 64 numbers, the first 32 in the low halves of 32 bytes."""
    return bytes(
        numbers[64 * j + i] % 16 | numbers[64 * j + 32 + i] % 16 << 4
        for j in range(4)
        for i in range(32)
    )


def fifth_bits_k(numbers):
    """32 bytes: bit j of byte i is the fifth bit of number 32 j + i."""
    return bytes(
        sum((numbers[32 * j + i] >> 4) << j for j in range(8)) for i in range(32)
    )


def scales_k():
    """12 bytes of 8 scales and 8 leasts: six low bits of the first four, then nibbles
    of the last four, whose two high bits are the high bits of the first eight bytes."""
    first = [SCALES[j] | (SCALES[j + 4] >> 4) << 6 for j in range(4)]
    second = [LEASTS[j] | (LEASTS[j + 4] >> 4) << 6 for j in range(4)]
    third = [SCALES[j] % 16 | LEASTS[j] % 16 << 4 for j in range(4, 8)]
    return bytes(first + second + third)


def six_bits():
    """192 bytes: low nibbles, then two high bits; of each 128 numbers, four a byte."""
    low, high = [], []
    for half in (SIX_K[:128], SIX_K[128:]):
        quarters = [half[32 * k : 32 * k + 32] for k in range(4)]
        low += [quarters[0][i] % 16 | quarters[2][i] % 16 << 4 for i in range(32)]
        low += [quarters[1][i] % 16 | quarters[3][i] % 16 << 4 for i in range(32)]
        high += [
            sum((quarters[k][i] >> 4) << 2 * k for k in range(4)) for i in range(32)
        ]
    return bytes(low + high)


def of_k(numbers):
    """What 256 numbers of Q4_K or Q5_K mean."""
    return [
        D_K * SCALES[i // 32] * one - M_K * LEASTS[i // 32]
        for i, one in enumerate(numbers)
    ]


K_HEAD = struct.pack("<ee", D_K, M_K) + scales_k()
BLOCKS = {
    "Q8_0": (HALF + struct.pack("32b", *EIGHT), [D * one for one in EIGHT]),
    "Q4_0": (HALF + nibbles(FOUR), [D * (one - 8) for one in FOUR]),
    "Q4_1": (
        HALF + struct.pack("<e", M) + nibbles(FOUR),
        [D * one + M for one in FOUR],
    ),
    "Q5_0": (
        HALF + fifth_bits(FIVE) + nibbles(FIVE),
        [D * (one - 16) for one in FIVE],
    ),
    "Q5_1": (
        HALF + struct.pack("<e", M) + fifth_bits(FIVE) + nibbles(FIVE),
        [D * one + M for one in FIVE],
    ),
    "Q4_K": (K_HEAD + nibbles_k(FOUR_K), of_k(FOUR_K)),
    "Q5_K": (K_HEAD + fifth_bits_k(FIVE_K) + nibbles_k(FIVE_K), of_k(FIVE_K)),
    "Q6_K": (
        six_bits() + struct.pack("16b", *SIGNED) + struct.pack("<e", D_K),
        [D_K * SIGNED[i // 16] * (one - 32) for i, one in enumerate(SIX_K)],
    ),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_by_hand(name):
    packed, values = BLOCKS[name]
    kind = GGMLQuantizationType[name]
    assert len(set(values)) > len(values) // 8
    # two rows: the block, and one whose scale is 0
    raw = np.frombuffer(packed + bytes(len(packed)), np.uint8).reshape(2, -1)
    found = dequantized(raw, kind)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [values, [0.0] * len(values)])
    assert block_bytes((2, len(values)), kind) == raw.size


def test_plain_numbers_keep_their_type():
    values = np.array([[1.5, -2.0], [0.25, 3.0]], np.float32)
    for name, dtype in (
        ("F32", np.float32), ("F16", np.float16), ("BF16", ml_dtypes.bfloat16),
    ):  # fmt: skip
        raw = values.astype(dtype).view(np.uint8).reshape(2, -1)
        found = dequantized(raw, GGMLQuantizationType[name])
        assert found.dtype == dtype
        np.testing.assert_array_equal(found.astype(np.float32), values)


def test_written_types_by_hand():
    # 1 + 2^-9 lies between bfloat16's 1 and 1 + 2^-7: nearest is 1
    values = np.array([1.0, 1 + 2**-9, -2.5], np.float32)
    kinds = {name: GGMLQuantizationType[name] for name in ("F32", "F16", "BF16")}
    assert quantized(values, kinds["F32"], "t").tobytes() == values.tobytes()
    assert quantized(values, kinds["F16"], "t").tobytes() == struct.pack("<3e", *values)
    assert quantized(values, kinds["BF16"], "t").tobytes() == bytes.fromhex(
        "803f 803f 20c0"
    )
    # Q8_0: scale = greatest / 127, here 0.5
    row = np.zeros((1, 32), np.float32)
    row[0, :4] = 63.5, -1.0, 0.7, 0.8
    packed = quantized(row, GGMLQuantizationType.Q8_0, "t").tobytes()
    assert packed == HALF + struct.pack("4b", 127, -2, 1, 2) + bytes(28)


def test_q8_0_is_right_to_half_a_step():
    values = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
    raw = quantized(values, GGMLQuantizationType.Q8_0, "t").reshape(3, -1)
    found = dequantized(raw, GGMLQuantizationType.Q8_0)
    steps = np.abs(values.reshape(3, 2, 32)).max(-1, keepdims=True) / 127
    # the scale itself is rounded to float16: 127 steps of 2^-11 each at most
    errors = np.abs(found - values).reshape(3, 2, 32)
    assert (errors <= steps * (0.5 + 127 * 2**-11)).all()
    assert errors.max() > 0.1 * steps.min()


@pytest.mark.parametrize(
    ("name", "value"),
    [("F16", 1e5), ("Q8_0", 1e7), ("F32", np.inf), ("BF16", np.nan), ("Q8_0", np.nan)],
)
def test_what_a_type_cannot_hold_is_refused(name, value):
    values = np.zeros((1, 32), np.float32)
    values[0, 3] = value
    with pytest.raises(InputError, match=f"^tensor 't' has values up to .*{name}"):
        quantized(values, GGMLQuantizationType[name], "tensor 't'")


def test_vectors_and_odd_rows_have_types_of_their_own():
    assert kind_for((64,), "Q8_0").name == "F32"
    assert kind_for((2, 64), "Q8_0").name == "Q8_0"
    assert kind_for((64, 33), "Q8_0").name == "F16"
    assert kind_for((64, 33), "BF16").name == "BF16"


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma3"])
@pytest.mark.parametrize(
    ("name", "changed_by"),
    [
        ("blk.0.attn_q.weight", "llama"),
        ("blk.0.attn_k.weight", "llama"),
        ("blk.0.attn_v.weight", None),
        ("blk.0.attn_norm.weight", "gemma3"),
        ("blk.0.attn_q_norm.weight", "gemma3"),
        ("output_norm.weight", "gemma3"),
        ("output.weight", None),
    ],
)
def test_values_there_and_back(architecture, name, changed_by):
    # multiples of 1/64: adding and subtracting 1 is exact
    values = np.arange(8, dtype=np.float32)
    values = values / 64 if "norm" in name else values[:, None] * np.ones(3, "f4")
    one = ARCHITECTURES[architecture]
    there = to_gguf(values, name, one, CONFIG)
    assert np.array_equal(there, values) == (architecture != changed_by)
    np.testing.assert_array_equal(to_transformers(there, name, one, CONFIG), values)


def test_changed_values_by_hand():
    llama, gemma = ARCHITECTURES["llama"], ARCHITECTURES["gemma3"]
    bias = np.arange(8, dtype=np.float32)
    assert to_transformers(bias, "blk.0.attn_q.bias", llama, CONFIG).tolist() == [
        0, 2, 1, 3, 4, 6, 5, 7,
    ]  # fmt: skip
    assert to_transformers(bias, "blk.0.attn_k.bias", llama, CONFIG).tolist() == [
        0, 2, 4, 6, 1, 3, 5, 7,
    ]  # fmt: skip
    scale = np.array([1.5, 0.0], ml_dtypes.bfloat16)
    found = to_transformers(scale, "blk.0.post_ffw_norm.weight", gemma, CONFIG)
    assert found.dtype == np.float32 and found.tolist() == [0.5, -1.0]
