"""Other people's tokenizers: every token that they put in has a row."""

import dataclasses
import json

import pytest

from tljax.cli.parts import checkpoint_tokenizer
from tljax.pretrained.folder import open_folder
from tljax.settings import InputError


@pytest.fixture
def changed(tiny_llama):
    """changed(parts of tokenizer.json, **config) -> the tiny llama's checkpoint."""
    checkpoint = open_folder(tiny_llama)
    whole = json.loads(checkpoint.tokenizer_json)
    rows = checkpoint.config["vocab_size"]
    far = {**whole["added_tokens"][0], "id": rows, "content": "<far>"}
    whole["added_tokens"].append(far)

    def build(parts, **config):
        return dataclasses.replace(
            checkpoint,
            tokenizer_json=json.dumps(whole | parts),
            tokenizer_config=checkpoint.tokenizer_config | config,
        )

    return build


AROUND = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<far>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"<far>": {"id": "<far>", "ids": [320], "tokens": ["<far>"]}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("parts", "config"),
    [
        ({}, {"eos_token": "<far>"}),
        ({}, {"pad_token": "<far>"}),
        ({}, {"bos_token": "<far>", "add_bos_token": True}),
        ({"post_processor": AROUND}, {}),
    ],
)
def test_a_token_without_a_row_must_not_be_put_in(changed, parts, config):
    assert checkpoint_tokenizer(changed({})).vocab_size == 321  # it may be there
    said = "the tokenizer puts in '<far>', id 320, but the embedding has 320 rows"
    with pytest.raises(InputError, match=said):
        checkpoint_tokenizer(changed(parts, **config))


def test_a_vocabulary_is_not_empty(changed):
    empty = {"model": {"type": "BPE", "vocab": {}, "merges": []}}
    with pytest.raises(InputError, match="its tokenizer.json has an empty vocabulary"):
        checkpoint_tokenizer(changed(empty))
