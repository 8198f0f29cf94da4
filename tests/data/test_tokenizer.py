"""The tokenizer: lossless bytes, no forged special tokens, other people's by hand."""

import hashlib
import json
import random

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from tljax.data import tokenizer_training
from tljax.data.tokenizer import END_ID, PAD_ID, Tokenizer
from tljax.data.tokenizer_training import train_tokenizer
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
    assert trained.token_bytes_V.shape == (trained.vocab_size,)


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
    sample = tokenizer_training._sample(texts, characters=3_000)
    shuffled = random.Random(0).sample(texts, k=len(texts))
    assert tokenizer_training._sample(shuffled, characters=3_000) == sample
    total = sum(map(len, sample))
    assert total >= 3_000 > total - len(sample[-1])
    assert sorted(tokenizer_training._sample(texts, characters=10**9)) == sorted(texts)


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


def test_a_tokenizer_trained_here_keeps_its_file(tmp_path):
    # Golden: runs name their tokenizer by this hash, and caches are found by it.
    trained = train_tokenizer(TEXTS, vocab_size=300, normalization="lower_joined")
    expected = "e3ca37759660eaf8ec52e1fef6a9714b2d3553b49f7bc265d6e1f84f68aa573a"
    assert trained.sha256 == expected
    assert (trained.pad_id, trained.end_id) == (PAD_ID, END_ID)
    assert (trained.begin_id, trained.chat_template) == (None, None)
    trained.save(tmp_path / "tokenizer.json")
    assert [one.name for one in tmp_path.iterdir()] == ["tokenizer.json"]


def added(content, *, special, **flags):
    return tokenizers.AddedToken(content, special=special, normalized=False, **flags)


@pytest.fixture
def chatty():
    """GPT-2's kind: bytes, then <|end|> <|im_start|> <|im_end|> and a plain <tool>."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {one: index for index, one in enumerate([*alphabet, "he"])}
    made = tokenizers.Tokenizer(models.BPE(vocab, [("h", "e")]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    for name in ("<|end|>", "<|im_start|>", "<|im_end|>"):
        made.add_special_tokens([added(name, special=True)])
    made.add_tokens([added("<tool>", special=False, rstrip=True)])
    return made


CHATTY_CONFIG = {"eos_token": "<|im_end|>", "bos_token": "<|end|>"}
IM_START, IM_END, TOOL = 258, 259, 260


def bert():
    """BERT's kind, whose file asks for cutting and padding to 4 ids."""
    names = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "film", "##s", "[", "]", "sep")
    vocab = {name: index for index, name in enumerate(names)}
    made = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    made.add_special_tokens(list(names[:4]))
    made.enable_truncation(4)
    made.enable_padding(length=4, pad_token="[PAD]")
    return made.to_str()


BERT_CONFIG = {"sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}


def unigram():
    """T5's kind: '</s>' is a piece of the vocabulary and costs nothing."""
    pieces = [("<unk>", 0.0), ("</s>", 0.0), ("\u2581", -2.0), ("a", -3.0)]
    pieces += [(one, -4.0) for one in "</s>"]
    made = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=0))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    for name in ("<unk>", "</s>"):
        made.add_special_tokens([added(name, special=True)])
    return made.to_str()


def ids(tokenizer, text, **how):
    return tokenizer.encode([text], **how)[0].tolist()


def test_other_peoples_ids_and_ends(chatty):
    made = Tokenizer.from_parts(chatty.to_str(), CHATTY_CONFIG, "here")
    assert (made.end_id, made.pad_id, made.begin_id) == (IM_END, IM_END, None)
    assert made.vocab_size == 261
    assert ids(made, "he") == ids(made, "he", special=True) == [256]
    assert made.decode([IM_START, 256, IM_END]) == "he"
    config = {"eos_token": {"content": "<|end|>"}, "pad_token": "<|im_start|>"}
    made = Tokenizer.from_parts(chatty.to_str(), config, "here")
    assert (made.end_id, made.pad_id) == (257, IM_START)
    assert made.tokenizer_config["eos_token"] == "<|end|>"


