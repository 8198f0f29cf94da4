"""The trials as CSV and Parquet, cell by cell."""

import csv
import sys

import pytest

from tljax.report.export_trials import export_trials
from tljax.settings import InputError


@pytest.fixture
def folder(sweep, tmp_path):
    """Trial 0 with two scores by hand, trial 1 of LoRA that failed with a comma."""
    rows = sweep.rows(2, 2)
    rows[0] |= {"values": [0.5, 0.7], "params": {"optim.lr_peak": 1e-3,
                "optim.weight_decay": 0, "transfer.method": "full"}}  # fmt: skip
    rows[1] |= {"state": "failed", "values": [], "reason": 'out of "memory", twice'}
    return sweep.write(tmp_path / "sweep", rows, seeds=2)


def test_csv(folder, tmp_path):
    out = export_trials(folder, tmp_path / "new" / "t.csv")
    with open(out) as file:
        first, second = csv.DictReader(file)
    assert list(first) == [
        "number", "state", "value", "se", "optim.lr_peak", "optim.weight_decay",
        "transfer.method", "transfer.rank", "seed_0", "seed_1", "seconds", "reason",
    ]  # fmt: skip
    assert float(first["value"]) == 0.6
    assert float(first["se"]) == pytest.approx(0.1)  # sd .1414 / sqrt(2)
    assert (first["seed_1"], first["transfer.rank"]) == ("0.7", "")
    assert (second["state"], second["value"], second["se"]) == ("failed", "", "")
    assert (second["transfer.rank"], second["reason"]) == (
        "2",
        'out of "memory", twice',
    )


def test_parquet_keeps_types_and_what_is_absent(sweep, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = sweep.rows(2, 2)
    rows[0]["params"]["optim.weight_decay"] = "none"  # beside a number
    folder = sweep.write(tmp_path / "sweep", rows, seeds=2)
    table = parquet.read_table(export_trials(folder, tmp_path / "t.parquet"))
    assert table["number"].to_pylist() == [0, 1]
    assert table["transfer.rank"].to_pylist() == [None, 2]
    assert table["optim.weight_decay"].to_pylist() == ["none", "0.01"]
    assert table["value"].to_pylist() == pytest.approx([r["value"] for r in rows])
    assert table["seed_1"].to_pylist() == [row["values"][1] for row in rows]


def test_what_cannot_be_written_is_one_line(folder, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"ends in \.csv or \.parquet"):
        export_trials(folder, tmp_path / "t.xlsx")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'tljax\[parquet\]'"):
        export_trials(folder, tmp_path / "t.parquet")
    assert list(tmp_path.iterdir()) == [folder]
