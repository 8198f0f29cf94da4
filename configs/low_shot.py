"""Scratch or transfer, on 50 to 5,530 labels: the laboratory's main experiment.

    python -m experiments.low_shot --config=configs/low_shot.py:quick \\
        --workdir=runs/low_shot

preset   what                                             2 cores
smoke    the whole way in small, for continuous integration   2 min
quick    50, 100, 500 labels, 8 seeds                      about 12 min
full     up to all labels, 10 seeds, tuned here            about 2 h
smollm2  100, 1,000 labels, LoRA beside SmolLM2's probe    about 50 min
Results, and what was tried on the way: experiments/low_shot/README.md.
"""

from ml_collections import ConfigDict

from tljax.settings import InputError, suggestion


def get_config(preset: str = "quick") -> ConfigDict:
    """The decisions, each with its reason; presets list only their differences."""
    config = ConfigDict()
    config.corpus = ConfigDict(
        {
            "source": "pkg:imdb_reviews",
            "length": 128,  # sentences of the task have 30 tokens; longer rows cost
            "heldout_split": "test",
            "heldout_documents": 400,  # standard error below .01 bits
        }
    )
    config.tokenizer = ConfigDict(
        {
            "source": "",
            "vocab_size": 4096,  # 3.8 characters a token; 8,192 doubles the softmax
            "normalization": "lower_joined",  # the task's text is lower-cased, spaced
        }
    )
    config.model = ConfigDict(
        {
            # Wide and shallow: in equal time 128 x 4 layers reaches .06 bits/byte less
            # and yet 2 points less accuracy on 100 labels (README)
            "width": 256,
            "depth": 2,
            "heads": 4,
            "kv_heads": 4,
            "mlp": "relu2",  # 8 % faster than swiglu of equal size here, no worse
            "mlp_width": 1024,
            "qk_norm": False,  # 7 % slower; Muon is stable without it here
            "bias": "none",
            "tied": True,
            "causal": True,
            "rope_base": 10_000.0,
            "dropout": 0.0,
            "scan_layers": False,  # unrolled is faster on CPU
            "dtype": "auto",
        }
    )
    config.pretrain = ConfigDict(
        {
            "seed": 0,
            "steps": 850,  # 3.5 M tokens, half a pass over the text
            "mesh": {"run": 1, "data": 1, "fsdp": 1, "tensor": 1},
            "optim": {
                "name": "muon",
                "lr_peak": 0.03,  # of the embedding; .003 costs .05 bits/byte
                "lr_muon": 0.02,  # .04 costs .02 bits/byte
                "weight_decay": 0.0,  # less than one pass over the text
                "b1": 0.9,
                "b2": 0.95,
                "clip_norm": 0.0,
                "warmup": 0.02,
                "cooldown": 0.6,
                "layer_decay": 1.0,
                "batch": 32,
            },
            "record": {
                "rounds": 20,
                "validations": 4,
                "checkpoint_seconds": 60.0,
                "checkpoints_kept": 1,
                "choose": "last",
            },
        }
    )
    # The task's own training text, labels unread (Howard & Ruder 2018, stage 2)
    config.adapt = ConfigDict(
        {
            "epochs": 0.0,  # 2 and 4 passes gained nothing here (README)
            "optim": {**config.pretrain.optim, "lr_peak": 0.01, "lr_muon": 0.01},
            "record": {**config.pretrain.record, "rounds": 8},
        }
    )
    config.task = ConfigDict(
        {"source": "pkg:rotten_tomatoes", "length": 128, "validation_items": 200}
    )
    config.finetune = ConfigDict(
        {
            "head": {"pooling": "mean"},
            "optim": {
                "name": "adamw",
                "lr_peak": 0.0,  # per arm and size: `tuned`
                "lr_muon": 0.0,
                "weight_decay": 0.01,
                "b1": 0.9,
                "b2": 0.99,
                "clip_norm": 1.0,
                "warmup": 0.1,
                "cooldown": 0.9,
                "layer_decay": 1.0,  # likewise per arm and size
                "batch": 16,
            },
            "record": {
                "rounds": 8,
                "validations": 4,
                "checkpoint_seconds": 60.0,
                "checkpoints_kept": 1,
                "choose": "last",
            },
        }
    )
    # What 2 T tokens buy: other people's model (93 MB), frozen, on the same labels
    config.probe = ConfigDict(
        {
            "source": "pkg:smollm2-135m",
            "arm": "smollm2",
            "layers": (12, 15, 18, 21, 24),  # of 30; validation chooses
            "poolings": ("last", "mean+last"),  # with 1,000 labels both help
            "seeds": 8,
        }
    )
    # The same model, its upper layers fine-tuned: preset smollm2 has this arm
    config.lora = ConfigDict(
        {
            "arm": "",
            "transfer": {
                "method": "lora",
                "frozen_layers": 12,  # of 30; computed once for every text
                "rank": 8,
                "alpha": 16.0,
                "scaling": "standard",
                "targets": r"layers/\d+/(attention|mlp)/\w+",
                "dropout": 0.0,
            },
            "head": {"pooling": "last"},  # at 100 labels 4 points above the mean
            "optim": {**config.finetune.optim},
            "record": {**config.finetune.record, "validations": 1},
        }
    )
    config.plan = ConfigDict(
        {"sizes": (50, 100, 500), "seeds": 8, "alpha": 0.05, "claims": ()}
    )
    config.tuning = ConfigDict(
        {
            "rates": (),
            "layer_decays": (),
            "epochs": {},
            "seeds": 3,
            "validation_items": 0,
        }
    )
    # The best of as many points for each arm, on validation items and seeds of tuning's
    # own (README, "Tuning"); 50 takes the choice made at 100.
    config.tuned = ConfigDict(
        {
            "scratch": {
                "100": {"lr_peak": 1e-3, "epochs": 10.0, "layer_decay": 1.0},
                "500": {"lr_peak": 1e-3, "epochs": 5.0, "layer_decay": 1.0},
            },
            "transfer": {
                "100": {"lr_peak": 3e-3, "epochs": 10.0, "layer_decay": 0.3},
                "500": {"lr_peak": 3e-3, "epochs": 5.0, "layer_decay": 0.3},
            },
        }
    )
    if preset not in _PRESETS:
        raise InputError(
            f"configs/low_shot.py has no preset {preset!r}"
            f"{suggestion(preset, _PRESETS)}; allowed: {', '.join(_PRESETS)}"
        )
    _PRESETS[preset](config)
    return config


