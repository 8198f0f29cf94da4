"""How much of a fine-tuning result is chance? Ten arms of many seeds on one subset.

    python -m experiments.seed_stability --config=configs/seed_stability.py:quick \\
        --workdir=runs/seeds

preset   what                                                        2 cores
smoke    the whole way in small, for continuous integration          2 min
quick    200 labels, 20 seeds, a model pre-trained for 2 minutes     about 10 min
full     500 labels, 30 seeds, the main experiment's language model  hours
A model that is there already: --config.pretrain.source=runs/low_shot/lm
"""

from ml_collections import ConfigDict

from configs.low_shot import get_config as get_low_shot
from tljax.settings import InputError, suggestion

SHORT, LONG = 3, 20  # epochs: Devlin et al. 2019, Mosbach et al. 2021
RATE = 1e-3  # the main experiment's choice for all weights at one rate (its README)


def get_config(preset: str = "quick") -> ConfigDict:
    """The decisions, each with its reason; presets list only their differences."""
    if preset not in _PRESETS:
        raise InputError(
            f"configs/seed_stability.py has no preset {preset!r}"
            f"{suggestion(preset, _PRESETS)}; allowed: {', '.join(_PRESETS)}"
        )
    base = get_low_shot("smoke" if preset == "smoke" else "quick")
    config = ConfigDict()
    for name in ("corpus", "tokenizer", "model", "pretrain", "adapt"):
        config[name] = base[name]
    config.task = ConfigDict(
        {
            "source": "pkg:rotten_tomatoes",
            "n": 200,
            "length": 128,
            "validation_items": 1000,  # the budget's curve is of these
            "score_test": True,
        }
    )
    config.arms = _arms(base)
    config.tuning = ConfigDict({"rates": {}, "seeds": 1, "validation_items": 0})
    config.plan = ConfigDict({"seeds": 20, "alpha": 0.05, "claims": CLAIMS})
    config.grid = ConfigDict({"arm": f"bert_{SHORT}", "inits": 6, "orders": 6})
    _PRESETS[preset](config)
    return config


def _arms(base: ConfigDict) -> ConfigDict:
    """{bert, adam}_{3, 20}{, _cold}, and two arms that provoke failures.

    bert: Adam without bias correction, as BERT was fine-tuned; cold: no warm-up; hot:
    cold, at ten times the rate. adam_20 is the recipe of Mosbach et al.
    """
    arms = ConfigDict()
    for corrected, epochs in (
        (False, SHORT),
        (True, SHORT),
        (False, LONG),
        (True, LONG),
    ):
        name = f"{'adam' if corrected else 'bert'}_{epochs}"
        what = f"{'' if corrected else 'no '}bias correction, {epochs} epochs"
        for ending, said, warmup, times in (
            ("", "warm-up", 0.1, 1),
            ("_cold", "no warm-up", 0.0, 1),
            ("_hot", "no warm-up, ten times the rate", 0.0, 10),
        ):
            if ending == "_hot" and epochs == LONG:
                continue
            arms[name + ending] = ConfigDict(
                {
                    "what": f"{what}, {said}",
                    "epochs": float(epochs),
                    "init": {"source": "lm"},
                    "head": base.finetune.head,
                    "optim": {
                        **base.finetune.optim,
                        "lr_peak": times * RATE,
                        "b2": 0.999,  # BERT's: with .99 its bias is soon gone
                        "warmup": warmup,
                        "cooldown": 1 - warmup,
                        "bias_correction": corrected,
                    },
                    "record": {
                        **base.finetune.record,
                        "rounds": SHORT,
                        "validations": 0,  # the end is scored anyway
                    },
                    "seeds": {"subset": 0},  # one for all: weights and order differ
                }
            )
    return arms


# Fixed before any run: the criteria of section 5 of the papers' list (README).
CLAIMS = tuple(
    {
        "name": name,
        "paper": paper,
        "number": number,
        "statistic": statistic,
        "arm": arm,
        "against": against,
        **more,
    }
    for name, paper, number, statistic, arm, against, more in (
        (
            "three epochs without bias correction spread more than the recipe",
            "Mosbach et al. 2021, abstract",
            "the recipe makes fine-tuning significantly more stable",
            "spread",
            f"bert_{SHORT}",
            f"adam_{LONG}",
            {},
        ),
        (
            "three epochs without bias correction fail more often than the recipe",
            "Mosbach et al. 2021",
            "runs no longer fail",
            "failures",
            f"bert_{SHORT}",
            f"adam_{LONG}",
            {},
        ),
        (
            "the recipe is more accurate",
            "Mosbach et al. 2021",
            "higher mean on RTE, MRPC and CoLA",
            "accuracy",
            f"adam_{LONG}",
            f"bert_{SHORT}",
            {},
        ),
        (
            "failures are provoked without warm-up at ten times the rate",
            "Mosbach et al. 2021, abstract",
            "optimisation, not forgetting or few labels, makes runs fail",
            "failures",
            f"bert_{SHORT}_hot",
            f"adam_{LONG}",
            {},
        ),
        (
            "bias correction alone prevents failures",
            "Zhang et al. 2021, section 4, RTE",
            "48 % of runs fail without, about none with",
            "failures",
            f"bert_{SHORT}_hot",
            f"adam_{SHORT}_hot",
            {},
        ),
        (
            "first weights and data order contribute alike",
            "Dodge et al. 2020, abstract",
            "both contribute comparably",
            "sources",
            f"bert_{SHORT}",
            f"bert_{SHORT}",
            # the narrowest that a 6 x 6 grid can show at all (README)
            {"rule": "same", "margin": 2 / 3},
        ),
    )
)


def _quick(config: ConfigDict) -> None:
    """A narrower model than the main experiment's: its many runs cost more than it."""
    config.model.width = 128
    config.model.heads = config.model.kv_heads = 2
    config.model.mlp_width = 512


def _smoke(config: ConfigDict) -> None:
    """Trains for real, too little for a result: that every step works."""
    config.pretrain.steps = 300
    config.task.n = 60
    config.task.validation_items = 100
    config.plan.seeds = 9
    config.grid.inits = config.grid.orders = 3


def _full(config: ConfigDict) -> None:
    """The main experiment's language model, more labels, more seeds."""
    config.pretrain.steps = 2000
    config.task.n = 500
    config.plan.seeds = 30
    config.grid.inits = config.grid.orders = 10


_PRESETS = {"smoke": _smoke, "quick": _quick, "full": _full}
