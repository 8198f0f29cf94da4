"""The rule of the comparison by hand, and which runs it trains."""

import json
import pathlib

import numpy as np
import pytest

from scripts import compare_precision as comparison

FLOAT32 = np.array([2.0, 2.1, 1.9, 2.05, 1.95, 2.0])  # standard deviation .0707


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([0.01, -0.01, 0.0, 0.01, -0.01, 0.005], "PASS"),
        ([0.2, 0.21, 0.19, 0.2, 0.2, 0.2], "FAIL"),
        ([0.3, -0.3, 0.1, -0.1, 0.2, -0.2], "INCONCLUSIVE"),
        ([-0.2, -0.21, -0.19, -0.2, -0.2, -0.2], "INCONCLUSIVE"),  # better is not "as"
    ],
)
def test_the_verdict_follows_the_rule(differences, verdict):
    found = comparison.judge(FLOAT32, FLOAT32 + differences)
    assert found["verdict"] == verdict
    assert found["seeds_deviation"] == pytest.approx(0.0707, abs=1e-4)
    assert found["mean_difference"] == pytest.approx(np.mean(differences))


def test_four_seeds_cannot_pass():
    """2^-4 is above .05."""
    assert comparison.judge(FLOAT32[:4], FLOAT32[:4])["verdict"] == "INCONCLUSIVE"


def test_pairs_share_all_but_the_precision(tmp_path, monkeypatch):
    calls = []

    def tljax(argv):
        flags = dict(one.removeprefix("--").split("=", 1) for one in argv[1:])
        calls.append(flags)
        folder = pathlib.Path(flags["workdir"])
        folder.mkdir(parents=True)
        bits = 2.0 + int(flags["config.seed"])
        final = {"final": True, "step": 1, "bits_per_byte": {
            "value": bits, "bytes": 30, "tokens": 10}}  # fmt: skip
        (folder / "metrics.jsonl").write_text(json.dumps(final) + "\n")
        (folder / "predictions").mkdir()
        row = {"id": "a", "label": "x", "prediction": "x",
               "probabilities": {"x": 1 / bits, "y": 1 - 1 / bits}}  # fmt: skip
        (folder / "predictions" / "test.jsonl").write_text(json.dumps(row) + "\n")
        return 0

    monkeypatch.setattr(comparison, "tljax", tljax)
    found = comparison.compare(2, tmp_path)["stages"]
    assert len(calls) == 8
    for short, long in zip(calls[::2], calls[1::2], strict=True):
        differing = {key for key in short if short[key] != long[key]}
        assert differing <= {"workdir", "config.model.dtype", "config.init.source"}
        assert short["config.model.dtype"] != long["config.model.dtype"]
    folders = [one["workdir"] for one in calls]
    assert [one["config.init.source"] for one in calls[4:]] == folders[:4]
    assert found["pre-training"]["losses"]["float32"] == pytest.approx(
        [6 * np.log(2), 9 * np.log(2)]
    )
    assert found["fine-tuning"]["losses"]["bfloat16"] == pytest.approx(
        [np.log(2), np.log(3)]
    )
