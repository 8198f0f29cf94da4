"""A small decoder learns to predict the next token of film reviews.

    tljax train --config=configs/pretrain.py --workdir=runs/lm

preset   what                                       2 cores   expected
default  2.6 M parameters, 3.5 M tokens of IMDb       5 min   1.69 bits/byte
tiny     0.1 M parameters, Rotten Tomatoes' text      1 min   above 2 bits/byte

Own text: --config.corpus.source=text:DIR (or jsonl:FILE?text=body, csv:FILE?text=a).
The first run fetches its source and trains a tokenizer, which later runs share.
"""

from ml_collections import ConfigDict

from tljax.settings import InputError, suggestion


def get_config(preset: str = "default") -> ConfigDict:
    """The decisions, each with its reason; a preset lists only its differences."""
    config = ConfigDict()
    config.kind = "pretrain"
    config.seed = 0
    config.steps = 850  # x 32 x 128 = 3.5 M tokens: what five minutes of CPU give
    config.init = ConfigDict({"source": ""})  # a run folder: go on from its weights
    config.corpus = ConfigDict(
        {
            "source": "pkg:imdb_reviews",
            "length": 128,  # the reviews' sentences fit; longer rows cost attention
            "heldout_split": "test",
            "heldout_documents": 400,  # standard error below .01 bits
        }
    )
    config.tokenizer = ConfigDict(
        {
            "source": "",
            "vocab_size": 4096,  # 3.8 characters a token; 8,192 doubles the softmax
            # Labelled sets are often lower-cased with spaced punctuation: one form
            # for both lets the words that were learnt be found again.
            "normalization": "lower_joined",
        }
    )
    config.model = ConfigDict(
        {
            # Wide and shallow helps few labels most: experiments/low_shot
            "width": 256,
            "depth": 2,
            "heads": 4,  # of 64: the usual head width
            "kv_heads": 4,  # sharing saves memory only in generation
            "mlp": "relu2",  # faster than swiglu of equal size here, no worse
            "mlp_width": 1024,
            "qk_norm": False,  # 7 % slower; Muon is stable without it here
            "bias": "none",
            "tied": True,  # a third of the parameters would be the output else
            "causal": True,
            "rope_base": 10_000.0,
            "dropout": 0.0,  # less than one pass over the text: nothing to over-fit
            "scan_layers": False,  # unrolled is faster on CPU; scan if deep
            "dtype": "auto",
        }
    )
    config.optim = ConfigDict(
        {
            "name": "muon",  # 1.5 to 2 times fewer tokens than AdamW for the same loss
            "lr_peak": 0.03,  # embedding and norms; .003 costs .05 bits/byte
            "lr_muon": 0.02,
            "weight_decay": 0.0,  # less than one pass over the text
            "b1": 0.9,
            "b2": 0.95,  # short runs: forget early gradients soon
            "clip_norm": 0.0,  # Muon's steps have a fixed size
            "warmup": 0.02,
            "cooldown": 0.6,  # most of the gain of a short run comes in its cooldown
            "layer_decay": 1.0,
            "batch": 32,
        }
    )
    config.mesh = ConfigDict({"run": 1, "data": 1, "fsdp": 1, "tensor": 1})
    config.record = ConfigDict(
        {
            "rounds": 20,
            "validations": 4,
            "checkpoint_seconds": 60.0,  # what a kill can cost
            "checkpoints_kept": 1,
            "choose": "last",  # the cooldown makes the last the best
        }
    )
    if preset not in _PRESETS:
        raise InputError(
            f"no preset {preset!r}{suggestion(preset, _PRESETS)}; there are:"
            f" {', '.join(_PRESETS)}"
        )
    config.update_from_flattened_dict(_PRESETS[preset])
    return config


_PRESETS = {
    "default": {},
    # To see every step of the way, not for a result.
    "tiny": {
        "corpus.source": "pkg:rotten_tomatoes",  # a small download; labels unread
        "corpus.heldout_documents": 200,
        "corpus.length": 64,
        "steps": 60,
        "tokenizer.vocab_size": 1024,
        "model.width": 64,
        "model.depth": 2,
        "model.heads": 2,
        "model.kv_heads": 2,
        "model.mlp_width": 128,
        "record.rounds": 6,
        "record.validations": 2,
    },
}
