"""URIs and what they open: own files, the catalogue, and what is refused."""

import subprocess
import sys

import pytest

from tljax.data.packages import PACKAGED
from tljax.data.sources import catalogue, default_cache, open_source
from tljax.data.splits import SPLITS, distinct, split_hash, text_id
from tljax.settings import InputError

ROWS = [(f"text {i}", "ab"[i % 2]) for i in range(20)]


def texts(source):
    return {split: [e.text for e in source.examples(split)] for split in SPLITS}


@pytest.fixture
def reviews(tmp_path):
    path = tmp_path / "reviews.csv"
    lines = ["my text,label", *(f"{text},{label}" for text, label in ROWS)]
    path.write_text("\n".join([*lines, "text 0,a", "text 1,a"]))
    return path


def test_a_csv_becomes_three_splits_that_hold_each_text_once(reviews):
    source = open_source(f"csv:{reviews}?text=my+text&label=label")
    assert [len(source.examples(split)) for split in SPLITS] == [14, 2, 4]
    rows = [e for split in SPLITS for e in source.examples(split)]
    assert {(e.id, e.text, e.label) for e in rows} == {
        (text_id(text), text, label) for text, label in ROWS
    }
    ordered = [ROWS[number][0] for number in distinct(ROWS)[0]]
    assert texts(source)["test"] == ordered[:4]
    assert source.notes == (
        "2 repeated texts dropped",
        "1 of them had another label than the first, which stays",
    )
    assert not source.facts.pinned and len(source.facts.sha256) == 64


def test_the_same_rows_are_the_same_splits_from_every_kind_of_file(reviews, tmp_path):
    wanted = texts(open_source(f"csv:{reviews}?text=my text"))
    lines = [f'{{"body": "{text}"}}' for text, _ in reversed(ROWS)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    (tmp_path / "b.txt").write_text("\n\n".join(text for text, _ in ROWS))
    (tmp_path / "folder").mkdir()
    for number, (text, _) in enumerate(ROWS):
        (tmp_path / "folder" / f"{number}.txt").write_text(text)
    for uri in ("jsonl:{}/a.jsonl?text=body", "text:{}/b.txt", "text:{}/folder"):
        source = open_source(uri.format(tmp_path))
        assert texts(source) == wanted
        assert source.examples("train")[0].label is None


def test_a_folders_sha256_sees_names_and_contents(tmp_path):
    hashes = set()
    for names, contents in ["abc", "xyz"], ["abd", "xyz"], ["abc", "xyw"]:
        folder = tmp_path / (names + contents)
        folder.mkdir()
        for name, content in zip(names, contents, strict=True):
            (folder / f"{name}.txt").write_text(content)
        hashes.add(open_source(f"text:{folder}").facts.sha256)
    assert len(hashes) == 3


def test_the_split_hash_is_that_of_the_rows(reviews):
    source = open_source(f"csv:{reviews}?text=my+text&label=label")
    unlabelled = open_source(f"csv:{reviews}?text=my+text")
    assert source.split_hash("test") == split_hash(source.examples("test"))
    assert source.split_hash("test") != unlabelled.split_hash("test")


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("cvs:a", ["no scheme 'cvs'", "did you mean 'csv'?", "allowed: pkg:NAME"]),
        ("imdb_reviews", ["did you mean 'pkg:imdb_reviews'?"]),
        ("a/b.csv?text=t", ["did you mean 'csv:a/b.csv?text=t'?"]),
        ("csv:", ["names nothing"]),
        ("a" * 300, ["no scheme", "allowed: pkg:NAME"]),
        ("csv:~nobody_here/a.csv", ["~nobody_here/a.csv does not exist"]),
        ("csv:a.csv?txt=b", ["unknown key 'txt'", "'text'", "allowed: text, label"]),
        ("text:a?text=b", ["unknown key 'text'", "allowed: none"]),
        ("pkg:trec?label=b", ["unknown key 'label'", "allowed: none"]),
        ("csv:a.csv?text", ["'text' must read key=value"]),
        ("csv:a.csv?text=", ["'text' must have one value"]),
        ("csv:a.csv?text=a&text=b", ["'text' must have one value"]),
        ("csv:nowhere/a.csv", ["nowhere/a.csv does not exist"]),
        ("pkg:imdb_review", ["did you mean 'imdb_reviews'?", ", ".join(PACKAGED)]),
    ],
)
def test_a_uri_that_cannot_be_used_is_said_in_one_line(uri, parts):
    with pytest.raises(InputError) as raised:
        open_source(uri)
    assert "\n" not in str(raised.value)
    for part in parts:
        assert part in str(raised.value)


def test_too_few_texts_and_an_unknown_split_are_refused(reviews, tmp_path):
    (tmp_path / "a.txt").write_text("one\n\ntwo\n\none")
    with pytest.raises(InputError, match="holds 2 different texts; at least 3"):
        open_source(f"text:{tmp_path / 'a.txt'}")
    with pytest.raises(InputError, match="no split 'tests'; did you mean 'test'?"):
        open_source(f"csv:{reviews}?text=my+text").examples("tests")


def test_the_catalogue_lists_every_packaged_source_with_its_sizes():
    rows = {row.uri: row for row in catalogue()}
    names = ("imdb_reviews", "rotten_tomatoes", "trec", "product_reviews", "boolq")
    assert set(rows) == {f"pkg:{name}" for name in names}
    sizes = {"train": 5530, "validation": 1000, "test": 2000}
    assert rows["pkg:rotten_tomatoes"].sizes == sizes
    for row in rows.values():
        assert row.title and row.licence and row.origin and tuple(row.sizes) == SPLITS


def test_the_cache_is_the_users_choice(monkeypatch, tmp_path):
    monkeypatch.setenv("TLJAX_CACHE", str(tmp_path))
    assert default_cache() == tmp_path
    monkeypatch.delenv("TLJAX_CACHE")
    assert default_cache().parts[-2:] == (".cache", "tljax")


def test_own_files_open_without_tfds(reviews):
    code = (
        "import sys; from tljax.data import sources;"
        f"sources.catalogue(); sources.open_source('csv:{reviews}?text=my+text');"
        "print({'tensorflow_datasets', 'jax', 'grain'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_a_cache_that_was_asked_for_and_cannot_be_made_is_refused(
    tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("TLJAX_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(InputError, match="^TLJAX_CACHE=.*/file/cache cannot be made: "):
        default_cache()
