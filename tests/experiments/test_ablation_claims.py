"""Claims judged on made records: each rule passes, fails and stays open."""

import json
import math

import numpy as np
import pytest

from experiments.ablation.claims import (
    STATISTICS,
    Evidence,
    interval,
    judge,
    paired,
)
from experiments.ablation.settings import Claim
from tljax.report.claims import told
from tljax.report.records import Run
from tljax.settings import InputError

SEEDS, ITEMS = 9, 400
NOISE = np.linspace(-0.004, 0.004, SEEDS)[:, None]


def claim(**changes) -> Claim:
    return Claim(**{
        "name": "a beats b", "paper": "P 2020", "number": "1 -> 2",
        "statistic": "made", "arm": "a", "against": "b", **changes,
    })  # fmt: skip


def judged(differences_S, **changes) -> dict:
    """The row of one claim whose arm exceeds the other so, seed by seed."""
    values = {"a": np.asarray(differences_S)[:, None], "b": np.zeros((SEEDS, 1))}
    known = {"made": paired("Made", "points", lambda _, arm, split: values[arm])}
    (row,) = judge([claim(**changes)], None, known, alpha=0.05)
    return row


@pytest.mark.parametrize(
    ("rule", "margin", "shift", "verdict"),
    [
        ("more", 0.0, 0.02, "PASS"),
        ("more", 0.0, -0.02, "FAIL"),
        ("more", 0.0, 0.0, "INCONCLUSIVE"),
        ("more", 0.01, 0.02, "PASS"),
        ("more", 0.03, 0.02, "FAIL"),  # sure, and sure to be too little
        ("no_worse", 0.01, 0.0, "PASS"),
        ("no_worse", 0.01, -0.02, "FAIL"),
        ("no_worse", 0.01, -0.0095, "INCONCLUSIVE"),
        ("same", 0.01, 0.0, "PASS"),
        ("same", 0.01, 0.02, "FAIL"),
        ("same", 0.01, -0.02, "FAIL"),
        ("same", 0.01, 0.0095, "INCONCLUSIVE"),
    ],
)
def test_each_rule_passes_fails_and_stays_open(rule, margin, shift, verdict):
    row = judged(shift + NOISE[:, 0], rule=rule, margin=margin)
    assert row["verdict"] == verdict
    assert row["estimate"] == pytest.approx(shift, abs=1e-12)


def test_a_claim_that_all_seeds_bear_out_has_the_smallest_p_of_its_test():
    assert judged(0.02 + NOISE[:, 0])["p"] == 2 / 2**SEEDS
    assert judged(NOISE[:, 0], rule="no_worse", margin=0.01)["p"] == 1 / 2**SEEDS
    assert judged(0.02 + NOISE[:, 0])["in_favour"] == SEEDS


def test_a_family_pays_by_holm_and_keeps_the_papers_number():
    values = {"a": 0.02 + NOISE, "b": np.zeros((SEEDS, 1)), "c": NOISE}
    known = {"made": paired("Made", "points", lambda _, arm, split: values[arm])}
    rows = judge([claim(), claim(name="c", arm="c")], None, known, alpha=0.05)
    assert [row["verdict"] for row in rows] == ["PASS", "INCONCLUSIVE"]
    assert rows[0]["p_holm"] == 2 * rows[0]["p"]
    assert rows[0]["number"] == "1 -> 2"
    assert told(rows) == "PASS: a beats b. INCONCLUSIVE: c."


def test_interval_over_seeds_alone_is_students_and_over_items_holds_the_mean():
    low, high = interval(NOISE)
    # t at 8 degrees of freedom, .975: 2.306
    half = 2.306 * NOISE.std(ddof=1) / math.sqrt(SEEDS)
    assert (low, high) == pytest.approx((-half, half), abs=1e-6)
    assert interval(np.full((SEEDS, 1), 0.5)) == (0.5, 0.5)
    right_SI = (np.arange(SEEDS * ITEMS).reshape(SEEDS, ITEMS) % 4 > 0) * 1.0
    low, high = interval(right_SI)
    assert low < 0.75 < high


@pytest.fixture
def evidence(tmp_path):
    """Two runs of one arm: the second was lost to a loss that was not finite."""
    runs = []
    for seed, (losses, accuracies) in enumerate(
        [([0.7, 0.3], [0.5, 0.8, 0.7]), ([0.7], [0.5])]
    ):
        folder = tmp_path / "runs" / f"a-n4-s{seed}"
        (folder / "predictions").mkdir(parents=True)
        lines = [
            *(
                {"step": i, "split": "train", "loss_nats": x}
                for i, x in enumerate(losses)
            ),
            *(
                {"step": i, "split": "validation", "accuracy": x}
                for i, x in enumerate(accuracies)
            ),
        ]
        stopped = {"stopped": {"reason": "not finite", "step": 1, "of_steps": 2}}
        lines.append({"step": 2, "final": True, **(stopped if seed else {})})
        text = "".join(f"{json.dumps(line)}\n" for line in lines)
        (folder / "metrics.jsonl").write_text(text)
        rows = [
            {"id": str(i), "label": label, "prediction": "y",
             "probabilities": {"n": 0.4, "y": 0.6}}
            for i, label in enumerate("ny")
        ]  # fmt: skip
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        (folder / "predictions" / "test.jsonl").write_text(text)
        runs.append(Run(folder, "a", 4, seed, True))
    return Evidence({"a": tuple(runs)})


def test_measures_are_read_from_records_and_a_lost_run_knows_nothing(evidence):
    def measured(name):
        return STATISTICS[name].measure(evidence, "a", "test")

    assert measured("accuracy").tolist() == [[0, 1], [0, 1]]
    np.testing.assert_allclose(measured("train_loss"), [[0.3], [math.log(2)]])
    np.testing.assert_allclose(measured("late_degradation"), [[0.1], [0.0]])


def test_records_without_what_is_measured_are_refused(evidence):
    for run in evidence.arms["a"]:
        (run.folder / "metrics.jsonl").write_text('{"step": 2, "final": true}\n')
    with pytest.raises(InputError, match="has no train loss_nats; start the same"):
        STATISTICS["train_loss"].measure(evidence, "a", "test")
