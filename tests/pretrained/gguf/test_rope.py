"""Slowed angles: the numbers by hand, and what made them found again."""

import math

import numpy as np
import pytest

from tljax.pretrained.gguf.header import Header
from tljax.pretrained.gguf.rope import decimal, llama3_factors, read_scaling
from tljax.settings import InputError

LLAMA_32 = {
    "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
}  # fmt: skip


def read(metadata, factors=None, *, theta=500_000.0, head_dim=64):
    return read_scaling(Header("file", metadata, {}), "llama", theta, head_dim, factors)


@pytest.mark.parametrize(
    ("waves_in_context", "factor"),
    # between 1 and 4 waves a line in the turning: 2.5 is half way, so the pair turns
    # 1/2 * 1/8 + 1/2 = 9/16 of what it did
    [(100.0, 1.0), (4.0, 1.0), (2.5, 16 / 9), (1.0, 8.0), (0.1, 8.0)],
)
def test_a_factor_by_hand(waves_in_context, factor):
    # of a head of 4, the second pair turns 1 / sqrt(theta) radians a position
    theta = (8192 / (2 * math.pi * waves_in_context)) ** 2
    factors = llama3_factors(theta, 4, LLAMA_32 | {"factor": 8.0})
    np.testing.assert_allclose(factors, [1.0, factor], rtol=1e-6)
    assert factors.dtype == np.float32


@pytest.mark.parametrize(
    ("theta", "head_dim", "changes"),
    [
        (500_000.0, 64, {}),
        (500_000.0, 128, {"factor": 8.0}),
        (10_000.0, 8, {"factor": 8.0}),  # the slowest pair lies between
    ],
)
def test_llama_3s_numbers_are_found_again(theta, head_dim, changes):
    made_by = LLAMA_32 | changes
    factors = llama3_factors(theta, head_dim, made_by)
    assert factors.max() > 1.0
    assert read({}, factors, theta=theta, head_dim=head_dim) == made_by
    # another's arithmetic: one unit of float32's last place
    near = np.nextafter(factors, np.float32(0))
    assert read({}, near, theta=theta, head_dim=head_dim) == made_by


def test_other_numbers_are_found_where_the_metadata_tells_them():
    made_by = LLAMA_32 | {
        "low_freq_factor": 0.5, "high_freq_factor": 3.0,
        "original_max_position_embeddings": 4096,
    }  # fmt: skip
    factors = llama3_factors(500_000.0, 64, made_by)
    with pytest.raises(InputError, match="'rope_freqs.weight' holds other factors"):
        read({}, factors)
    told = {
        "llama.rope.scaling.low_freq_factor": 0.5,
        "llama.rope.scaling.high_freq_factor": 3.0,
        "llama.rope.scaling.original_context_length": 4096,
    }
    assert read(told, factors) == made_by


@pytest.mark.parametrize(
    "spoil",
    [
        lambda f: f * np.where(np.arange(len(f)) == 14, 1.01, 1.0),
        lambda f: f[:-1],
        lambda f: np.append(f[:-1], np.nan),
        lambda f: np.append(f[:-1], 0),
        lambda f: f[::-1],
        lambda f: np.full(len(f), 8.0),
    ],
)
def test_factors_that_llama_3_does_not_have_are_refused(spoil):
    factors = spoil(llama3_factors(500_000.0, 64, LLAMA_32)).astype(np.float32)
    with pytest.raises(InputError, match="^file: tensor 'rope_freqs.weight' holds"):
        read({}, factors)


def test_factors_of_one_say_nothing():
    assert read({}, np.ones(32, np.float32)) is None
    assert read({}) is None


def test_linear_scaling():
    linear = {"rope_type": "linear", "factor": 8.0}
    kind, factor = "llama.rope.scaling.type", "llama.rope.scaling.factor"
    assert read({kind: "linear", factor: 8.0}) == linear
    assert read({factor: 8.0}) == linear  # llama.cpp's default
    assert read({"llama.rope.scale_linear": 8.0}) == linear  # older files
    assert read({kind: "none", factor: 8.0}) is None
    assert read({kind: "linear", factor: 1.0}) is None
    assert read({factor: 0.0}) is None  # llama.cpp: none


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({"llama.rope.scaling.type": "yarn"}, "'yarn'; known here: none, linear"),
        ({"llama.rope.scaling.factor": math.nan}, "scaled by nan"),
        ({"llama.rope.scaling.factor": -2.0}, "scaled by -2.0"),
    ],
)
def test_other_scalings_are_refused(metadata, told):
    with pytest.raises(InputError, match=told):
        read(metadata)


def test_both_scalings_at_once_are_refused():
    factors = llama3_factors(500_000.0, 64, LLAMA_32)
    with pytest.raises(InputError, match="rope_freqs.weight"):
        read({"llama.rope.scaling.factor": 8.0}, factors)


def test_a_float32_is_told_in_few_digits():
    assert float(np.float32(1e-5)) != 1e-5
    assert decimal(float(np.float32(1e-5))) == 1e-5
    assert decimal(500_000.0) == 500_000.0
