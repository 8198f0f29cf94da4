"""GGUF's lists of tokens: what text becomes, by hand; and lists that do not fit."""

import json

import numpy as np
import pytest
import tokenizers
from tokenizers import pre_tokenizers

from tljax.pretrained.gguf.header import Header
from tljax.pretrained.gguf.tokenizer_read import read_tokenizer
from tljax.pretrained.gguf.vocabulary import PRES, merges_of
from tljax.settings import InputError

KEY = "tokenizer.ggml."
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
MERGES = ["1 2", "12 3", "123 4", "Ġ 1234", "' L", "'L L", "Ġ a"]
TOKENS = ["<|end|>", *BYTES, *("".join(one.split()) for one in MERGES), "cat", "<note>"]
TYPES = [3, *[1] * (len(TOKENS) - 2), 4]

PIECES = {
    "<unk>": (2, 0.0), "<s>": (3, 0.0), "</s>": (3, 0.0),
    **{f"<0x{i:02X}>": (6, 0.0) for i in range(256)},
    "ab": (1, -1.0), "▁a": (1, -2.0), "▁ab": (1, -3.0), "▁▁": (1, -4.0),
    "▁": (1, -5.0), "a": (1, -6.0), "b": (1, -7.0),
}  # fmt: skip


def byte_level(pre="gpt-2", **changes):
    keys = {
        "model": "gpt2", "pre": pre, "tokens": TOKENS, "merges": MERGES,
        "token_type": np.array(TYPES, np.int32), "eos_token_id": 0,
    } | changes  # fmt: skip
    return {KEY + key: value for key, value in keys.items() if value is not None}


def sentencepiece(pieces=PIECES, **changes):
    kinds, scores = zip(*pieces.values(), strict=True)
    keys = {
        "model": "llama", "pre": "default", "tokens": list(pieces),
        "token_type": np.array(kinds, np.int32), "scores": np.array(scores, np.float32),
        "bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0,
    } | changes  # fmt: skip
    return {KEY + key: value for key, value in keys.items() if value is not None}


def read(metadata, rows=1000):
    """(tokenizer, tokenizer_config)"""
    text, config = read_tokenizer(Header("file", metadata, {}), rows)
    return tokenizers.Tokenizer.from_str(text), config


def tokens(metadata, text, *, special=False):
    return read(metadata)[0].encode(text, add_special_tokens=special).tokens


# "I'LL a 1234": only regexes that ignore case keep 'LL whole; digits stay in a word,
# or stand alone, or go by threes
SPLIT = {
    "gpt-2": ["I", "'", "L", "L", "Ġa", "Ġ1234"],
    "smollm": ["I", "'", "L", "L", "Ġa", "Ġ", "1", "2", "3", "4"],
    "qwen2": ["I", "'LL", "Ġa", "Ġ", "1", "2", "3", "4"],
    "deepseek-r1-qwen": ["I", "'LL", "Ġa", "Ġ", "1", "2", "3", "4"],
    "llama-bpe": ["I", "'LL", "Ġa", "Ġ", "123", "4"],
    "llama3": ["I", "'LL", "Ġa", "Ġ", "123", "4"],
    "llama-v3": ["I", "'LL", "Ġa", "Ġ", "123", "4"],
    "default": ["I", "'", "L", "L", "Ġa", "Ġ", "123", "4"],
}


@pytest.mark.parametrize("pre", PRES)
def test_text_is_split_as_pre_says(pre):
    assert tokens(byte_level(pre), "I'LL a 1234") == SPLIT[pre]


def test_only_default_splits_a_dollar_from_its_space():
    metadata = byte_level(tokens=[*TOKENS, "Ġ$"], merges=[*MERGES, "Ġ $"])
    metadata[KEY + "token_type"] = np.array([*TYPES, 1], np.int32)
    assert tokens(metadata, " $") == ["Ġ$"]
    assert tokens(metadata | {KEY + "pre": "default"}, " $") == ["Ġ", "$"]


def test_only_llama_3_takes_a_word_that_no_merge_makes():
    assert tokens(byte_level("llama-bpe"), "cat") == ["cat"]
    assert tokens(byte_level("gpt-2"), "cat") == ["c", "a", "t"]


