"""Text as its tokens come: no half character is shown, and nothing is lost."""

import numpy as np
import pytest
from tokenizers import decoders

from tljax.data.tokenizer_training import train_tokenizer
from tljax.generate.stream import TextStream

TEXT = "Grüße 🙂🙂 aus 東京, naïve café — 👩‍👩‍👧 ok"


def bytes_decode(ids):
    return bytes(ids).decode(errors="replace")


def pushed(decode, tokens, **others):
    stream = TextStream(decode, **others)
    return [stream.push(one) for one in tokens], stream.flush()


def test_a_character_waits_for_its_last_byte():
    new, rest = pushed(bytes_decode, "aé🙂b".encode())
    assert new == ["a", "", "é", "", "", "", "🙂", "b"]
    assert rest == ""


def test_what_stands_before_half_a_character_is_shown():
    table = [b"caf\xc3", b"\xa9 au", b" l"]

    def decode(ids):
        return b"".join(table[i] for i in ids).decode(errors="replace")

    assert pushed(decode, [0, 1, 2]) == (["caf", "é au", " l"], "")


def test_a_text_that_ends_inside_a_character_says_so_at_the_end():
    assert pushed(bytes_decode, b"a\xf0\x9f") == (["a", "", ""], "�")
    assert pushed(bytes_decode, b"") == ([], "")


def test_bytes_that_are_no_character_are_shown_once_that_is_certain():
    assert pushed(bytes_decode, b"a\xff\xffb") == (["a", "", "", "��b"], "")


def test_all_of_a_real_tokenizers_text_arrives():
    tokenizer = train_tokenizer([TEXT] * 3, vocab_size=280, normalization="none")
    (ids,) = tokenizer.encode([TEXT])
    new, rest = pushed(tokenizer.decode, ids)
    assert "".join(new) == TEXT and rest == ""
    assert not any("�" in one for one in new) and "" in new
    # special tokens have no text
    new, rest = pushed(tokenizer.decode, [1, 1, ids[0], 0, *ids[1:], 1])
    assert "".join(new) == TEXT and rest == ""


@pytest.fixture
def pieces_decode():
    """As SentencePiece models decode: '▁' is a space, the first dropped; bytes; a
    special token (6) without text."""
    decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    table = ["▁hi", "▁the", "re", "<0xC3>", "<0xA9>", "▁"]
    return lambda ids: decoder.decode([table[i] for i in ids if i < 6])


def test_spaces_between_pieces_are_kept(pieces_decode):
    assert pushed(pieces_decode, [0, 1, 2, 1]) == (["hi", " the", "re", " the"], "")
    assert pushed(pieces_decode, [5, 0, 1])[0] == ["", " hi", " the"]
    assert pushed(pieces_decode, [0, 6, 1])[0] == ["hi", "", " the"]
    # behind a prompt the first piece's space is text
    assert pushed(pieces_decode, [1, 2], context=[0])[0] == [" the", "re"]


def test_bytes_of_a_piece_vocabulary_wait_too(pieces_decode):
    tokens = [0, 3, 4, 3, 4, 2]
    assert pushed(pieces_decode, tokens) == (["hi", "", "é", "", "é", "re"], "")
    # a prompt that ends inside a character
    assert pushed(pieces_decode, [4, 2], context=[0, 3])[0] == ["é", "re"]


@pytest.mark.parametrize(
    ("text", "most"), [((TEXT * 20).encode(), 12), (b"\xff" * 500 + b"end", 32)]
)
def test_few_tokens_are_decoded_at_a_time(text, most):
    lengths = []

    def decode(ids):
        lengths.append(len(ids))
        return bytes_decode(ids)

    new, rest = pushed(decode, np.frombuffer(text, np.uint8))
    assert "".join(new) + rest == text.decode(errors="replace")
    assert max(lengths) <= most
