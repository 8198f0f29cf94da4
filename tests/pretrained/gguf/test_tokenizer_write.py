"""tokenizer.json as GGUF's lists: read back it is the same, or it was refused."""

import copy
import json

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from tljax.pretrained.gguf.header import Header
from tljax.pretrained.gguf.tokenizer_read import read_tokenizer
from tljax.pretrained.gguf.tokenizer_write import write_tokenizer
from tljax.pretrained.gguf.vocabulary import PRES, merges_of
from tljax.settings import InputError

KEY = "tokenizer.ggml."
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
MERGES = [("Ġ", "a"), ("1", "2"), ("'", "s")]
TEXTS = [
    "it's a naïve café — “quoted” 日本語 😀 e\u0301",
    "def f(x):\n    return x[12] ** 2  # a\n\n",
    "  12 a   a1234 3.14 ½ ",
    "<|end|> <note>a <note>",
    "",
]
CONFIG = {"vocab_size": 270}
NAMED = {"eos_token": "<|end|>"}


def byte_level(pre_tokenizer=None, normalizer=None, **model):
    """Text of a tokenizer.json as the library writes it."""
    vocab = {token: i for i, token in enumerate([*BYTES, *map("".join, MERGES)])}
    made = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=MERGES, **model))
    made.pre_tokenizer = pre_tokenizer or pre_tokenizers.ByteLevel(
        add_prefix_space=False
    )
    if normalizer is not None:
        made.normalizer = normalizer
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<|end|>"])
    made.add_tokens([tokenizers.AddedToken("<note>", normalized=False)])
    return made.to_str()


