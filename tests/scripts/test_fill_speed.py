"""The tables of docs/speed.md are those of the figures that are kept."""

import pytest

from scripts import fill_speed


def test_the_document_shows_the_figures_that_are_kept():
    text = (fill_speed.DOCS / "speed.md").read_text("utf-8")
    assert fill_speed.filled(text) == text


def test_a_table_goes_between_its_marks_and_nowhere_else(monkeypatch):
    rows = {"a": lambda: [["x", "y"], ["1", "2"]]}
    monkeypatch.setattr(fill_speed, "TABLES", rows)
    text = "before\n<!-- a -->\nold\n<!-- end -->\nafter <!-- end -->\n"
    assert fill_speed.filled(text) == (
        "before\n<!-- a -->\n| x | y |\n| --- | --- |\n| 1 | 2 |\n<!-- end -->\n"
        "after <!-- end -->\n"
    )
    with pytest.raises(ValueError, match="0 places for the table 'a'"):
        fill_speed.filled("no marks")
