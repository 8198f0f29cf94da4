"""summary.json from a work folder whose every answer is set by hand."""

import json
import re

import numpy as np
import pytest

from tljax.report import records, statistics
from tljax.report.summary import build_summary
from tljax.settings import InputError

SIZES, SEEDS, ITEMS = (50, 100), 8, 40
IDS = [f"item{i}" for i in range(ITEMS)]
# Right answers of 40 by arm, n and seed: transfer at 50 = scratch at 100.
RIGHT = {
    ("scratch", 50): [20, 21, 22, 23, 20, 21, 22, 23],
    ("scratch", 100): [24, 25, 26, 27, 24, 25, 26, 27],
    ("transfer", 50): [24, 25, 26, 27, 24, 25, 26, 27],
    ("transfer", 100): [30, 30, 33, 32, 31, 30, 33, 32],
    ("tfidf", 50): [22] * 8,
    ("tfidf", 100): [26] * 8,
}
PLAN = {
    "sizes": list(SIZES),
    "seeds": SEEDS,
    "alpha": 0.05,
    "claims": [
        {
            "name": "transfer_beats_scratch",
            "arm": "transfer",
            "against": "scratch",
            "n": n,
            "at_least": 0.0,
        }
        for n in SIZES
    ],
}
BITS = {"value": 1.7, "se": 0.01, "documents": 100, "bytes": 120_000}


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value) + "\n", encoding="utf-8")


def write_run(folder, right):
    """A run whose first `right` answers are right; labels alternate."""
    lines = []
    for i, item in enumerate(IDS):
        label, other = ("neg", "pos") if i % 2 else ("pos", "neg")
        said = label if i < right else other
        probabilities = {"neg": 0.0, "pos": 0.0, said: 1.0}
        lines.append(
            {
                "id": item,
                "label": label,
                "prediction": said,
                "probabilities": probabilities,
            }
        )
    path = folder / "predictions" / "test.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def folder(tmp_path):
    work = tmp_path / "low_shot"
    write(work / "config.json", {"plan": PLAN})
    for (arm, n), rights in RIGHT.items():
        for seed, right in enumerate(rights):
            run = work / "runs" / f"{arm}-n{n}-s{seed}"
            write_run(run, right)
            kind = "tfidf" if arm == "tfidf" else "finetune"
            write(run / "config.json", {"kind": kind})
            if arm != "tfidf":
                manifest = {"padding_share": 0.1, "tokens": 100}
                write(run / "manifest.json", manifest)
    write(work / "lm" / "manifest.json", {"padding_share": 0.0, "tokens": 6_800})
    final = {"final": True, "step": 9, "bits_per_byte": BITS}
    write(work / "lm" / "metrics.jsonl", final)
    write(work / "phases.json", {"pretrain": 12.5})
    # The last eight items: only transfer's two best runs have one of them right.
    contamination = {
        "ngram": 8,
        "share": 0.2,
        "test_items": ITEMS,
        "contaminated_ids": IDS[-8:],
    }
    write(work / "contamination.json", contamination)
    return work


def summarise(folder):
    return build_summary(records.load_experiment(folder))


def raises(message):
    return pytest.raises(InputError, match=re.escape(message))


def test_arms(folder):
    arms = summarise(folder)["arms"]
    assert {arm: list(by_n) for arm, by_n in arms.items()} == {
        arm: ["50", "100"] for arm in ("scratch", "transfer", "tfidf")
    }
    for (arm, n), right in RIGHT.items():
        found = arms[arm][str(n)]
        assert found["values"] == pytest.approx([r / ITEMS for r in right])
        assert found["mean"] == pytest.approx(np.mean(right) / ITEMS)
        low, high = found["ci95"]
        assert 0 < low < found["mean"] < high < 1
        assert found["runs"] == [f"runs/{arm}-n{n}-s{seed}" for seed in range(SEEDS)]


