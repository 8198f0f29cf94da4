"""What the terminal shows after an experiment."""

import io
from pathlib import Path

from rich.console import Console

from tljax.report import terminal


def summary(name: str) -> dict:
    claim = {"name": name, "arm": "transfer", "against": "scratch", "n": 100}
    claim |= {"estimate": 0.061, "ci95": [0.04, 0.08], "p": 0.008, "p_holm": 0.0234}
    claim |= {"verdict": "PASS", "at_least": None}
    row = {"ci95": [0.5, 0.56], "values": [0.53]}
    return {
        "seeds": 8,
        "alpha": 0.05,
        "claims": [claim],
        "arms": {
            "scratch": {"100": row | {"mean": 0.531}},
            "transfer": {"100": row | {"mean": 0.592}},
        },
    }


def printed(name: str, report: Path | None = None) -> str:
    console = Console(file=io.StringIO(), width=100)
    terminal.print_summary(summary(name), report=report, console=console)
    return console.file.getvalue()


def test_results_verdicts_answer_and_where_the_report_is() -> None:
    path = Path("/a/" + "long/" * 30) / "report.html"
    text = printed("transfer beats scratch", path)
    for piece in (
        "53.1 (50.0 to 56.0)",
        "+6.1",
        "+4.0 to +8.0",
        ".023",
        "PASS",
        "Yes:",
    ):
        assert piece in text
    assert f"report: {path}\n" in text  # unbroken, however long


def test_runs_whose_loss_was_not_finite_are_told_in_one_line() -> None:
    assert "not finite" not in printed("any")
    console = Console(file=io.StringIO(), width=200)
    lost = summary("any") | {"lost_runs": ["transfer-n100-s3", "scratch-n100-s0"]}
    terminal.print_summary(lost, console=console)
    (line,) = [x for x in console.file.getvalue().splitlines() if "not finite" in x]
    assert line.startswith("2 runs") and line.endswith("-s3, scratch-n100-s0.")


def test_brackets_in_a_name_are_not_markup() -> None:
    assert "beats [bold]" in printed("beats [bold]")
