"""The rule that chooses the items shown, on four items answered by two seeds."""

import json
from pathlib import Path

import numpy as np

from tljax.report import records
from tljax.report.disagreements import find_disagreements, middle_n

# Probability of the true label (class "a" for all) per arm, seed and item w, x, y, z.
TRANSFER = ([0.9, 0.8, 0.2, 0.6], [0.9, 0.7, 0.3, 0.4])
SCRATCH = ([0.4, 0.1, 0.6, 0.99], [0.3, 0.2, 0.6, 0.99])


def answers(folder: Path) -> dict[records.Run, records.Predictions]:
    found = {}
    for arm, seeds in (("scratch", SCRATCH), ("transfer", TRANSFER)):
        for seed, true in enumerate(seeds):
            run = records.Run(folder / f"{arm}-n50-s{seed}", arm, 50, seed, True)
            path = run.folder / "predictions" / "test.jsonl"
            path.parent.mkdir(parents=True)
            rows = [json.dumps({"id": i, "text": f"text {i}"}) for i in "wxyz"]
            path.write_text("\n".join(rows) + "\n")
            probability_I = np.array(true)
            found[run] = records.Predictions(
                ids=tuple("wxyz"),
                labels_I=np.zeros(4, np.int32),
                predictions_I=(probability_I < 0.5).astype(np.int32),
                probabilities_IC=np.stack([probability_I, 1 - probability_I], axis=1),
                classes=("a", "b"),
            )
    return found


def test_most_seeds_first_then_the_larger_gap(tmp_path: Path) -> None:
    found = find_disagreements(answers(tmp_path), n=50)
    # w and x: transfer right, scratch wrong with both seeds; the gap of x is larger.
    # y: the reverse with both; z: the reverse with seed 1 only, though with more gap.
    assert [(one.id, one.right, one.seeds) for one in found] == [
        ("x", "transfer", 2),
        ("w", "transfer", 2),
        ("y", "scratch", 2),
        ("z", "scratch", 1),
    ]
    assert found[0].text == "text x"
    assert found[0].label == "a"
    assert found[0].of == 2
    np.testing.assert_allclose(found[0].probability["transfer"], 0.75)


def test_at_most_so_many_each_and_none_without_pairs(tmp_path: Path) -> None:
    found = answers(tmp_path)
    assert [one.id for one in find_disagreements(found, n=50, each=1)] == ["x", "y"]
    assert find_disagreements(found, n=100) == []


def test_middle_n_is_the_lower_of_two() -> None:
    assert middle_n([500, 50, 100, 50]) == 100
    assert middle_n([50, 100]) == 50