def _quick(config: ConfigDict) -> None:
    """As above."""


def _smoke(config: ConfigDict) -> None:
    """Trains for real, too little for a result: that every step works."""
    config.tokenizer.vocab_size = 1024
    config.corpus.heldout_documents = 50
    config.model.width = 64
    config.model.depth = 2
    config.model.heads = config.model.kv_heads = 2
    config.model.mlp_width = 128
    config.pretrain.steps = 600
    config.plan.sizes = (50, 100)
    config.plan.seeds = 7  # the fewest with which two claims could pass
    config.probe.source = ""  # 93 MB, and minutes


def _full(config: ConfigDict) -> None:
    """More text, a larger model, choices tuned here, up to all labels."""
    config.corpus.heldout_documents = 0
    config.corpus.length = 256
    config.model.width = 320
    config.model.depth = 3
    config.model.heads = config.model.kv_heads = 5
    config.model.mlp_width = 1280
    config.pretrain.steps = 2000  # 16 M tokens, two to three passes
    config.pretrain.record.rounds = 100
    config.pretrain.record.validations = 10
    config.task.validation_items = 500
    config.plan.sizes = (50, 100, 500, 2000, 5530)
    config.plan.seeds = 10
    config.tuned = ConfigDict()  # chosen here, from the grid below
    config.tuning.rates = (1e-3, 3e-3)  # 1e-2 never won (README)
    config.tuning.seeds = 8  # with 4 the choice was noise (README)
    config.tuning.layer_decays = (0.3, 1.0)
    config.tuning.epochs = {"100": (10.0,), "500": (5.0,), "2000": (2.0,)}


def _smollm2(config: ConfigDict) -> None:
    """What other people's model is worth with more labels: its probe, and LoRA."""
    config.plan.sizes = (100, 1000)
    config.plan.claims = tuple(
        ConfigDict(
            {
                "name": f"{arm} beats tfidf at n = {n}",
                "arm": arm,
                "against": "tfidf",
                "n": n,
            }
        )
        for arm in ("smollm2", "smollm2_lora")
        for n in (100, 1000)
    )
    config.lora.arm = "smollm2_lora"
    config.tuned.smollm2_lora = {  # on validation items (README)
        "100": {"lr_peak": 1e-3, "epochs": 10.0, "layer_decay": 1.0},
        "1000": {"lr_peak": 2e-3, "epochs": 3.0, "layer_decay": 1.0},
    }


_PRESETS = {"quick": _quick, "smollm2": _smollm2, "smoke": _smoke, "full": _full}
