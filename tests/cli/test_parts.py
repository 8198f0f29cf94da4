"""Other people's tokenizers: every token that they put in has a row; devices."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest

from tljax.cli.parts import checkpoint_tokenizer
from tljax.pretrained.folder import open_folder
from tljax.settings import InputError


@pytest.fixture
def changed(tiny_llama):
    """changed(parts of tokenizer.json, **config) -> the tiny llama's checkpoint."""
    checkpoint = open_folder(tiny_llama)
    whole = json.loads(checkpoint.tokenizer_json)
    rows = len(whole["model"]["vocab"])  # 275
    far = {**whole["added_tokens"][0], "id": rows, "content": "<far>"}
    whole["added_tokens"].append(far)

    def build(parts, **config):
        return dataclasses.replace(
            checkpoint,
            config=checkpoint.config | {"vocab_size": rows},
            tokenizer_json=json.dumps(whole | parts),
            tokenizer_config=checkpoint.tokenizer_config | config,
        )

    return build


FAR = {"SpecialToken": {"id": "<far>", "type_id": 0}}
TEXT = {"Sequence": {"id": "A", "type_id": 0}}
AROUND = {
    "type": "TemplateProcessing",
    "single": [FAR, TEXT],
    "pair": [TEXT, TEXT],
    "special_tokens": {"<far>": {"id": "<far>", "ids": [275], "tokens": ["<far>"]}},
}


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
    assert checkpoint_tokenizer(changed({})).vocab_size == 276  # it may be there
    said = "the tokenizer puts in '<far>', id 275, but the embedding has 275 rows"
    with pytest.raises(InputError, match=said):
        checkpoint_tokenizer(changed(parts, **config))


def test_a_vocabulary_is_not_empty(changed):
    empty = {"model": {"type": "BPE", "vocab": {}, "merges": []}}
    with pytest.raises(InputError, match="its tokenizer.json has an empty vocabulary"):
        checkpoint_tokenizer(changed(empty))


def test_a_mesh_finds_the_cores_of_a_cpu_as_devices():
    call = (
        "import jax; from tljax.cli import parts; from tljax.settings import *;"
        "parts.prepare_devices(MeshSettings(run=2, data=1, fsdp=1, tensor=1));"
        "print(len(jax.devices()), __import__('os').cpu_count())"
    )
    plain = {name: text for name, text in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-c", call], env=plain, capture_output=True, check=True
    )
    devices, cores = map(int, done.stdout.split())
    assert devices == min(2, cores)


def test_a_lone_cpu_takes_its_temporary_memory_from_the_kernel_once():
    """A program's 40 MiB are 10,240 small pages, which else every call takes anew.

    On a busy machine some calls find their place taken, but not all.
    """
    call = (
        "import resource, jax, jax.numpy as jnp; from tljax.cli import parts;"
        "parts.prepare_devices();"
        "x = jnp.ones((2**11, 5 * 2**10)); f = jax.jit(lambda x: jnp.sort(x).sum());"
        "count = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt;"
        "counts = [(f(x).block_until_ready(), count())[1] for _ in range(9)];"
        "print(*(now - before for before, now in zip(counts[2:], counts[3:])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", call],
        env=os.environ | {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"},
        capture_output=True,
        check=True,
    )
    faults = list(map(int, done.stdout.split()))
    assert len(faults) == 6 and min(faults) < 1000


def test_a_processor_with_amx_takes_vectors_of_512_bits():
    other, wider = "--xla_backend_optimization_level=1", "--xla_cpu_prefer_vector_width"
    cases = [  # (amx, given, expected); what is said stays
        (True, "", f"{wider}=512"),
        (True, other, f"{other} {wider}=512"),
        (True, f"{wider}=128", f"{wider}=128"),
        (False, other, other),
    ]
    call = (
        "import os; from tljax.cli import parts\n"
        f"for amx, given, expected in {cases}:\n"
        "    parts.processor_has = lambda flag: amx and flag == 'amx_tile'\n"
        "    os.environ['XLA_FLAGS'] = given\n"
        "    parts.prepare_devices()\n"
        "    print(os.environ['XLA_FLAGS'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", call], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [expected for *_, expected in cases]