def test_special_tokens_are_text_in_data_and_tokens_in_prompts(chatty):
    made = Tokenizer.from_parts(chatty.to_str(), CHATTY_CONFIG, "here")
    text = "<|im_start|>he<|im_end|>"
    found = ids(made, text)
    assert len(found) == len(text.encode()) - 1  # 'he' is one token
    assert max(found) == 256
    assert made.decode(found) == text
    assert made.encode_prompt(text).tolist() == [IM_START, 256, IM_END]
    assert made.encode_prompt(text).dtype == np.int32
    assert ids(made, text) == found  # as before the prompt
    with pytest.raises(InputError, match="is not valid UTF-8"):
        made.encode_prompt("a\udcff")


def test_added_tokens_that_are_not_special_are_parsed_as_in_transformers(chatty):
    made = Tokenizer.from_parts(chatty.to_str(), CHATTY_CONFIG, "here")
    assert ids(made, "he<tool>  he") == [256, TOOL, 256]  # it takes spaces after it
    assert made.encode_prompt("he<tool> he").tolist() == [256, TOOL, 256]
    # but what the config names is special, whatever the file says of it
    for more in ({"eos_token": "<tool>"}, {"additional_special_tokens": ["<tool>"]}):
        made = Tokenizer.from_parts(chatty.to_str(), CHATTY_CONFIG | more, "here")
        assert TOOL not in ids(made, "he<tool>  he")
        assert made.encode_prompt("he<tool>  he").tolist() == [256, TOOL, 256]
    made = Tokenizer.from_parts(chatty.to_str(), {"eos_token": "he"}, "here")
    assert made.encode_prompt("he").tolist() == [256]
    assert made.vocab_size == 261


def test_begin_is_what_the_post_processor_or_the_config_adds(chatty):
    wanted = CHATTY_CONFIG | {"add_bos_token": True}
    made = Tokenizer.from_parts(chatty.to_str(), wanted, "here")
    assert made.begin_id == 257
    chatty.post_processor = processors.TemplateProcessing(
        single="<|end|> $A", special_tokens=[("<|end|>", 257)]
    )
    made = Tokenizer.from_parts(chatty.to_str(), CHATTY_CONFIG, "here")
    assert made.begin_id == 257
    assert ids(made, "he", special=True) == [257, 256]
    assert ids(made, "he") == [256]
    other = CHATTY_CONFIG | {"bos_token": "<|im_start|>"}
    assert Tokenizer.from_parts(chatty.to_str(), other, "here").begin_id is None


def test_bert_is_neither_cut_nor_padded():
    made = Tokenizer.from_parts(bert(), BERT_CONFIG, "here")
    assert (made.end_id, made.pad_id, made.begin_id) == (3, 0, None)
    assert ids(made, "A films") == [4, 5, 6]
    assert ids(made, "A films a", special=True) == [2, 4, 5, 6, 4, 3]
    assert ids(made, "", special=True) == [2, 3]
    assert ids(made, "[SEP] who") == [7, 9, 8, 1]
    assert made.encode_prompt("[SEP] a").tolist() == [3, 4]
    assert made.normalize("A FILM") == "a film"


def test_text_cannot_forge_a_piece_of_the_vocabulary():
    assert 1 in tokenizers.Tokenizer.from_str(unigram()).encode("a</s>").ids
    made = Tokenizer.from_parts(unigram(), {"eos_token": "</s>"}, "here")
    assert ids(made, "a</s></s>") == [2, 3, 4, 5, 6, 7, 4, 5, 6, 7]
    assert made.encode_prompt("a</s>").tolist() == [2, 3, 1]
    assert json.loads(made.tokenizer_json) == json.loads(unigram())
    one_letter = unigram().replace('"</s>"', '"X"')
    with pytest.raises(InputError, match="here: a text that holds 'X' would turn into"):
        Tokenizer.from_parts(one_letter, {"eos_token": "X"}, "here")


