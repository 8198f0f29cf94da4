"""Which way to fine-tune helps on few labels? Ten ways from one language model.

    python -m experiments.finetune_ladder --config=configs/finetune_ladder.py:quick \\
        --workdir=runs/ladder

preset   what                                            2 cores
smoke    the whole way in small: that every step works              4 min
quick    200 labels, 9 seeds, a model pre-trained for 5 minutes    13 min
full     1,000 labels, 12 seeds, a deeper model, more rates         hours
A model that is there already: --config.pretrain.source=runs/low_shot/lm
"""

from collections.abc import Sequence

from ml_collections import ConfigDict

from configs.low_shot import get_config as get_low_shot
from tljax.settings import InputError, suggestion

DISCR = 1 / 2.6  # ULMFiT's rate of a layer to that of the next


def get_config(preset: str = "quick") -> ConfigDict:
    """The decisions, each with its reason; presets list only their differences."""
    if preset not in _PRESETS:
        raise InputError(
            f"configs/finetune_ladder.py has no preset {preset!r}"
            f"{suggestion(preset, _PRESETS)}; allowed: {', '.join(_PRESETS)}"
        )
    base = get_low_shot("smoke" if preset == "smoke" else "quick")
    config = ConfigDict()
    for name in ("corpus", "tokenizer", "model", "pretrain", "adapt"):
        config[name] = base[name]  # the language model of the main experiment
    config.adapt.epochs = 2.0  # 80 steps of the task's text
    config.task = ConfigDict(
        {
            "source": "pkg:rotten_tomatoes",
            "n": 200,
            "length": 128,
            "validation_items": 200,  # scored after every epoch
            "score_test": True,
            "others": ("pkg:product_reviews",),  # cameras and phones, no films
        }
    )
    config.arms = _arms(base, epochs=5)
    config.tuning = ConfigDict(
        {"rates": _rates((1e-3, 3e-3)), "seeds": 2, "validation_items": 500}
    )
    config.plan = ConfigDict({"seeds": 9, "alpha": 0.05, "claims": CLAIMS})
    _PRESETS[preset](config)
    return config


def _arms(base: ConfigDict, *, epochs: int) -> ConfigDict:
    """What each arm changes in `full`; all start from the same decisions."""
    full = ConfigDict(
        {
            "what": "all weights, one constant rate",
            "epochs": float(epochs),
            "init": {"source": "lm"},
            "head": base.finetune.head,
            "optim": {
                **base.finetune.optim,  # AdamW; the rate is tuned for every arm
                "cooldown": 0.0,  # constant: to fall slowly is what `stlr` is about
            },
            "record": {
                **base.finetune.record,
                "rounds": epochs,
                "validations": epochs,  # late degradation is seen epoch by epoch
                "choose": "last",  # no arm is stopped early
            },
            "transfer": {},
        }
    )
    slanted = {"schedule": "slanted"}  # up in a tenth of the steps as all, then down
    changes = {
        "scratch": {"what": "no pre-training", "init": {"source": ""}},
        "last": {"what": "the head alone", "transfer": {"method": "head"}},
        "full": {},
        "discr": {
            "what": "full, lower layers slower (discriminative)",
            "optim": {"layer_decay": DISCR},
        },
        "discr_stlr": {
            "what": "discr, slanted triangular rates",
            "optim": {"layer_decay": DISCR, **slanted},
        },
        "freez": {
            "what": "full, gradual unfreezing from the top",
            "optim": {"unfreeze": "gradual"},
        },
        "chain_thaw": {
            "what": "head, each layer alone, then all",
            "optim": {"unfreeze": "chain"},
        },
        "lp_ft": {
            "what": "full, the head first fitted alone (LP-FT)",
            "head": {"start": "probe"},
        },
        "tapt": {
            "what": "full, after the task's own text",
            "init": {"source": "tapt"},
        },
        "ulmfit": {
            "what": "task's own text, discr, slanted rates, unfreezing",
            "init": {"source": "tapt"},
            "optim": {"layer_decay": DISCR, "unfreeze": "gradual", **slanted},
        },
    }
    arms = ConfigDict()
    for name, change in changes.items():
        arms[name] = ConfigDict(full.to_dict())
        for key, value in change.items():
            if isinstance(value, dict):
                arms[name][key] = {**arms[name][key].to_dict(), **value}
            else:
                arms[name][key] = value
    return arms


def _rates(usual: Sequence[float]) -> dict[str, tuple[float, ...]]:
    """As many points for every arm; a head alone takes ten times the rate."""
    names = _arms(get_low_shot("quick"), epochs=1)
    return {
        arm: tuple(rate * (10 if arm == "last" else 1) for rate in usual)
        for arm in names
    }


def _claim(
    name: str, paper: str, number: str, statistic: str, arm: str, against: str, **more
) -> dict:
    """`arm` has more of the statistic than `against`."""
    return {
        "name": name, "paper": paper, "number": number,
        "statistic": statistic, "arm": arm, "against": against, **more,
    }  # fmt: skip


# Fixed before any run; nine seeds are the fewest with which seven claims could pass
CLAIMS = (
    _claim(
        "transfer beats scratch",
        "ULMFiT, table 7, IMDb",
        "error 9.93 from scratch, 6.87 full",
        *("accuracy", "full", "scratch"),
    ),
    _claim(
        "the head alone underfits",
        "ULMFiT, section 5",
        "'Last' never reaches a training error of 0",
        *("train_loss", "last", "full"),
    ),
    _claim(
        "full degrades late, ULMFiT less",
        "ULMFiT, figure 4",
        "full: best early, then worse; ULMFiT stays flat",
        *("late_degradation", "full", "ulmfit"),
    ),
    _claim(
        "ULMFiT beats full",
        "ULMFiT, table 7, IMDb",
        "error 6.87 full, 5.00 all together",
        *("accuracy", "ulmfit", "full"),
    ),
    _claim(
        "discriminative rates beat one rate",
        "ULMFiT, table 7, IMDb",
        "error 6.87 full, 5.57 with discr",
        *("accuracy", "discr", "full"),
    ),
    _claim(
        "LP-FT beats full out of domain",
        "LP-FT, abstract",
        "10 points above full",
        *("accuracy", "lp_ft", "full"),
        split="product_reviews",
    ),
    _claim(
        "LP-FT is no worse than the head alone in domain",
        "LP-FT, abstract",
        "1 point above full, which is 2 above the head alone",
        *("accuracy", "lp_ft", "last"),
        rule="no_worse",
        margin=0.01,  # a point: half of what full is above the head there
    ),
)


def _quick(config: ConfigDict) -> None:
    """As above."""


def _smoke(config: ConfigDict) -> None:
    """Trains for real, too little for a result: that every step works."""
    config.pretrain.steps = 300
    config.adapt.epochs = 0.5
    config.task.n = 60
    config.task.validation_items = 50
    config.tuning.rates = _rates((3e-3,))
    config.tuning.seeds = 1
    config.tuning.validation_items = 50
    for arm in config.arms.values():
        arm.epochs = 3.0
        arm.record.rounds = arm.record.validations = 3


def _full(config: ConfigDict) -> None:
    """More labels, seeds and depth; three rates; the optimum may lie inside."""
    config.model.depth = 4
    config.pretrain.steps = 2000
    config.task.n = 1000
    config.task.validation_items = 500
    config.adapt.epochs = 4.0
    config.plan.seeds = 12
    config.tuning.rates = _rates((1e-3, 3e-3, 1e-2))
    config.tuning.seeds = 4


_PRESETS = {"smoke": _smoke, "quick": _quick, "full": _full}
