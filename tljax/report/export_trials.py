"""A sweep's trials as a table for other programs: CSV, or Parquet with pyarrow.

number, state, value, se, KEY ..., seed_0 ... seed_S-1, seconds, reason
"""

import csv
import io
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tljax.report.sweep_records import Sweep, is_complete, load_sweep, standard_error
from tljax.settings import InputError
from tljax.train.files import write_bytes, write_text


def export_trials(folder: Path | str, out: Path | str) -> Path:
    """Writes the table of a sweep's trials, one row each, by number.

    A key that does not apply to a trial and a score that it does not have are empty.

    Args:
      folder: of the sweep.
      out: a file .csv or .parquet.

    Raises:
      InputError: another suffix; pyarrow lacks; a record is missing or broken; the
        file cannot be written.
    """
    out = Path(out)
    suffix = out.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise InputError(f"{out}: give a file that ends in .csv or .parquet")
    if suffix == ".parquet":
        parquet_library()  # before anything is read
    columns = trial_columns(load_sweep(folder))
    if suffix == ".parquet":
        write_bytes(out, lambda file: _write_parquet(columns, file))
    else:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
        write_text(out, text.getvalue())
    return out


def trial_columns(sweep: Sweep) -> dict[str, list[Any]]:
    """name -> one value a trial; None where there is none."""
    rows = sweep.trials
    values = [row["values"] if is_complete(row) else [] for row in rows]
    columns: dict[str, list[Any]] = {
        "number": [row["number"] for row in rows],
        "state": [row["state"] for row in rows],
        "value": [float(np.mean(one)) if one else None for one in values],
        "se": [standard_error(one) for one in values],
    }
    columns |= {key: [row["params"].get(key) for row in rows] for key in sweep.space}
    for seed in range(sweep.plan["seeds"]):
        columns[f"seed_{seed}"] = [
            row["values"][seed] if seed < len(row["values"]) else None for row in rows
        ]
    columns["seconds"] = [row.get("seconds") for row in rows]
    columns["reason"] = [row.get("reason") or "" for row in rows]
    return columns


def parquet_library() -> Any:
    """pyarrow.parquet. Raises: InputError, where it lacks."""
    try:
        from pyarrow import parquet
    except ImportError:
        raise InputError(
            "Parquet needs pyarrow, which is not installed: pip install"
            " 'tljax[parquet]', or give a file that ends in .csv"
        ) from None
    return parquet


def _write_parquet(columns: dict[str, list[Any]], file: BinaryIO) -> None:
    import pyarrow

    table = pyarrow.table({name: _typed(values) for name, values in columns.items()})
    parquet_library().write_table(table, file)


def _typed(values: list[Any]) -> list[Any]:
    """A column of one type: numbers as they are, choices of mixed types as text."""
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) <= 1 or kinds == {int, float}:
        return [float(v) if kinds == {int, float} and v is not None else v
                for v in values]  # fmt: skip
    return [None if value is None else str(value) for value in values]