def test_bytes_of_tokens_are_known_of_byte_level_tokenizers_only(chatty):
    made = Tokenizer.from_parts(chatty.to_str(), CHATTY_CONFIG, "here")
    for text in (*TEXTS, "he<tool>he<|im_end|>"):
        (found,) = made.encode([text])
        assert made.token_bytes_V[found].sum() == len(text.encode())
    assert made.token_bytes_V[[256, IM_START, IM_END, TOOL]].tolist() == [2, 0, 0, 6]
    split = pre_tokenizers.Split(" ", "isolated")
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    chatty.pre_tokenizer = pre_tokenizers.Sequence([split, whole])  # Llama 3's kind
    again = Tokenizer.from_parts(chatty.to_str(), CHATTY_CONFIG, "here")
    assert np.array_equal(again.token_bytes_V, made.token_bytes_V)
    chatty.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    spaced = Tokenizer.from_parts(chatty.to_str(), CHATTY_CONFIG, "here")
    others = [
        Tokenizer.from_parts(bert(), BERT_CONFIG, "here"),
        Tokenizer.from_parts(unigram(), {"eos_token": "</s>"}, "here"),
    ]
    for made in (*others, spaced):
        with pytest.raises(InputError, match="bits per byte need a byte-level tokeniz"):
            _ = made.token_bytes_V


def test_other_peoples_files_are_saved_as_they_were(chatty, tmp_path):
    text = json.dumps(json.loads(chatty.to_str()), indent=1)
    config = CHATTY_CONFIG | {"chat_template": "{{ messages }}\n", "clean_up": False}
    made = Tokenizer.from_parts(text, config, "here")
    made.save(tmp_path / "tokenizer.json")
    assert (tmp_path / "tokenizer.json").read_text("utf-8") == text
    assert sorted(one.name for one in tmp_path.iterdir()) == [
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    assert loaded.sha256 == made.sha256
    assert loaded.tokenizer_config == made.tokenizer_config == config
    assert loaded.chat_template == "{{ messages }}\n"
    assert (loaded.end_id, loaded.pad_id) == (IM_END, IM_END)
    # ends of text are part of what a tokenizer is
    other = Tokenizer.from_parts(text, CHATTY_CONFIG | {"eos_token": "<|end|>"}, "here")
    assert other.sha256 != made.sha256


def test_other_peoples_need_their_config(chatty, tmp_path):
    made = Tokenizer.from_parts(chatty.to_str(), CHATTY_CONFIG, "here")
    made.save(tmp_path / "tokenizer.json")
    beside = tmp_path / "tokenizer_config.json"
    for text, said in (("{", "not JSON: "), ("[]", "must be a JSON object")):
        beside.write_text(text)
        with pytest.raises(InputError, match=f"tokenizer_config.json (is )?{said}"):
            Tokenizer.load(tmp_path / "tokenizer.json")
    beside.unlink()
    said = r"tokenizer.json has \('!', '\"'\) as its first ids, so .*config.json that"
    with pytest.raises(InputError, match=said):
        Tokenizer.load(tmp_path / "tokenizer.json")


def test_a_tokenizer_that_finds_no_place_leaves_no_config(chatty, tmp_path):
    (tmp_path / "tokenizer.json.new").mkdir()
    made = Tokenizer.from_parts(chatty.to_str(), CHATTY_CONFIG, "here")
    with pytest.raises(InputError, match="cannot write .*tokenizer.json: Is a direct"):
        made.save(tmp_path / "tokenizer.json")
    assert [one.name for one in tmp_path.iterdir()] == ["tokenizer.json.new"]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "here: its tokenizer_config.json names no 'eos_token' and no 'sep_token'"),
        ({"eos_token": "<eos>"}, "here has no token '<eos>', which its .* 'eos_token'"),
        (CHATTY_CONFIG | {"pad_token": "<p>"}, "has no token '<p>'.* as 'pad_token'"),
        (
            CHATTY_CONFIG | {"bos_token": "<b>", "add_bos_token": True},
            "has no token '<b>'.* as 'bos_token'; correct one of the two",
        ),
        ({"eos_token": 3}, "'eos_token' of its tokenizer_config.json is 3; it must be"),
        (CHATTY_CONFIG | {"chat_template": {}}, "'chat_template' .* must be a string"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(chatty, config, said):
    with pytest.raises(InputError, match=f"^[^\n]*{said}[^\n]*$"):
        Tokenizer.from_parts(chatty.to_str(), config, "here")


def test_a_text_that_is_no_tokenizer_is_refused(chatty):
    whole = chatty.to_str()
    texts = [whole[:length] for length in range(0, len(whole), 97)]
    for text in [*texts, "[]", "null", '{"a": 1}']:
        with pytest.raises(
            InputError, match=r"^here is not a tokenizer\.json: [^\n]*$"
        ):
            Tokenizer.from_parts(text, CHATTY_CONFIG, "here")
