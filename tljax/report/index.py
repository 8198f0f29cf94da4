"""One page of all kept results: every claim, the paper's number beside ours.

experiments/*/results/*/summary.json -> tables -> OUT/index.html, with links
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tljax.report.catalogue import Experiment, Kept
from tljax.report.markup import escape, measured, p_value, section, table
from tljax.report.page import assemble
from tljax.train.files import write_text

HEAD = (
    "Claim, and what the paper found",
    "Here, 95 % interval of it alone",
    "Holm p",
    "Verdict",
)


def write_index(experiments: list[Experiment], folder: Path) -> Path:
    """Writes the page, whole or not at all; returns its path.

    Args:
      experiments: `catalogue()`.
      folder: where to; links are relative to it.
    """
    body = [_experiment(one, folder) for one in experiments]
    claims = sum(len(k.summary["claims"]) for one in experiments for k in one.kept)
    results = sum(len(one.kept) for one in experiments)
    subtitle = f"{results} kept results, {claims} claims declared before their runs"
    path = folder / "index.html"
    write_text(path, assemble("What was found", subtitle, body))
    return path


def _experiment(one: Experiment, folder: Path) -> str:
    readme = f"<p>{_link(one.folder / 'README.md', folder, 'How it was done')}</p>"
    kept = "".join(_kept(result, folder) for result in one.kept)
    missing = "" if one.kept else "<p>No result is kept yet.</p>"
    return section(f"{one.name}: {one.question}", readme, kept, missing)


def _kept(result: Kept, folder: Path) -> str:
    """A result's claims, with links to its numbers and figures."""
    rows = [_claim(claim) for claim in result.summary["claims"]]
    files = [
        path
        for path in sorted(result.folder.iterdir())
        if path.suffix in (".json", ".svg", ".html")
    ]
    links = ", ".join(_link(path, folder, path.name) for path in files)
    facts = [result.date, f"{result.cost} of computing", links]
    told = table(HEAD, rows) if rows else f"<p>{escape(result.answer)}</p>"
    note = f'<p class="note">{" · ".join(filter(None, facts))}</p>'
    return f"<h3>{escape(result.preset)}</h3>{note}{told}"


def _claim(claim: Mapping[str, Any]) -> list[str]:
    unit = claim.get("unit", "points")
    estimate, low, high = (
        measured(number, unit, signed=True)
        for number in (claim["estimate"], *claim["ci95"])
    )
    verdict = escape(claim["verdict"])
    paper = ": ".join(claim[key] for key in ("paper", "number") if key in claim)
    return [
        f"{escape(claim['name'])}<br><span class='quiet'>{escape(paper)}</span>",
        f"{estimate} {escape(unit)} <span class='quiet'>{low} to {high}</span>",
        p_value(claim["p_holm"]),
        f'<span class="verdict {verdict.lower()}">{verdict}</span>',
    ]


def _link(path: Path, folder: Path, text: str) -> str:
    place = Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    return f'<a href="{escape(place)}">{escape(text)}</a>'
