"""Makes the golden files: what Transformers computes for tiny models of every family.

    PEERS/bin/python tests/pretrained/golden/make.py --logits=LOGITS.py [--keep=DIR]

Weights are drawn by name (`draw`), so that a golden file holds config, shapes and some
values only, and the tests, which have no PyTorch, make the same checkpoint again.
LOGITS.py writes Transformers' reference outputs of a checkpoint folder.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import zlib

import numpy as np

HERE = pathlib.Path(__file__).parent
VOCAB, LENGTH, SHORT = 37, 24, 15
SHOWN = ((0, 2), (0, 13), (0, 23), (1, 0), (1, 9), (1, 14))  # (row, position)
_SMALL = {"vocab_size": VOCAB, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
          "hidden_size": 48, "intermediate_size": 40, "num_hidden_layers": 2,
          "num_attention_heads": 6, "num_key_value_heads": 2}  # fmt: skip
_LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
           "high_freq_factor": 4.0, "original_max_position_embeddings": 16}  # fmt: skip
CONFIGS = {
    "llama_untied_llama3": (
        "LlamaForCausalLM",
        {**_SMALL, "rope_theta": 500.0, "rope_scaling": _LLAMA3},
    ),
    "llama_tied_linear": (
        "LlamaForCausalLM",
        {
            **_SMALL,
            "tie_word_embeddings": True,
            "attention_bias": True,
            "mlp_bias": True,
            "rope_scaling": {"rope_type": "linear", "factor": 4.0},
        },
    ),
    # without what Transformers does not read from a GGUF: biases, scaling, windows
    "llama_plain": ("LlamaForCausalLM", _SMALL),
    "qwen2_plain": ("Qwen2ForCausalLM", _SMALL),
    "mistral_window": ("MistralForCausalLM", {**_SMALL, "sliding_window": 5}),
    "qwen2_window": (
        "Qwen2ForCausalLM",
        {
            **_SMALL,
            "use_sliding_window": True,
            "sliding_window": 6,
            "max_window_layers": 1,
        },
    ),
    "qwen3": (
        "Qwen3ForCausalLM",
        {**_SMALL, "head_dim": 10, "rope_theta": 1e6, "tie_word_embeddings": True},
    ),
    "gemma3_text": (
        "Gemma3ForCausalLM",
        {
            **_SMALL,
            "num_hidden_layers": 3,
            "head_dim": 10,
            "query_pre_attn_scalar": 24,
            "sliding_window": 4,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "rope_theta": 1e4,
            "rope_local_base_freq": 100.0,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        },
    ),
    "gpt2": (
        "GPT2LMHeadModel",
        {"vocab_size": VOCAB, "n_positions": 32, "n_embd": 36, "n_layer": 2,
         "n_head": 3},
    ),
    "bert": (
        "BertModel",
        {"vocab_size": VOCAB, "max_position_embeddings": 32, "hidden_size": 36,
         "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3},
    ),
}  # fmt: skip


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The tensor of that name, float32: the same wherever it is drawn."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    values = random.standard_normal(shape, np.float32) * 0.3
    norm = len(shape) == 1 and name.endswith("weight") and "gemma" not in name
    return values + 1 if norm else values


def inputs() -> dict[str, np.ndarray]:
    """Token ids, the mask of a shorter second row, token types; int64 [2, LENGTH]."""
    random = np.random.default_rng(0)
    mask = np.ones((2, LENGTH), np.int64)
    mask[1, SHORT:] = 0
    return {
        "tokens": random.integers(0, VOCAB, (2, LENGTH)),
        "mask": mask,
        "types": random.integers(0, 2, (2, LENGTH)),
    }


def make(case: str, logits: pathlib.Path, folder: pathlib.Path) -> dict:
    """One golden file's content; the checkpoint lies in `folder` afterwards."""
    import torch
    import transformers

    architecture, values = CONFIGS[case]
    kind = getattr(transformers, architecture)
    model = kind(kind.config_class(**values))
    state = model.state_dict()
    drawn = {
        name: torch.from_numpy(draw(f"{case}/{name}", tuple(tensor.shape)))
        for name, tensor in state.items()
    }
    if model.config.tie_word_embeddings and "lm_head.weight" in drawn:
        first = next(name for name in drawn if "embed_tokens" in name or "wte" in name)
        drawn["lm_head.weight"] = drawn[first]
    model.load_state_dict(drawn)
    model.save_pretrained(folder)
    command = [
        sys.executable,
        logits,
        "--checkpoint",
        folder,
        "--out",
        folder / "o.npz",
    ]
    for name, array in inputs().items():
        if name != "types" or case == "bert":
            np.save(folder / f"{name}.npy", array)
            command += [f"--{name}", folder / f"{name}.npy"]
    if case == "bert":
        command += ["--kind", "encoder"]
    subprocess.run([str(part) for part in command], check=True)
    reference = np.load(folder / "o.npz")["hidden" if case == "bert" else "logits"]
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", framework="np") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}
    return {
        "made_with": f"transformers {transformers.__version__}",
        "config": json.loads((folder / "config.json").read_text()),
        "shapes": shapes,
        "shown": SHOWN,
        "values": [
            [float(f"{value:.7g}") for value in reference[row, position]]
            for row, position in SHOWN
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--logits", type=pathlib.Path, required=True)
    parser.add_argument("--keep", type=pathlib.Path, help="keeps the checkpoints here")
    parser.add_argument("--out", type=pathlib.Path, default=HERE, help="golden files")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for case in CONFIGS:
            folder = (given.keep or pathlib.Path(scratch)) / case
            folder.mkdir(parents=True, exist_ok=True)
            found = make(case, given.logits, folder)
            path = given.out / f"{case}.json"
            path.write_text(json.dumps(found, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