def test_only_qwen_composes_accents():
    assert tokens(byte_level("qwen2"), "e\u0301") == ["Ã", "©"]
    assert tokens(byte_level("deepseek-r1-qwen"), "e\u0301") == ["e", "Ì", "ģ"]


@pytest.mark.parametrize("pre", PRES)
def test_any_text_comes_back(pre):
    text = "  def f(x):\n\treturn 'naïve' — 3.14 日本語 😀\r\n\n  <note><|end|> "
    tokenizer, _ = read(byte_level(pre))
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
    assert ids.count(TOKENS.index("<note>")) == 1 == ids.count(0)


def test_special_tokens_and_those_of_the_user():
    tokenizer, _ = read(byte_level())
    assert tokenizer.encode("a<|end|><note>a").tokens == ["a", "<|end|>", "<note>", "a"]
    tokenizer.encode_special_tokens = True  # text is data: only the user's are found
    found = tokenizer.encode("<|end|><note>").tokens
    assert found == ["<", "|", "e", "n", "d", "|", ">", "<note>"]
    assert tokenizer.token_to_id("<note>") == len(TOKENS) - 1


def test_rows_that_no_token_needs_are_left_out():
    padded = byte_level(
        tokens=[*TOKENS, "[PAD9]"], token_type=np.array([*TYPES, 5], np.int32)
    )
    tokenizer, _ = read(padded)
    assert tokenizer.token_to_id("[PAD9]") is None
    assert tokenizer.get_vocab_size() == len(TOKENS)
    assert json.loads(tokenizer.to_str()) == json.loads(read(byte_level())[0].to_str())


def test_pieces_by_hand():
    # ▁aab: ab is best, then ▁a; ▁ab can no longer be made
    assert tokens(sentencepiece(), "aab") == ["▁a", "ab"]
    assert tokens(sentencepiece(), "ab ab") == ["▁ab", "▁ab"]
    # only three of the four spaces find partners of their own
    assert tokens(sentencepiece(), "   b") == ["▁▁", "▁▁", "b"]
    assert tokens(sentencepiece(), "é") == ["▁", "<0xC3>", "<0xA9>"]
    assert tokens(sentencepiece(), "") == []


def test_a_space_before_a_text_is_as_the_file_says():
    without = sentencepiece(add_space_prefix=False)
    assert tokens(without, "ab ab") == ["ab", "▁ab"]
    for metadata in (without, sentencepiece()):
        tokenizer, _ = read(metadata)
        for text in ("ab  b", " a", "é\n😀"):
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            assert tokenizer.decode(ids) == text


@pytest.mark.parametrize(
    ("pieces", "found"),
    [
        ({"ab": -1.0, "ba": -2.0}, ["ab", "a"]),
        ({"ab": -2.0, "ba": -1.0}, ["a", "ba"]),
        ({"ab": -9.0, "ba": -9.0}, ["ab", "a"]),  # of equals the earlier
        ({"ba": -9.0, "ab": -9.0}, ["a", "ba"]),
    ],
)
def test_the_better_piece_is_made_first(pieces, found):
    pieces = {"<unk>": -9.0, "<s>": -9.0, "</s>": -9.0, **pieces, "a": -9.0, "b": -9.0}
    normal = {piece: (1, score) for piece, score in pieces.items()}
    assert tokens(sentencepiece(normal, add_space_prefix=False), "aba") == found


def test_merges_that_the_file_lists_are_taken():
    metadata = sentencepiece(merges=["▁ a", "a b"])
    assert tokens(metadata, "ab") == ["▁a", "b"]


def test_runs_of_spaces_that_gemma_lists_are_found_whole():
    gemma = PIECES | {"  ": (4, -1000.0), "   ": (4, -1000.0)}
    metadata = sentencepiece(gemma, add_space_prefix=False)
    assert tokens(metadata, "a   b a") == ["a", "   ", "b", "▁a"]


def test_every_way_to_cut_a_piece():
    assert merges_of(["abc", "ab", "a", "b", "bc", "c", "x"]) == [
        ("ab", "c"), ("a", "bc"), ("a", "b"), ("b", "c"),
    ]  # fmt: skip


