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
        # whose programs would be compiled again in every test that trains
        "--xla_cpu_use_onednn=false",
    ]
).strip()
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ["TLJAX_CACHE"] = CACHE


def pytest_unconfigure(config: pytest.Config) -> None:
    """Removes the session's cache of sources."""
    shutil.rmtree(CACHE, ignore_errors=True)


@pytest.fixture(params=[True, False], ids=["onednn", "own"])
def onednn(request):
    """Products as they are written for oneDNN, or for XLA's own; any computes both."""
    from tljax.model import product

    token = product._onednn.set(request.param)
    yield request.param
    product._onednn.reset(token)


@pytest.fixture
def summing(monkeypatch):
    """Programs of `product.jit_by_sums` are by sums whatever the processor."""
    from tljax.model import product

    monkeypatch.setattr(product, "sums_are_faster", lambda: True)


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


@pytest.fixture(scope="session")
def model_settings():
    """A two-layer model in float32, so that identities hold to rounding."""
    from tljax.settings import ModelSettings

    return ModelSettings(**_MODEL)


@pytest.fixture(scope="session")
def optim_settings():
    """AdamW at a constant rate."""
    from tljax.settings import OptimSettings

    return OptimSettings(**_OPTIM)


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory):
    """A llama of 2 layers as Transformers writes it: random weights, 300 tokens."""
    import json

    import numpy as np
    import tokenizers
    from safetensors.numpy import save_file

    folder = tmp_path_factory.mktemp("hf") / "tiny"
    folder.mkdir()
    random = np.random.default_rng(0)
    tensors = {}
    for name, shape in _llama_shapes():
        values = random.standard_normal(shape, np.float32) * 0.3
        tensors[name] = values + 1 if name.endswith("norm.weight") else values
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(_LLAMA))
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|end|>", "<|user|>", "<|assistant|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["a lovely film", "a dreary film"] * 9, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"eos_token": "<|end|>", "chat_template": _CHAT}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def _llama_shapes():
    width, inner, shared = 24, 20, 8
    yield "model.embed_tokens.weight", (320, width)
    yield "model.norm.weight", (width,)
    for i in range(2):
        layer = f"model.layers.{i}"
        yield f"{layer}.input_layernorm.weight", (width,)
        yield f"{layer}.post_attention_layernorm.weight", (width,)
        for name, rows in {"q": width, "k": shared, "v": shared, "o": width}.items():
            yield f"{layer}.self_attn.{name}_proj.weight", (rows, width)
        yield f"{layer}.mlp.gate_proj.weight", (inner, width)
        yield f"{layer}.mlp.up_proj.weight", (inner, width)
        yield f"{layer}.mlp.down_proj.weight", (width, inner)


_LLAMA = {
    "model_type": "llama", "hidden_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 6, "num_key_value_heads": 2, "intermediate_size": 20,
    "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 100.0,
    "tie_word_embeddings": True, "vocab_size": 320,
}  # fmt: skip
_CHAT = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
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