def split(regex):
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(tokenizers.Regex(regex), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip


def llama(normalizer=None, pre_tokenizer=None, pieces=("ab", "▁a", "▁ab", "▁▁")):
    """A SentencePiece vocabulary, as Transformers writes Llama 2's."""
    units = ["▁", "a", "b"]
    vocab = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    vocab += [*pieces, *units]
    made = tokenizers.Tokenizer(
        models.BPE(
            vocab={token: i for i, token in enumerate(vocab)},
            merges=merges_of([*pieces, *units]),
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    if normalizer is None:
        normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    made.normalizer = normalizer
    if pre_tokenizer is not None:
        made.pre_tokenizer = pre_tokenizer
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    return made


def there_and_back(text, tokenizer_config=NAMED, config=CONFIG):
    """(tokenizer, tokenizer_config) of what was written."""
    metadata = write_tokenizer(text, tokenizer_config, config)
    for key in ("token_type", "scores"):
        if KEY + key in metadata:
            metadata[KEY + key] = np.array(metadata[KEY + key])
    text, found = read_tokenizer(Header("file", metadata, {}), config["vocab_size"])
    return tokenizers.Tokenizer.from_str(text), found


def ids(tokenizer):
    return [one.ids for one in tokenizer.encode_batch(TEXTS)]


def refused(text, config=CONFIG, tokenizer_config=NAMED):
    with pytest.raises(InputError) as error:
        write_tokenizer(text, tokenizer_config, config)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_lists_by_hand():
    metadata = write_tokenizer(byte_level(), NAMED, {"vocab_size": 263})
    assert metadata == {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [
            *BYTES, "Ġa", "12", "'s", "<|end|>", "<note>", "[PAD261]", "[PAD262]",
        ],
        "tokenizer.ggml.token_type": [1] * 259 + [3, 4, 5, 5],
        "tokenizer.ggml.merges": ["Ġ a", "1 2", "' s"],
        "tokenizer.ggml.eos_token_id": 259,
        "tokenizer.ggml.add_eos_token": False,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["gpt-2", "smollm", "qwen2", "llama-bpe", "default"])
def test_ids_are_the_same_after_it(name):
    pre = PRES[name]
    steps = [
        pre_tokenizers.Split(tokenizers.Regex(one), "isolated") for one in pre.splits
    ]
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    text = byte_level(
        pre_tokenizers.Sequence([*steps, last]),
        normalizers.NFC() if pre.nfc else None,
        ignore_merges=pre.whole_first,
    )
    assert write_tokenizer(text, NAMED, CONFIG)[KEY + "pre"] == name
    before = tokenizers.Tokenizer.from_str(text)
    after, _ = there_and_back(text)
    assert ids(after) == ids(before)
    assert len({tuple(one) for one in ids(before)}) == len(TEXTS)
    assert after.get_vocab() == before.get_vocab()


def test_ways_that_transformers_writes_them():
    digits = pre_tokenizers.Digits(individual_digits=True)
    smollm = pre_tokenizers.Sequence(
        [digits, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    assert write_tokenizer(byte_level(smollm), NAMED, CONFIG)[KEY + "pre"] == "smollm"
    older = json.loads(byte_level())
    older["model"]["merges"] = [" ".join(pair) for pair in older["model"]["merges"]]
    assert write_tokenizer(json.dumps(older), NAMED, CONFIG) == write_tokenizer(
        byte_level(), NAMED, CONFIG
    )


def test_pieces_get_scores_by_hand():
    metadata = write_tokenizer(llama().to_str(), {"bos_token": "<s>"}, CONFIG)
    tokens, scores = metadata[KEY + "tokens"], metadata[KEY + "scores"]
    score = dict(zip(tokens, scores, strict=True))
    assert [score[one] for one in ("ab", "▁a", "▁ab", "▁▁")] == [0, -1, -2, -3]
    assert max(score[one] for one in "▁ab") < -3
    kinds = dict(zip(tokens, metadata[KEY + "token_type"], strict=True))
    assert [kinds[one] for one in ("<unk>", "<s>", "<0x0A>", "ab", "[PAD266]")] == [
        2, 3, 6, 1, 5,
    ]  # fmt: skip
    assert metadata[KEY + "add_space_prefix"] is True
    assert metadata[KEY + "unknown_token_id"] == 0
    assert metadata[KEY + "bos_token_id"] == 1


@pytest.mark.parametrize("prefix", [True, False])
def test_ids_of_pieces_are_the_same_after_it(prefix):
    before = llama(None if prefix else normalizers.Replace(" ", "▁"))
    after, _ = there_and_back(before.to_str(), {})
    assert ids(after) == ids(before)
    assert after.get_vocab() == before.get_vocab()
    assert (after.encode("ab").tokens == ["▁ab"]) == prefix


def test_pieces_as_later_versions_write_them():
    legacy = write_tokenizer(llama().to_str(), {}, CONFIG)
    later = llama(normalizers.Sequence([]))
    later.pre_tokenizer = pre_tokenizers.Metaspace("▁", "first", split=False)
    assert write_tokenizer(later.to_str(), {}, CONFIG) == legacy
    later.pre_tokenizer = pre_tokenizers.Metaspace("▁", "never", split=False)
    gemma = llama(normalizers.Replace(" ", "▁"))
    gemma.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    expected = legacy | {KEY + "add_space_prefix": False}
    assert write_tokenizer(later.to_str(), {}, CONFIG) == expected
    assert write_tokenizer(gemma.to_str(), {}, CONFIG) == expected


def test_gemmas_runs_of_spaces_are_written_as_spaces():
    gemma = llama(normalizers.Replace(" ", "▁"))
    gemma.add_tokens([tokenizers.AddedToken("▁▁", normalized=False)])
    metadata = write_tokenizer(gemma.to_str(), {}, CONFIG)
    place = gemma.token_to_id("▁▁")
    assert metadata[KEY + "tokens"][place] == "  "
    assert metadata[KEY + "token_type"][place] == 4
    after, _ = there_and_back(gemma.to_str(), {})
    assert after.encode("a  b").ids == gemma.encode("a  b").ids


def test_a_beginning_is_read_off_the_template():
    text = json.loads(byte_level())
    end = text["model"]["vocab"]["a"]
    template = processors.TemplateProcessing(single="a $A", special_tokens=[("a", end)])
    text["post_processor"] = {
        "type": "Sequence",
        "processors": [json.loads(template.__getstate__())],
    }
    for named, added in (
        ({"bos_token": "a", "eos_token": "<|end|>"}, True),
        ({"bos_token": "b", "eos_token": "<|end|>"}, False),
        ({"bos_token": "a", "add_bos_token": False}, False),
        ({"bos_token": "b", "add_bos_token": True}, True),
    ):
        metadata = write_tokenizer(json.dumps(text), named, CONFIG)
        assert metadata[KEY + "add_bos_token"] is added
        _, config = there_and_back(json.dumps(text), named)
        assert config == named | {"add_bos_token": added}


def test_ids_of_the_config_serve_where_no_token_is_named():
    config = CONFIG | {"bos_token_id": 3, "eos_token_id": [4, 5], "pad_token_id": None}
    metadata = write_tokenizer(byte_level(), {}, config)
    found = {key: one for key, one in metadata.items() if key.endswith("_token_id")}
    ids = {"bos_token_id": 3, "eos_token_id": 4, "eot_token_id": 5}
    assert found == {KEY + key: one for key, one in ids.items()}
    alone = write_tokenizer(byte_level(), {}, config | {"eos_token_id": 4})
    assert KEY + "eot_token_id" not in alone
    with pytest.raises(InputError, match=r"eos_token_id=\[4, 999999\]; each must be"):
        write_tokenizer(byte_level(), {}, config | {"eos_token_id": [4, 999999]})


def test_a_chat_template_is_carried_over():
    named = NAMED | {"chat_template": "{% for m in messages %}{{ m }}{% endfor %}"}
    _, config = there_and_back(byte_level(), named)
    assert config == named | {"add_bos_token": False}


def test_a_model_may_have_no_tokenizer():
    assert write_tokenizer(None, {}, CONFIG) == {KEY + "model": "no_vocab"}


def test_refused():
    lower = normalizers.Lowercase()
    assert "it normalises text (Lowercase)" in refused(byte_level(None, lower))
    assert "splits text in a way of its own; known there: gpt-2, smollm" in refused(
        byte_level(split(r"\w+"))
    )
    # composing text is Qwen's way, GPT-2's pieces with it are nobody's
    assert "a way of its own" in refused(byte_level(None, normalizers.NFC()))
    assert "a way of its own" in refused(byte_level(ignore_merges=True))
    assert "byte-level" in refused(byte_level(pre_tokenizers.Whitespace()))
    bare = json.loads(byte_level())
    bare["model"]["merges"] = []
    assert "it has no merges" in refused(json.dumps(bare))
    assert "a space before" in refused(
        byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True))
    )
    words = tokenizers.Tokenizer(models.WordPiece({"a": 0}, unk_token="a")).to_str()
    assert "its model is 'WordPiece'; known there: BPE" in refused(words)
    assert "not a tokenizer.json" in refused("{}")
    assert "id 260, but config.json's vocab_size is 260" in refused(
        byte_level(), {"vocab_size": 260}
    )
    assert "bos_token='<none>', which tokenizer.json has not" in refused(
        byte_level(), tokenizer_config={"bos_token": "<none>"}
    )
    assert "eos_token_id=270; it must be from 0 to 269" in refused(
        byte_level(), CONFIG | {"eos_token_id": 270}, {}
    )


def test_pieces_that_are_not_sentencepieces_are_refused():
    whole = json.loads(llama().to_str())
    fewer = copy.deepcopy(whole)
    fewer["model"]["merges"] = fewer["model"]["merges"][:-1]
    assert "its merges are not all" in refused(json.dumps(fewer))
    own = llama(normalizers.Lowercase()).to_str()
    assert "in a way of its own; known there: SentencePiece's" in refused(own)
    spaced = llama(pre_tokenizer=pre_tokenizers.Whitespace()).to_str()
    assert "in a way of its own" in refused(spaced)
