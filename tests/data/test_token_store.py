"""The token store: the drawn layout, the cache, honest byte counts."""

import dataclasses
import hashlib
import resource

import numpy as np
import pytest

from tljax.data import token_store as token_store_lib
from tljax.data import tokenizer as tokenizer_lib
from tljax.data.token_store import open_token_store
from tljax.data.tokenizer import END_ID
from tljax.data.tokenizer_training import train_tokenizer
from tljax.settings import InputError

TEXTS = ("A film.", "", "the film's Ünï", "the end")


@dataclasses.dataclass(frozen=True)
class FakeExample:
    id: str
    text: str
    label: str | None = None


class FakeSource:
    uri = "fake:texts"

    def __init__(self, texts):
        self._texts = texts

    def examples(self, split):
        texts = self._texts if split == "train" else ()
        return [FakeExample(id=str(i), text=text) for i, text in enumerate(texts)]

    def split_hash(self, split):
        return hashlib.sha256(repr((split, self._texts)).encode()).hexdigest()


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, vocab_size=270, normalization="lower")


@pytest.mark.parametrize("characters", [1, 20, 10_000])
def test_layout_is_the_drawn_one_however_it_is_chunked(
    tokenizer, tmp_path, monkeypatch, characters
):
    monkeypatch.setattr(tokenizer_lib, "ENCODE_CHARACTERS", characters)
    store = open_token_store(FakeSource(TEXTS), "train", tokenizer, cache=tmp_path)
    expected = []
    for ids in tokenizer.encode(TEXTS):
        expected += [END_ID, *ids]
    assert store.flat.tolist() == [*expected, END_ID]
    assert len(store) == len(TEXTS)
    assert store.token_count == len(expected)
    for document, ids in enumerate(tokenizer.encode(TEXTS)):
        inputs, targets = store.read(*store.offsets[document : document + 2])
        assert inputs.tolist() == [END_ID, *ids]
        assert targets.tolist() == [*ids, END_ID]


@pytest.mark.parametrize("documents", [1, 3, 1000])
def test_byte_counts_equal_those_of_the_texts(
    tokenizer, tmp_path, monkeypatch, documents
):
    monkeypatch.setattr(token_store_lib, "_CHUNK", documents)
    store = open_token_store(FakeSource(TEXTS), "train", tokenizer, cache=tmp_path)
    counts = store.byte_counts(tokenizer)
    assert counts.tolist() == [len(text.lower().encode()) for text in TEXTS]


def test_second_opening_reads_the_cache(tokenizer, tmp_path, monkeypatch):
    calls = []
    first = open_token_store(
        FakeSource(TEXTS),
        "train",
        tokenizer,
        cache=tmp_path,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(4, 4)]
    monkeypatch.setattr(token_store_lib, "_write_store", None)
    second = open_token_store(FakeSource(TEXTS), "train", tokenizer, cache=tmp_path)
    assert np.array_equal(first.flat, second.flat)
    assert np.array_equal(first.offsets, second.offsets)
    assert len(list((tmp_path / "tokens").iterdir())) == 1


def test_other_texts_or_another_tokenizer_are_another_entry(tokenizer, tmp_path):
    other = train_tokenizer(TEXTS, vocab_size=262, normalization="lower")
    settings = {"split": "train", "cache": tmp_path}
    open_token_store(FakeSource(TEXTS), tokenizer=tokenizer, **settings)
    open_token_store(FakeSource(TEXTS), tokenizer=other, **settings)
    fewer = open_token_store(FakeSource(TEXTS[:2]), tokenizer=tokenizer, **settings)
    assert len(fewer) == 2
    assert len(list((tmp_path / "tokens").iterdir())) == 3


def test_an_interrupted_write_leaves_nothing_behind(tokenizer, tmp_path):
    def fail(done, documents):
        raise KeyboardInterrupt

    given = {"tokenizer": tokenizer, "cache": tmp_path, "progress": fail}
    with pytest.raises(KeyboardInterrupt):
        open_token_store(FakeSource(TEXTS), "train", **given)
    assert not list(tmp_path.iterdir())


def test_a_cache_that_cannot_be_written_is_told_in_one_line(tokenizer, tmp_path):
    (tmp_path / "file").write_text("")
    said = "^cannot write .*/file/tokens/.*: Not a directory; .* by TLJAX_CACHE$"
    with pytest.raises(InputError, match=said):
        open_token_store(FakeSource(TEXTS), "train", tokenizer, cache=tmp_path / "file")


def test_a_disk_that_fills_up_at_the_very_end_is_noticed(tokenizer, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150, before[1]))  # a header has 128
    try:
        with pytest.raises(InputError, match="File too large; make room"):
            open_token_store(FakeSource(TEXTS), "train", tokenizer, cache=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_a_process_that_was_faster_is_no_error(tokenizer, tmp_path):
    given = {"split": "train", "tokenizer": tokenizer, "cache": tmp_path}

    def overtake(done, total):
        open_token_store(FakeSource(TEXTS), **given)

    store = open_token_store(FakeSource(TEXTS), **given, progress=overtake)
    assert len(store) == len(TEXTS)
    assert len(list((tmp_path / "tokens").iterdir())) == 1


def test_a_split_without_documents_is_refused(tokenizer, tmp_path):
    with pytest.raises(InputError, match="fake:texts has no documents"):
        open_token_store(FakeSource(TEXTS), "test", tokenizer, cache=tmp_path)
