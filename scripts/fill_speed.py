"""Writes the tables of docs/speed.md, and the curves, from what docs/measured/ keeps.

    python -m scripts.fill_speed

growth.json is of `tljax bench growth`, precision.json of scripts/compare_precision.py;
growth.html has the log-log figures.
"""

import pathlib
import re
from collections.abc import Iterator

from tljax.report import growth
from tljax.train.files import read_json, write_text

DOCS = pathlib.Path(__file__).parents[1] / "docs"
PRECISION = ("stage", "held-out loss, float32", "bfloat16 less float32, paired",
             "seeds' SD", "TOST, p", "verdict")  # fmt: skip


def growth_rows() -> Iterator[list[str]]:
    """As the command prints them."""
    yield list(growth.HEAD)
    yield from growth.rows(read_json(DOCS / "measured" / "growth.json"))


def precision_rows() -> Iterator[list[str]]:
    """A line a stage."""
    yield list(PRECISION)
    found = read_json(DOCS / "measured" / "precision.json")
    for stage, one in found["stages"].items():
        losses, (low, high) = one["losses"]["float32"], one["interval"]
        yield [
            f"{stage}, {one['unit']}",
            f"{sum(losses) / len(losses):.4f}",
            f"{one['mean_difference']:+.4f} ({low:+.4f} to {high:+.4f})",
            f"{one['seeds_deviation']:.4f}",
            f"{one['p']:.3g}",
            one["verdict"],
        ]


TABLES = {"growth": growth_rows, "precision": precision_rows}


def filled(text: str) -> str:
    """The document with what stands between each pair of marks written anew."""
    for name, rows in TABLES.items():
        head, *body = (f"| {' | '.join(row)} |" for row in rows())
        lines = [head, "| --- " * (head.count("|") - 1) + "|", *body]
        marks = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        text, found = re.subn(
            marks,
            lambda place, lines=lines: "\n".join([place[1].strip(), *lines, place[2]]),
            text,
            flags=re.DOTALL,
        )
        if found != 1:
            raise ValueError(f"{found} places for the table {name!r}, not one")
    return text


if __name__ == "__main__":
    measured = DOCS / "measured"
    page = growth.build_growth_page(read_json(measured / "growth.json"))
    write_text(measured / "growth.html", page)
    document = DOCS / "speed.md"
    document.write_text(filled(document.read_text("utf-8")), "utf-8")
