"""Strictness for every test: eight CPU devices, rank promotion raises, no real cache.

All of it is set through the environment before anything imports JAX, so that tests of
rooms without JAX need not import it; warnings are made errors in pyproject.toml.
"""

import os
import shutil
import sys
import tempfile

import pytest

DEVICES = 8
CACHE = tempfile.mkdtemp(prefix="tljax_test_cache_")

if "jax" in sys.modules:
    raise RuntimeError("JAX was imported before tests/conftest.py could configure it")
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        f"--xla_force_host_platform_device_count={DEVICES}",
        # tiny programs that run once: compiling them well takes longer than it saves
        "--xla_backend_optimization_level=0",
    ]
).strip()
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ["TLJAX_CACHE"] = CACHE


def pytest_unconfigure(config: pytest.Config) -> None:
    """Removes the session's cache of sources."""
    shutil.rmtree(CACHE, ignore_errors=True)


@pytest.fixture
def pretrain_config() -> dict:
    """A whole pre-training config of tiny sizes; a test changes what it is about."""
    return {
        "kind": "pretrain",
        "seed": 3,
        "steps": 8,
        "init": {"source": ""},
        "corpus": {"source": "text:set by the test", "length": 16,
                   "heldout_split": "test", "heldout_documents": 0},
        "tokenizer": {"source": "", "vocab_size": 264, "normalization": "none"},
        "model": _MODEL.copy(),
        "optim": _OPTIM.copy(),
        "mesh": {"run": 1, "data": 1, "fsdp": 1, "tensor": 1},
        "record": _RECORD.copy(),
    }  # fmt: skip


@pytest.fixture
def finetune_config() -> dict:
    """A whole fine-tuning config of the same tiny model."""
    return {
        "kind": "finetune",
        "seed": 5,
        "epochs": 3.0,
        "init": {"source": ""},
        "task": {"source": "csv:set by the test", "n": 0, "length": 32,
                 "validation_items": 0, "score_test": True},
        "tokenizer": {"source": "", "vocab_size": 264, "normalization": "none"},
        "head": {"pooling": "mean"},
        "model": _MODEL.copy(),
        "optim": _OPTIM.copy(),
        "mesh": {"run": 1, "data": 1, "fsdp": 1, "tensor": 1},
        "record": _RECORD.copy(),
    }  # fmt: skip


@pytest.fixture
def model_settings():
    """A two-layer model in float32, so that identities hold to rounding."""
    from tljax.settings import ModelSettings

    return ModelSettings(**_MODEL)


@pytest.fixture
def optim_settings():
    """AdamW at a constant rate."""
    from tljax.settings import OptimSettings

    return OptimSettings(**_OPTIM)


@pytest.fixture
def draw_params():
    """draw_params(init, *args) -> a tree like init's, but nowhere zero.

    Fresh output projections are zero, which would hide a fault; and drawing with numpy
    spares the seconds that compiling `init` takes.
    """
    import jax
    import numpy as np

    def drawn(init, *args, seed=0):
        random = np.random.default_rng(seed)

        def leaf(path, shape):
            middle = 1.0 if path[-1].key == "scale" else 0.0
            return random.normal(middle, 0.3, shape.shape).astype(np.float32)

        return jax.tree_util.tree_map_with_path(
            leaf, jax.eval_shape(lambda: init(*args))
        )

    return drawn


_MODEL = {
    "width": 16, "depth": 2, "heads": 4, "kv_heads": 2, "mlp": "swiglu",
    "mlp_width": 24, "qk_norm": True, "bias": "none", "tied": True, "causal": True,
    "rope_base": 100.0, "dropout": 0.0, "scan_layers": False, "dtype": "float32",
}  # fmt: skip
_OPTIM = {
    "name": "adamw", "lr_peak": 0.01, "lr_muon": 0.02, "weight_decay": 0.0, "b1": 0.9,
    "b2": 0.99, "clip_norm": 0.0, "warmup": 0.0, "cooldown": 0.0, "layer_decay": 1.0,
    "batch": 8,
}  # fmt: skip
_RECORD = {
    "rounds": 4, "validations": 2, "checkpoint_seconds": 1e6, "checkpoints_kept": 1,
    "choose": "last",
}  # fmt: skip
