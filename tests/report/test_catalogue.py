"""The list of experiments and the page of all kept results, from files alone."""

import json
import re
from pathlib import Path

import pytest

from tljax.report.catalogue import catalogue
from tljax.report.index import write_index
from tljax.settings import InputError

CLAIM = {
    "name": "a beats b", "estimate": 0.012, "ci95": [0.004, 0.02], "p_holm": 0.03,
    "verdict": "PASS",
}  # fmt: skip


@pytest.fixture
def root(tmp_path) -> Path:
    """Two experiments, of which one has a result, and a folder that is none."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__main__.py").touch()
    (tmp_path / "first" / "README.md").write_text("# first: does a < b hold?\n\nYes.")
    (tmp_path / "parts").mkdir()
    kept = tmp_path / "first" / "results" / "quick"
    kept.mkdir(parents=True)
    paper = {"paper": "P, table 2", "number": "error 6 -> 5", "unit": "nats"}
    summary = {
        "claims": [CLAIM, {**CLAIM, **paper, "name": "c", "verdict": "FAIL"}],
        "phases_seconds": {"one": 60.0, "two": 61.0},
        "time_ended": "2026-11-23",
    }
    (kept / "summary.json").write_text(json.dumps(summary))
    (kept / "arms.svg").touch()
    return tmp_path


def test_question_cost_date_and_answer_are_read(root):
    first, second = catalogue(root)
    assert (first.name, first.question) == ("first", "Does a < b hold?")
    (kept,) = first.kept
    assert (kept.preset, kept.date) == ("quick", "2026-11-23")
    assert kept.cost.replace("\N{NARROW NO-BREAK SPACE}", " ") == "2 min 1 s"
    assert kept.answer == "PASS: a beats b. FAIL: c."
    assert (second.question, second.kept) == ("second", ())


def test_the_page_has_both_numbers_and_links_that_lead_somewhere(root, tmp_path):
    out = tmp_path / "some" / "where"
    path = write_index(catalogue(root), out)
    page = path.read_text()
    assert "does a &lt; b hold" in page.lower() and "No result is kept yet" in page
    assert "P, table 2" in page and "error 6 -&gt; 5" in page
    assert "+1.2 points" in page and "+0.012 nats" in page
    assert "1 kept results, 2 claims" in page
    links = re.findall(r'<a href="([^"]+)"', page)
    assert [Path(link).name for link in links] == [
        "README.md", "arms.svg", "summary.json", "README.md"
    ]  # fmt: skip
    assert all((out / link).exists() for link in links[:3])


def test_a_broken_summary_is_named(root):
    (root / "first" / "results" / "quick" / "summary.json").write_text("{")
    with pytest.raises(InputError, match="summary.json is not valid JSON"):
        catalogue(root)
