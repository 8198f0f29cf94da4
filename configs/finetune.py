"""A model learns to tell good film reviews from bad ones, from 500 labels.

    tljax train --config=configs/finetune.py --workdir=runs/reviews \\
        --config.init.source=runs/lm

preset   starts from (init.source)                     2 cores   expected accuracy
default  a run of configs/pretrain.py; '' = scratch      1 min   0.63 to 0.66
tiny     a run of configs/pretrain.py:tiny, or ''        30 s    0.5 to 0.6
smollm2  pkg:smollm2-135m; LoRA above 12 frozen layers   4 min   0.84

The model must be that of the run it starts from: the sizes here are those of
configs/pretrain.py, preset by preset.
Own labels: --config.task.source='csv:reviews.csv?text=review&label=stars'.
Whether pre-training helped at all takes more than one run: see experiments/low_shot.
"""

from ml_collections import ConfigDict

from tljax.settings import InputError, suggestion


def get_config(preset: str = "default") -> ConfigDict:
    """The decisions, each with its reason; a preset lists only its differences."""
    config = ConfigDict()
    config.kind = "finetune"
    config.seed = 0
    config.epochs = 5.0  # at 500 labels; 10 at 100 and below
    config.init = ConfigDict({"source": ""})
    config.task = ConfigDict(
        {
            "source": "pkg:rotten_tomatoes",
            "n": 500,
            "length": 128,  # of a packed row: sentences have 30 tokens
            "validation_items": 200,
            "score_test": True,
        }
    )
    config.tokenizer = ConfigDict(
        {
            "source": "",  # init.source's; from scratch: trained on the task's text
            "vocab_size": 4096,
            "normalization": "lower_joined",
        }
    )
    config.head = ConfigDict({"pooling": "mean"})  # few labels: the least to learn
    config.model = ConfigDict(
        {
            "width": 256,
            "depth": 2,
            "heads": 4,
            "kv_heads": 4,
            "mlp": "relu2",
            "mlp_width": 1024,
            "qk_norm": False,
            "bias": "none",
            "tied": True,
            "causal": True,
            "rope_base": 10_000.0,
            "dropout": 0.0,
            "scan_layers": False,
            "dtype": "auto",
        }
    )
    config.optim = ConfigDict(
        {
            "name": "adamw",
            "lr_peak": 3e-3,  # chosen on validation items: experiments/low_shot
            "lr_muon": 0.0,
            "weight_decay": 0.01,
            "b1": 0.9,
            "b2": 0.99,
            "clip_norm": 1.0,  # a fresh head's first gradients are large
            "warmup": 0.1,
            "cooldown": 0.9,
            "layer_decay": 0.3,  # after pre-training; from scratch 1.0 is better
            "batch": 16,
        }
    )
    config.mesh = ConfigDict({"run": 1, "data": 1, "fsdp": 1, "tensor": 1})
    config.record = ConfigDict(
        {
            "rounds": 8,
            "validations": 4,
            "checkpoint_seconds": 60.0,
            "checkpoints_kept": 1,
            "choose": "last",  # 200 validation items would choose noise
        }
    )
    # Of a deep model of other people's: what of it moves (preset smollm2)
    config.transfer = ConfigDict({"method": "full", "frozen_layers": 0})
    if preset not in _PRESETS:
        raise InputError(
            f"no preset {preset!r}{suggestion(preset, _PRESETS)}; there are:"
            f" {', '.join(_PRESETS)}"
        )
    config.update_from_flattened_dict(_PRESETS[preset])
    return config


_PRESETS = {
    "default": {},
    # The choices of experiments/low_shot's LoRA arm, for any deep decoder.
    "smollm2": {
        "init.source": "pkg:smollm2-135m",
        "head.pooling": "last",
        "optim.lr_peak": 1e-3,
        "optim.layer_decay": 1.0,
        "transfer.method": "lora",
        "transfer.frozen_layers": 12,
    },
    # To see every step of the way, not for a result.
    "tiny": {
        "epochs": 2.0,
        "task.n": 200,
        "task.length": 64,
        "tokenizer.vocab_size": 1024,
        "model.width": 64,
        "model.depth": 2,
        "model.heads": 2,
        "model.kv_heads": 2,
        "model.mlp_width": 128,
    },
}
