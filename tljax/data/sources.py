"""Where text and labels come from: a URI names it, `open_source` opens it.

pkg:NAME   tfds:NAME   text:DIR   jsonl:FILE?text=body&label=y   csv:FILE?text=a&label=y
Every source has the splits train, validation and test, the same wherever it is opened.
Opening a user's file imports nothing but numpy's neighbours: TFDS only where it reads.
"""

import dataclasses
import os
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tljax.data import splits
from tljax.data.files import UserFile
from tljax.data.formats import CsvFile, JsonLines, open_text
from tljax.data.packages import PACKAGED
from tljax.data.prepared import open_packaged
from tljax.data.splits import SPLITS, Dropped, Example
from tljax.settings import InputError, suggestion


@dataclasses.dataclass(frozen=True)
class Facts:
    """What must be said with every number that comes from a source.

    `sha256` is that of the file (of a folder: of its files' paths and SHA-256s);
    `pinned`: the source is refused unless it has this one. '' where there is none.
    """

    title: str
    licence: str
    origin: str
    pinned: bool
    sha256: str


@dataclasses.dataclass(frozen=True)
class CatalogueRow:
    """One built-in source, as `tljax data list` shows it; sizes are rows a split."""

    uri: str
    title: str
    licence: str
    origin: str
    sizes: Mapping[str, int]


class Source:
    """An opened source. `notes` say in words what was dropped or cut, one each."""

    splits = SPLITS

    def __init__(
        self,
        *,
        uri: str,
        facts: Facts,
        examples: Mapping[str, Sequence[Example]],
        notes: Sequence[str],
        hashes: Mapping[str, str] | None = None,
    ):
        """Args: hashes: what `split_hash` returns, where it is known already."""
        self.uri, self.facts, self.notes = uri, facts, tuple(notes)
        self._examples = examples
        self._hashes = dict(hashes or {})

    def examples(self, split: str) -> Sequence[Example]:
        """The rows of 'train', 'validation' or 'test', in their one order."""
        if split not in self.splits:
            raise InputError(
                f"{self.uri} has no split {split!r}{suggestion(split, self.splits)};"
                f" there are: {', '.join(self.splits)}"
            )
        return self._examples[split]

    def split_hash(self, split: str) -> str:
        """Hex SHA-256 over (id, text, label) of every row in order; reads them all
        unless it is known already."""
        if split not in self._hashes:
            self._hashes[split] = splits.split_hash(self.examples(split))
        return self._hashes[split]


def default_cache() -> Path:
    """The folder of $TLJAX_CACHE, which is made, else ~/.cache/tljax.

    Raises:
      InputError: the folder that was asked for cannot be made.
    """
    given = os.environ.get("TLJAX_CACHE")
    folder = _path(given or "~/.cache/tljax")
    if given:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"TLJAX_CACHE={given} cannot be made: {error.strerror}; set it to a"
                " folder that can be written"
            ) from error
    return folder


def _path(text: str) -> Path:
    """With ~ as the user's home; Path.expanduser would raise at ~SOMEBODY_UNKNOWN."""
    return Path(os.path.expanduser(text))


def open_source(uri: str, *, cache: Path | None = None) -> Source:
    """Opens a source; a packaged one is fetched and prepared the first time.

    Args:
      uri: see the head of this file. In the query `text` and `label` name columns
        (`text` is "text" if left out; without `label` a file is unlabelled).
      cache: folder for what is fetched; None = `default_cache()`.

    Raises:
      InputError: the URI, the file or the fetched data cannot be used.
    """
    scheme, colon, rest = uri.partition(":")
    if not colon or scheme not in _OPENERS:
        raise InputError(
            f"source {uri!r}: {_scheme_problem(uri, scheme, colon)}; allowed:"
            " pkg:NAME, tfds:NAME, text:DIR, jsonl:FILE?text=a&label=b,"
            " csv:FILE?text=a&label=b"
        )
    opener, keys = _OPENERS[scheme]
    place, _, query = rest.partition("?")
    if not place:
        raise InputError(f"source {uri!r} names nothing after {scheme!r}:")
    return opener(uri, place, _query(uri, query, keys), cache or default_cache())


def catalogue() -> list[CatalogueRow]:
    """The built-in sources; fetches and opens nothing."""
    return [
        CatalogueRow(
            uri=f"pkg:{name}",
            title=packaged.title,
            licence=packaged.licence,
            origin=packaged.origin,
            sizes={
                "train": packaged.train_items,
                "validation": packaged.validation_items,
                "test": packaged.test_items,
            },
        )
        for name, packaged in PACKAGED.items()
    ]


