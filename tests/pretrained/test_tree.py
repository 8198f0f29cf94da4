"""A tied model's copy of its output matrix must be one."""

import dataclasses

import numpy as np
import pytest

from tljax.pretrained.families import family_of, read_settings
from tljax.pretrained.folder import open_folder
from tljax.pretrained.tree import read_params
from tljax.settings import InputError


@pytest.fixture
def with_head(tiny_llama):
    """with_head(change) -> the tiny tied llama with a changed copy of its embedding."""
    checkpoint = open_folder(tiny_llama)
    embedding = checkpoint.tensors["model.embed_tokens.weight"]

    def build(change):
        def read():
            values = embedding.read().copy()
            change(values)
            return values

        told = "here: tensor 'lm_head.weight'"
        head = dataclasses.replace(embedding, read=read, told=told)
        tensors = {**checkpoint.tensors, "lm_head.weight": head}
        return dataclasses.replace(checkpoint, tensors=tensors)

    return build


def read(checkpoint):
    family = family_of(checkpoint.config, "here")
    settings = read_settings(checkpoint.config, "here")
    return read_params(checkpoint, family, settings, lambda path, value: value)


def test_a_copy_of_the_embedding_is_not_used(with_head):
    params, ledger = read(with_head(lambda values: None))
    assert "output" not in params
    assert [line.tensor for line in ledger if not line.leaf] == ["lm_head.weight"]


def test_another_output_matrix_is_refused(with_head):
    def change(values):
        values[-1, -1] = np.nextafter(values[-1, -1], np.float32(9))

    said = "tensor 'lm_head.weight' is another than the embedding, but config.json says"
    with pytest.raises(InputError, match=said):
        read(with_head(change))
