"""Attention as accelerators compute it is that of a CPU; who gets which kernel.

No GPU is needed: XLA's implementation stands for cuDNN's, whose calls are only lowered.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.model import attention

SEGMENTS_BL = np.array([[1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 0, 0], [1] + [2] * 11], np.int32)


def draw(heads, seed, length=12, dtype="float32", width=8):
    random = np.random.default_rng(seed)
    return jnp.asarray(random.standard_normal((2, length, heads, width)), dtype)


def values_and_gradients(attend, *arrays, pull):
    found, back = jax.vjp(attend, *arrays)
    return found, *back(pull)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("causal", "window", "before", "packed"),
    [
        (True, 0, 0, True),
        (False, 0, 0, True),
        (True, 3, 0, True),
        (True, 3, 2, True),
        (False, 0, 2, True),
        (True, 0, 0, False),
        (True, 3, 2, False),
    ],
)
def test_the_fused_path_is_the_cpus(monkeypatch, causal, window, before, packed, dtype):
    """Grouped heads, windows, keys before the row, padding; values and gradients."""
    monkeypatch.setattr(attention, "_BLOCK", 4)
    reach = attention.Reach(causal, window, scale=0.3)
    segments_BL = jnp.asarray(SEGMENTS_BL) if packed else None
    q, pull = draw(6, 0, dtype=dtype), draw(6, 3, dtype=dtype)
    k, v = (draw(2, seed, 12 + before, dtype) for seed in (1, 2))

    def of(kernel):
        monkeypatch.setattr(attention, "kernel", lambda *args, flash: kernel)
        attend = functools.partial(
            attention.attend, segments_BL=segments_BL, reach=reach
        )
        run = jax.jit(functools.partial(values_and_gradients, attend))
        return [np.asarray(one, np.float32) for one in run(q, k, v, pull=pull)]

    # of a stored number (2^-24, 2^-8), times a margin for products of 12 terms
    rounding = {"float32": 5e-6, "bfloat16": 3e-2}[dtype]
    for fused, blocks in zip(of("xla"), of("blocks"), strict=True):
        assert np.abs(blocks).max() > 0.1
        assert np.abs(fused - blocks).max() < rounding * np.abs(blocks).max()


@pytest.mark.parametrize(
    ("backend", "capability", "changes", "kernel"),
    [
        ("cpu", 0.0, {}, "blocks"),
        ("tpu", 0.0, {}, "xla"),
        ("gpu", 9.0, {}, "cudnn"),
        ("gpu", 8.0, {}, "cudnn"),
        ("gpu", 7.5, {}, "xla"),
        ("gpu", 0.0, {}, "xla"),
        ("gpu", 9.0, {"dtype": "float32"}, "xla"),
        ("gpu", 9.0, {"width": 12}, "xla"),
        ("gpu", 9.0, {"length": 11}, "xla"),
        ("gpu", 9.0, {"width": 256}, "cudnn"),
        ("gpu", 8.0, {"width": 256}, "xla"),
        ("gpu", 9.0, {"flash": False}, "xla"),
    ],
)
def test_the_kernel_is_one_that_the_device_has(
    monkeypatch, backend, capability, changes, kernel
):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(attention, "cuda_capability", lambda: capability)
    flash = changes.pop("flash", True)
    q = draw(2, 0, **{"dtype": "bfloat16", **changes})
    assert attention.kernel(q, q, flash=flash) == kernel


@pytest.fixture
def cudnn(monkeypatch):
    """Its kernels are chosen, and JAX takes this machine for one that has them."""
    found = "jax._src.cudnn.fused_attention_stablehlo"
    monkeypatch.setattr(f"{found}.check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(f"{found}.check_compute_capability", lambda capability: True)
    monkeypatch.setattr(attention, "kernel", lambda *args, flash: "cudnn")


@pytest.mark.parametrize(
    ("segments_BL", "before", "bias"),
    [(SEGMENTS_BL, 0, True), (None, 0, False), (SEGMENTS_BL, 2, True)],
)
def test_cudnn_takes_what_it_is_given(cudnn, segments_BL, before, bias):
    """Lowered for CUDA here: JAX's own checks, and which kernels would be called."""
    attend = functools.partial(
        attention.attend, segments_BL=segments_BL, reach=attention.Reach(True, 0, 0.3)
    )
    q = draw(6, 0, dtype="bfloat16")
    k = draw(2, 1, 12 + before, "bfloat16")
    run = jax.jit(functools.partial(values_and_gradients, attend, pull=q))
    text = run.trace(q, k, k).lower(lowering_platforms=("cuda",)).as_text()
    called = "fmhaScaleBiasSoftmax" if bias else "fmhaSoftmax"
    assert f"__cudnn${called}" in text and f"__cudnn${called}Backward" in text
    # the hint that skips the upper triangle
    assert ("CAUSAL" in text, "NO_MASK" in text) == (not before, before > 0)


def test_cudnn_would_want_a_mask_a_head_under_vmap(cudnn):
    """Why members under vmap go without (`population.member_model`)."""
    attend = functools.partial(attention.attend, reach=attention.Reach(True, 0, 0.3))
    q_SBQHE = jnp.stack([draw(6, 0, dtype="bfloat16")] * 3)
    with pytest.raises(TypeError, match="cannot reshape"):
        jax.vmap(attend)(q_SBQHE, q_SBQHE, q_SBQHE, np.stack([SEGMENTS_BL] * 3))
