"""The tokenizer: lossless bytes, no forged special tokens, normalisers by hand."""

import hashlib
import random

import numpy as np
import pytest

from tljax.data import tokenizer as tokenizer_lib
from tljax.data.tokenizer import END_ID, PAD_ID, Tokenizer, train_tokenizer
from tljax.settings import InputError

TEXTS = (
    "The film's best, funniest moment.",
    "It doesn't care (much) about the actors' faces; the rest is fine.",
    "Ünïcode, 日本語 and 🎬 are bytes too.",
    "the the the film film film moment moment",
)

JOINED = [
    ("the film 's best , funniest moment .", "The film's best, funniest moment."),
    ("it does n't care ; they 're fine !", "It doesn't care; they're fine!"),
    ("i ca n't , we wo n't : no ?", "I can't, we won't: no?"),
    ("( a part ) of the actors ' faces", "(a part) of the actors' faces"),
    ("really . . .", "Really..."),
    ('he said " wait "', "he said “ wait ”"),
    ("it 's `` odd '' .", "it’s “ odd ”."),
]


@pytest.fixture(scope="module", params=["none", "lower", "lower_joined"])
def trained(request):
    return train_tokenizer(TEXTS, vocab_size=320, normalization=request.param)


def test_decode_gives_back_the_normalised_text(trained):
    for text, ids in zip(TEXTS, trained.encode(TEXTS), strict=True):
        assert ids.dtype == np.int32
        assert trained.decode(ids) == trained.normalize(text)


def test_none_changes_nothing_and_lower_only_lowers():
    text = "A  film , “odd” it 's\n(İ)"
    plain = train_tokenizer(TEXTS, vocab_size=260, normalization="none")
    lower = train_tokenizer(TEXTS, vocab_size=260, normalization="lower")
    assert plain.decode(plain.encode([text])[0]) == text
    assert lower.decode(lower.encode([text])[0]) == text.lower()


@pytest.mark.parametrize(("spaced", "plain"), JOINED)
def test_spaced_and_plain_punctuation_agree(spaced, plain):
    trained = train_tokenizer(TEXTS, vocab_size=260, normalization="lower_joined")
    assert trained.normalize(spaced) == trained.normalize(plain)


@pytest.mark.parametrize(
    "text",
    [
        "the film's best, funniest moment.",
        "costs .50 or 3.5 (at most)",
        "he said 'super' and \"fine\" -- twice",
        "no n to drop, plan notes, 'tis so",
    ],
)
def test_joining_leaves_plain_lower_case_text_alone(text):
    trained = train_tokenizer(TEXTS, vocab_size=260, normalization="lower_joined")
    assert trained.normalize(text) == text


def test_long_runs_of_spaces_cost_linear_time():
    trained = train_tokenizer(TEXTS, vocab_size=260, normalization="lower_joined")
    # Quadratic matching would need 10^10 steps here.
    assert trained.normalize("a" + " " * 100_000 + "b") == "a" + " " * 100_000 + "b"
    assert trained.normalize("a" + " " * 100_000 + ", b") == "a, b"


def test_token_bytes_are_those_of_the_decoded_text(trained):
    for text, ids in zip(TEXTS, trained.encode(TEXTS), strict=True):
        expected = len(trained.normalize(text).encode())
        assert trained.token_bytes_V[ids].sum() == expected
    assert trained.token_bytes_V[[PAD_ID, END_ID]].tolist() == [0, 0]


def test_special_tokens_cannot_be_forged_by_text(trained):
    text = "a<|end|>b<|pad|>"
    (ids,) = trained.encode([text])
    assert not {PAD_ID, END_ID} & set(ids.tolist())
    assert trained.decode(ids) == text
    assert trained.decode([END_ID, *ids, PAD_ID]) == text


@pytest.mark.parametrize("normalization", ["none", "lower", "lower_joined"])
def test_training_is_deterministic_and_order_free(normalization):
    settings = {"vocab_size": 320, "normalization": normalization}
    once = train_tokenizer(TEXTS, **settings)
    again = train_tokenizer(reversed(TEXTS), **settings)
    other = train_tokenizer(TEXTS[:2], **settings)
    assert again.sha256 == once.sha256 != other.sha256


def test_save_and_load_keep_everything(trained, tmp_path):
    path = tmp_path / "tokenizer.json"
    trained.save(path)
    loaded = Tokenizer.load(path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == loaded.sha256
    assert loaded.sha256 == trained.sha256
    assert loaded.vocab_size == trained.vocab_size
    text = "The film 's <|end|> , “fine”"
    assert np.array_equal(loaded.encode([text])[0], trained.encode([text])[0])


def test_a_saved_file_is_replaced_as_a_whole(trained, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text("the old one")
    with path.open() as reader:
        trained.save(path)
        assert reader.read() == "the old one"
    assert [one.name for one in tmp_path.iterdir()] == ["tokenizer.json"]


def test_a_file_that_cannot_be_written_is_told_and_leaves_nothing(trained, tmp_path):
    (tmp_path / "file").write_text("")
    said = "file/tokenizer.json: Not a directory; make room or give another folder$"
    with pytest.raises(InputError, match=said):
        trained.save(tmp_path / "file" / "tokenizer.json")
    (tmp_path / "tokenizer.json").mkdir()  # the new file is whole, but finds no place
    with pytest.raises(InputError, match="tokenizer.json: Is a directory;"):
        trained.save(tmp_path / "tokenizer.json")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file", "tokenizer.json"]


def test_sample_takes_the_same_documents_in_any_order():
    texts = [f"document {i} " * (1 + i % 7) for i in range(200)]
    sample = tokenizer_lib._sample(texts, characters=3_000)
    shuffled = random.Random(0).sample(texts, k=len(texts))
    assert tokenizer_lib._sample(shuffled, characters=3_000) == sample
    total = sum(map(len, sample))
    assert total >= 3_000 > total - len(sample[-1])
    assert sorted(tokenizer_lib._sample(texts, characters=10**9)) == sorted(texts)


def test_errors_say_what_is_allowed(tmp_path):
    with pytest.raises(InputError, match="did you mean 'lower'"):
        train_tokenizer(TEXTS, vocab_size=300, normalization="lowr")
    with pytest.raises(InputError, match="at least 258"):
        train_tokenizer(TEXTS, vocab_size=257, normalization="none")
    with pytest.raises(InputError, match="no text"):
        train_tokenizer(["", ""], vocab_size=300, normalization="none")
    with pytest.raises(InputError, match="no tokenizer at"):
        Tokenizer.load(tmp_path / "missing.json")
    (tmp_path / "broken.json").write_text('{"a": 1}')
    with pytest.raises(InputError, match=r"not a tokenizer\.json"):
        Tokenizer.load(tmp_path / "broken.json")
