"""seed_stability: its statistics on made records, and all of it on a tiny model."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from experiments.ablation.claims import Evidence, judge
from experiments.ablation.report import write_report
from experiments.ablation.run import check, finetune_settings, run
from experiments.ablation.settings import AblationSettings, Claim
from experiments.seed_stability.measures import STATISTICS, failed, threshold
from experiments.seed_stability.sections import tell
from tljax.cli.config import load_config
from tljax.report import spread
from tljax.report.records import Predictions, Run
from tljax.settings import InputError, from_config, to_dict

CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "seed_stability.py"
PRESETS = ("smoke", "quick", "full")
SEEDS, ITEMS = 20, 400


def settings_of(preset: str, **overrides: str) -> AblationSettings:
    texts = {key.replace("__", "."): text for key, text in overrides.items()}
    config = load_config(f"{CONFIG}:{preset}", texts, kinds=AblationSettings)
    return from_config(AblationSettings, config)


class Made(Evidence):
    """Runs of given test accuracies on 400 items of two classes, half of each."""

    def __init__(self, accuracies, grid_WO=None):
        def runs(arm, scores):
            return tuple(
                Run(pathlib.Path(f"{arm}-n4-s{i}"), arm, 4, i, True)
                for i in range(len(scores))
            )

        grid = () if grid_WO is None else runs("grid", grid_WO.ravel())
        super().__init__({a: runs(a, found) for a, found in accuracies.items()}, grid)
        values = [*accuracies.values(), () if grid_WO is None else grid_WO.ravel()]
        labels_I = np.arange(ITEMS) % 2
        self.made = {}
        for run_, accuracy in zip(self.runs, np.concatenate(values), strict=True):
            wrong_I = np.arange(ITEMS) >= round(accuracy * ITEMS)
            self.made[run_] = Predictions(
                tuple(map(str, range(ITEMS))), labels_I, labels_I ^ wrong_I,
                np.full((ITEMS, 2), 0.5), ("n", "y"),
            )  # fmt: skip

    def answers(self, split):
        return self.made


def judged(evidence, statistic, **changes):
    claim = Claim(**{
        "name": "a over b", "paper": "P", "number": "1", "statistic": statistic,
        "arm": "a", "against": "b", **changes,
    })  # fmt: skip
    (row,) = judge([claim], evidence, STATISTICS, alpha=0.05)
    return row


@pytest.mark.parametrize(
    ("times", "verdict"), [(4, "PASS"), (1, "INCONCLUSIVE"), (1 / 4, "FAIL")]
)
def test_spread_is_judged_in_doublings(times, verdict):
    calm = 0.75 + 0.02 * np.linspace(-1, 1, SEEDS)
    evidence = Made({"a": 0.75 + times * (calm - 0.75), "b": calm})
    row = judged(evidence, "spread")
    assert row["verdict"] == verdict
    # accuracies are multiples of 1 / 400
    assert row["estimate"] == pytest.approx(np.log2(times), abs=0.2)
    assert row["means"][0] == pytest.approx(times * row["means"][1], rel=0.15)


def test_an_arm_whose_seeds_do_not_differ_has_no_ratio():
    evidence = Made({"a": np.full(SEEDS, 0.5), "b": np.linspace(0.6, 0.7, SEEDS)})
    row = judged(evidence, "spread")
    assert (row["p"], row["verdict"]) == (1.0, "INCONCLUSIVE")
    assert list(row["ci95"]) == [-10.0, 10.0]


@pytest.mark.parametrize(
    ("more", "fewer", "verdict"),
    [(10, 0, "PASS"), (0, 0, "INCONCLUSIVE"), (0, 10, "FAIL")],
)
def test_failures_are_counted_and_judged(more, fewer, verdict):
    def scores(lost):
        return np.where(np.arange(SEEDS) < lost, 0.55, 0.7)

    evidence = Made({"a": scores(more), "b": scores(fewer)})
    assert threshold(evidence) == 0.5 + 2 * 0.025  # .55 is not above
    assert (failed(evidence, "a"), failed(evidence, "b")) == (more, fewer)
    row = judged(evidence, "failures")
    assert (row["verdict"], row["estimate"]) == (verdict, (more - fewer) / SEEDS)
    assert row["p"] == spread.failure_test(fewer, SEEDS, more, SEEDS)


@pytest.mark.parametrize(
    ("init", "order", "verdict"), [(1, 1, "PASS"), (1, 0, "FAIL"), (0, 1, "FAIL")]
)
def test_sources_are_alike_within_the_margin(init, order, verdict, monkeypatch):
    where = "experiments.seed_stability.measures.orders_of"
    monkeypatch.setattr(where, lambda evidence: 40)
    even = np.linspace(-1, 1, 40)
    rest_WO = 0.1 * np.random.default_rng(0).normal(size=(40, 40))
    effects_WO = init * even[:, None] + order * even + rest_WO
    evidence = Made({}, 0.75 + 0.1 * effects_WO)
    row = judged(evidence, "sources", rule="same", margin=1 / 3)
    assert row["verdict"] == verdict
    assert row["estimate"] == pytest.approx((init - order) / (init + order), abs=0.05)


def test_a_grid_without_variance_decides_nothing(monkeypatch):
    where = "experiments.seed_stability.measures.orders_of"
    monkeypatch.setattr(where, lambda evidence: 3)
    evidence = Made({}, np.full((3, 3), 0.5))
    row = judged(evidence, "sources", rule="same", margin=1 / 3)
    assert (row["verdict"], row["p"]) == ("INCONCLUSIVE", 1.0)


def tiny(folder: pathlib.Path) -> AblationSettings:
    """An arm of two seeds and a grid of 2 x 2, on a model of width 16."""
    words = {"good": ("lovely", "warm"), "bad": ("dreary", "cold")}
    rows = [f'"a {words[label][i % 2]} film, number {i}",{label}'
            for i in range(30) for label in words]  # fmt: skip
    path = folder / "films.csv"
    path.write_text("\n".join(["review,label", *rows]))
    config = load_config(f"{CONFIG}:smoke", {}, kinds=AblationSettings)
    config["corpus"] |= {"source": f"csv:{path}?text=review", "length": 16}
    config["tokenizer"]["vocab_size"] = 300
    config["model"] |= {"width": 16, "depth": 1, "mlp_width": 16, "dtype": "float32"}
    config["pretrain"]["optim"] |= {"name": "adamw", "batch": 8}
    config["pretrain"]["record"] |= {"rounds": 1, "validations": 1}
    config["pretrain"]["steps"] = 2
    config["task"] |= {
        "source": f"csv:{path}?text=review&label=label", "n": 16, "length": 16,
    }  # fmt: skip
    arm = config["arms"]["bert_3"]
    arm["epochs"] = 1.0
    arm["optim"]["batch"] = 4
    arm["record"]["rounds"] = 1
    config["arms"] = {"bert_3": arm}
    config["plan"] |= {"seeds": 2, "claims": []}
    config["grid"] = {"arm": "bert_3", "inits": 2, "orders": 2}
    return from_config(AblationSettings, config)


def test_all_of_it_on_a_tiny_model(tmp_path):
    settings, work = tiny(tmp_path), tmp_path / "work"
    going = {"name": "seed_stability", "known": STATISTICS, "more": tell}
    summary = run(settings, work, **going)
    assert json.loads((work / "summary.json").read_text()) == summary
    best = summary["stability"]["bert_3"]["expected_best"]
    assert len(best) == 2 and best == sorted(best)
    assert np.array(summary["grid"]["values"]).shape == (2, 2)
    configs = {
        path.parent.name: json.loads(path.read_text())
        for path in (work / "runs").glob("*/config.json")
    }
    grid = [configs[f"grid-n16-s{seed}"]["seeds"] for seed in range(4)]
    places = [(one["subset"], one["init"], one["order"]) for one in grid]
    assert places == [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)]
    assert all(configs[f"bert_3-n16-s{i}"]["seeds"] == {"subset": 0} for i in range(2))
    # the grid's diagonal is the arm: both streams are its seed
    for seed, place in ((0, 0), (1, 3)):
        first, again = (
            (work / "runs" / name / "predictions" / "test.jsonl").read_text()
            for name in (f"bert_3-n16-s{seed}", f"grid-n16-s{place}")
        )
        assert first == again
    page = (work / "report.html").read_text()
    for title in ("Spread and failures", "What a budget of runs buys",
                  "First weights or data order"):  # fmt: skip
        assert f"<h2>{title}</h2>" in page
    (work / "runs" / "grid-n16-s3").rename(tmp_path / "gone")
    with pytest.raises(InputError, match="holds 3 runs of the arm grid, the plan 4"):
        write_report(work, **going)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_can_be_trained_and_their_arms_differ_in_what_they_say(preset):
    settings = settings_of(preset)
    assert from_config(AblationSettings, to_dict(settings)) == settings
    made = {
        arm: finetune_settings(
            settings, arm, seed=0, rate=one.optim.lr_peak,
            starts={"": "", "lm": "LM", "tapt": ""},
        )
        for arm, one in settings.arms.items()
    }  # fmt: skip
    assert len(set(made.values())) == len(made) == 10
    recipe = made["adam_20"]
    for arm, other in made.items():
        optim = dataclasses.replace(
            other.optim, warmup=0.1, cooldown=0.9, bias_correction=True,
            lr_peak=recipe.optim.lr_peak,
        )  # fmt: skip
        assert dataclasses.replace(other, optim=optim, epochs=20.0) == recipe, arm
    for claim in settings.plan.claims:
        assert claim.rule in STATISTICS[claim.statistic].rules


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"grid__arm": "bert_30"}, "grid.arm is 'bert_30'; did you mean 'bert_3'"),
        ({"grid__orders": "1"}, r"grid.orders is 1; it must be at least 2"),
        ({"arms__bert_3__seeds__subset": "-2"}, "bert_3.seeds.subset is -2"),
    ],
)
def test_a_grid_that_nobody_could_run_is_refused(overrides, said):
    with pytest.raises(InputError, match=said):
        settings_of("quick", **overrides)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rule": "more", "margin": 0.0}, "'sources' and has rule='more'; allowed: 's"),
        ({"arm": "adam_3"}, "about the grid, whose arm, config.grid.arm, is 'bert_3'"),
        ({"statistic": "spread"}, "'spread' and has rule='same'; allowed: 'more'"),
    ],
)
def test_a_claim_that_its_statistic_cannot_judge_is_refused(changes, said):
    settings = settings_of("quick")
    claim = dataclasses.replace(settings.plan.claims[-1], **changes)
    plan = dataclasses.replace(settings.plan, claims=(claim,))
    with pytest.raises(InputError, match=said):
        check(dataclasses.replace(settings, plan=plan), STATISTICS)