def test_what_goes_into_tokenizer_config():
    _, config = read(
        byte_level(bos_token_id=0, padding_token_id=len(TOKENS) - 1)
        | {"tokenizer.chat_template": "{{ messages }}"}
    )
    assert config == {
        "bos_token": "<|end|>",
        "eos_token": "<|end|>",
        "pad_token": "<note>",
        "add_bos_token": False,
        "chat_template": "{{ messages }}",
    }
    _, config = read(sentencepiece())
    assert config == {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "add_bos_token": True,
    }


@pytest.mark.parametrize(
    ("metadata", "added"),
    [
        (byte_level("llama-bpe", bos_token_id=0), True),  # llama.cpp's defaults
        (byte_level("gpt-2", bos_token_id=0), False),
        (byte_level("gpt-2", bos_token_id=0, add_bos_token=True), True),
        (byte_level("gpt-2", add_bos_token=True), False),  # there is no such token
    ],
)
def test_a_beginning_is_added_where_the_file_says(metadata, added):
    tokenizer, config = read(metadata)
    assert config["add_bos_token"] is added
    assert tokenizer.encode("a").tokens == (["<|end|>"] if added else []) + ["a"]
    assert tokenizer.encode("a", add_special_tokens=False).tokens == ["a"]


def test_both_ends_are_added_to_each_of_two_texts():
    tokenizer, _ = read(sentencepiece(add_eos_token=True))
    assert tokenizer.encode("ab").tokens == ["<s>", "▁ab", "</s>"]
    assert tokenizer.encode("ab", "ab").tokens == ["<s>", "▁ab", "</s>"] * 2


def test_a_file_may_have_no_tokenizer():
    for metadata in ({}, {KEY + "model": "none"}, {KEY + "model": "no_vocab"}):
        assert read_tokenizer(Header("file", metadata, {}), 9) == (None, {})


def test_a_token_without_text_gets_a_name():
    named = ["", *TOKENS[1:]]
    assert read(byte_level(tokens=named))[0].token_to_id("[EMPTY_0]") == 0


def test_a_file_may_not_tell_types():
    tokenizer, _ = read(byte_level(token_type=None))
    assert tokenizer.encode("<note>12").tokens == [*"<note>", "12"]
    assert not tokenizer.get_added_tokens_decoder()


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({KEY + "model": "t5"}, "'t5'; known here: gpt2, llama, none, no_vocab"),
        (
            byte_level("tekken"),
            "pre is 'tekken', whose way .* known: gpt-2, smollm, qw",
        ),
        (byte_level("smolm"), "did you mean 'smollm'"),
        (byte_level(tokens=None), "key 'tokenizer.ggml.tokens' is missing"),
        (byte_level(tokens="abc"), "must be a list of texts"),
        (byte_level(tokens=[*TOKENS, "a"]), "two tokens are 'a'"),
        (byte_level(tokens=[*TOKENS, "xyz"]), f"{len(TOKENS)} token types for"),
        (byte_level(tokens=[f"t{i}" for i in range(1001)]), "1001 tokens, but .* 1000"),
        (byte_level(eos_token_id=len(TOKENS)), f"there are {len(TOKENS)} tokens"),
        (byte_level(merges=None), "key 'tokenizer.ggml.merges' is missing"),
        (byte_level(eos_token_id=-1), "eos_token_id is -1"),
        (byte_level(merges=["1 2", "1 9"]), r"merges\[1\] is '1 9'; it must be two"),
        (
            byte_level(token_type=np.full(len(TOKENS), 99)),
            r"type\[0\] is 99; .* 0 to 6",
        ),
        (sentencepiece(scores=np.full(len(PIECES), np.nan)), r"scores\[0\] is nan; it"),
        (byte_level(merges=["12"]), r"merges\[0\] is '12'"),
        (sentencepiece(scores=None), "'tokenizer.ggml.scores' is missing"),
        (sentencepiece(scores=np.zeros(3)), f"3 token scores for {len(PIECES)} tokens"),
    ],
)
def test_refused(metadata, told):
    with pytest.raises(InputError, match=f"^file: .*{told}"):
        read(metadata)
