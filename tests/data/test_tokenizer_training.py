"""A trained vocabulary is kept: the same text and settings are not learnt again."""

import types

import pytest

from tljax.data import tokenizer_training
from tljax.data.splits import Example
from tljax.data.tokenizer_training import trained_tokenizer
from tljax.settings import InputError

TEXT = "the cat sat on the mat and the dog lay on the rug"


def source(text=TEXT):
    """Of one document, which names it."""
    examples = [Example.of(text, None)]
    return types.SimpleNamespace(
        examples=lambda split: examples, split_hash=lambda split: examples[0].id * 4
    )


@pytest.fixture
def learnt(monkeypatch):
    """How often a vocabulary was learnt."""
    calls, learn = [], tokenizer_training.train_tokenizer

    def counted(texts, **settings):
        calls.append(settings)
        return learn(texts, **settings)

    monkeypatch.setattr(tokenizer_training, "train_tokenizer", counted)
    return calls


def test_the_same_text_is_learnt_once(tmp_path, learnt):
    asked = {"vocab_size": 262, "normalization": "none", "cache": tmp_path}
    first, again = (trained_tokenizer(source(), **asked) for _ in range(2))
    assert len(learnt) == 1 and first.sha256 == again.sha256
    assert first.vocab_size == 262


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        (TEXT + " too", {}),
        (TEXT, {"vocab_size": 264}),
        (TEXT, {"normalization": "lower"}),
    ],
)
def test_another_text_or_setting_is_learnt_anew(tmp_path, learnt, text, changed):
    asked = {"vocab_size": 262, "normalization": "none", "cache": tmp_path}
    trained_tokenizer(source(), **asked)
    trained_tokenizer(source(text), **asked | changed)
    assert len(learnt) == 2


def test_a_vocabulary_too_small_leaves_nothing_behind(tmp_path):
    with pytest.raises(InputError, match="at least 258"):
        trained_tokenizer(
            source(), vocab_size=200, normalization="none", cache=tmp_path
        )
    assert not any(tmp_path.iterdir())