def test_claims(folder):
    at_50, at_100 = summarise(folder)["claims"]
    assert (at_50["name"], at_50["n"]) == ("transfer_beats_scratch", 50)
    # Every seed gains 4 of 40: the smallest p of 8 seeds, twice in a family of two.
    assert at_50["estimate"] == pytest.approx(0.1)
    assert at_50["p"] == 2 / 2**8
    assert at_50["p_holm"] == pytest.approx(4 / 2**8)
    assert at_50["verdict"] == "PASS"
    assert at_50["smallest_detectable"] == pytest.approx(0.0, abs=1e-9)
    gains_S = (np.array(RIGHT["transfer", 100]) - RIGHT["scratch", 100]) / ITEMS
    assert at_100["estimate"] == pytest.approx(gains_S.mean())
    assert at_100["ci95"][0] < gains_S.mean() < at_100["ci95"][1]
    # Holm's first step tests at alpha / 2.
    assert at_100["smallest_detectable"] == pytest.approx(
        statistics.smallest_detectable(gains_S, alpha=0.025)
    )


def test_everything_else(folder):
    found = summarise(folder)
    multiplier = found["label_multiplier"]
    assert (multiplier["n"], multiplier["value"], multiplier["censored"]) == (
        100,
        1.0,
        True,
    )
    assert found["bits_per_byte"] == BITS
    assert found["phases_seconds"] == {"pretrain": 12.5}
    # 32 runs x 100 tokens, a tenth padding; 6,800 tokens without: 320 of 10,000.
    assert found["padding_share"] == pytest.approx(0.032)
    assert (found["seeds"], found["test_items"], found["alpha"]) == (8, 40, 0.05)


def test_the_clean_rest(folder):
    found = summarise(folder)["contamination"]
    assert (found["ngram"], found["share"], found["clean_items"]) == (8, 0.2, 32)
    # Of the first 32 items scratch has as many right as before, transfer up to 32.
    clean = [min(right, 32) / 32 for right in RIGHT["transfer", 100]]
    assert found["arms"]["transfer"]["100"]["mean"] == pytest.approx(np.mean(clean))
    assert found["arms"]["scratch"]["50"]["mean"] == pytest.approx(21.5 / 32)
    difference = found["differences"][0]
    assert (difference["name"], difference["n"]) == ("transfer_beats_scratch", 50)
    assert difference["estimate"] == pytest.approx(4 / 32)


def test_no_clean_rest(folder):
    record = {"ngram": 8, "share": 1.0, "test_items": 40, "contaminated_ids": IDS}
    write(folder / "contamination.json", record)
    found = summarise(folder)["contamination"]
    assert (found["clean_items"], found["arms"], found["differences"]) == (0, {}, [])


def test_same_records_same_summary_as_json(folder):
    text = json.dumps(summarise(folder), allow_nan=False)
    assert text == json.dumps(summarise(folder), allow_nan=False)


def test_a_folder_that_does_not_fit_its_plan_is_refused(folder):
    run = folder / "runs" / "transfer-n100-s3"
    run.rename(folder / "runs" / ".transfer-n100-s3")
    with raises(f"{run} is missing (1 of 8 seeds)"):
        summarise(folder)
    write(folder / "config.json", {"plan": PLAN | {"seeds": 9}})
    with raises("holds 8 seeds, the plan in config.json 9"):
        summarise(folder)
    write(folder / "config.json", {"plan": PLAN | {"sizes": [50, 100, 500]}})
    with raises("scratch-n500-s0 is missing (8 of 8 seeds)"):
        summarise(folder)


def test_broken_records_are_refused(folder):
    write(folder / "runs" / "scratch-n50-s0" / "manifest.json", {"tokens": 3})
    with raises("scratch-n50-s0/manifest.json: padding_share and tokens"):
        summarise(folder)
    write(folder / "lm" / "metrics.jsonl", {"final": True, "step": 9})
    with raises("lm/metrics.jsonl: the final record's bits_per_byte is None"):
        summarise(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"contaminated_ids": ["nowhere"]}, "with 1 unknown ids"),
        ({"test_items": 41}, "but about 41"),
    ],
)
def test_contamination_of_other_items_is_refused(folder, change, message):
    path = folder / "contamination.json"
    write(path, json.loads(path.read_text()) | change)
    with raises(message):
        summarise(folder)