def _scheme_problem(uri: str, scheme: str, colon: str) -> str:
    if colon:
        return f"no scheme {scheme!r}{suggestion(scheme, _OPENERS)}"
    if uri in PACKAGED:
        return f"no scheme; did you mean 'pkg:{uri}'?"
    suffix = Path(uri.partition("?")[0]).suffix.removeprefix(".")
    guess = suffix if suffix in _OPENERS else "text" if os.path.isdir(uri) else ""
    return f"no scheme; did you mean '{guess}:{uri}'?" if guess else "no scheme"


def _query(uri: str, query: str, keys: Sequence[str]) -> dict[str, str]:
    try:
        pairs = urllib.parse.parse_qsl(
            query, keep_blank_values=True, strict_parsing=bool(query), errors="strict"
        )
    except ValueError as error:
        raise InputError(
            f"source {uri!r}: {query!r} must read key=value&key=value"
        ) from error
    values: dict[str, str] = {}
    for key, value in pairs:
        if key not in keys:
            raise InputError(
                f"source {uri!r}: unknown key {key!r}{suggestion(key, keys)};"
                f" allowed: {', '.join(keys) or 'none'}"
            )
        if key in values or not value:
            raise InputError(f"source {uri!r}: {key!r} must have one value")
        values[key] = value
    return values


def _open_packaged(uri: str, name: str, query: dict, cache: Path) -> Source:
    if name not in PACKAGED:
        raise InputError(
            f"source {uri!r}: no packaged data {name!r}{suggestion(name, PACKAGED)};"
            f" there are: {', '.join(PACKAGED)}"
        )
    packaged = PACKAGED[name]
    prepared = open_packaged(name, cache=cache)
    facts = Facts(
        title=packaged.title,
        licence=packaged.licence,
        origin=packaged.origin,
        pinned=True,
        sha256=packaged.package.sha256,
    )
    return Source(
        uri=uri,
        facts=facts,
        examples=prepared.examples,
        notes=_dropped_notes(Dropped(prepared.duplicates, prepared.conflicts)),
        hashes=prepared.hashes,
    )


def _open_tfds(uri: str, name: str, query: dict, cache: Path) -> Source:
    from tljax.data.stored import open_tfds  # late: imports TFDS, 0.4 s

    examples, title, licence, notes = open_tfds(
        name, text=query.get("text"), label=query.get("label"), cache=cache
    )
    facts = Facts(title, licence, f"TensorFlow Datasets, {name}", False, "")
    return Source(uri=uri, facts=facts, examples=examples, notes=notes)


def _open_text(uri: str, place: str, query: dict, cache: Path) -> Source:
    return _from_file(uri, open_text(_path(place)))


def _open_table(uri: str, place: str, query: dict, cache: Path) -> Source:
    table = CsvFile if uri.startswith("csv:") else JsonLines
    text, label = query.get("text", "text"), query.get("label")
    return _from_file(uri, table(_path(place), text=text, label=label))


def _from_file(uri: str, file: UserFile) -> Source:
    path = file.path
    examples, dropped = file.distinct_examples()
    if len(examples) < len(SPLITS):
        raise InputError(
            f"{path} holds {len(examples)} different texts; at least {len(SPLITS)} are"
            " needed, one each for train, validation and test (in one text file, a"
            " blank line ends a text)"
        )
    facts = Facts(path.name, "the user's own", str(path), False, file.sha256)
    return Source(
        uri=uri,
        facts=facts,
        examples=splits.cut_by_share(examples),
        notes=_dropped_notes(dropped),
    )


def _dropped_notes(dropped: Dropped) -> list[str]:
    notes = []
    if dropped.duplicates:
        notes.append(f"{dropped.duplicates} repeated texts dropped")
    if dropped.conflicts:
        notes.append(
            f"{dropped.conflicts} of them had another label than the first, which stays"
        )
    return notes


_Opener = Callable[[str, str, dict, Path], Source]
_OPENERS: dict[str, tuple[_Opener, tuple[str, ...]]] = {
    "pkg": (_open_packaged, ()),
    "tfds": (_open_tfds, ("text", "label")),
    "text": (_open_text, ()),
    "jsonl": (_open_table, ("text", "label")),
    "csv": (_open_table, ("text", "label")),
}
