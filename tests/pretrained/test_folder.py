"""Checkpoint folders: told before read, exact both ways, every fault in one line."""

import json
import pathlib
import random
import resource
import struct

import huggingface_hub
import ml_dtypes
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy
from safetensors import safe_open

from tljax.pretrained import safetensors_files
from tljax.pretrained.folder import fetch_hub, open_folder, write_folder
from tljax.settings import InputError

TENSORS = {
    "embed.weight": np.arange(6, dtype=np.float32).reshape(2, 3) / 7,
    "layer.weight": (np.arange(4) / 3).astype(ml_dtypes.bfloat16).reshape(2, 2),
    "layer.bias": (np.arange(2) / 3).astype(np.float16),
}
BUFFER = {"position_ids": np.arange(4)}
CONFIG = {"model_type": "llama", "hidden_size": 3}
INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path):
    """A whole checkpoint of one file."""
    place = tmp_path / "model"
    place.mkdir()
    (place / "config.json").write_text(json.dumps(CONFIG))
    safetensors_numpy.save_file(TENSORS | BUFFER, place / "model.safetensors")
    return place


@pytest.fixture
def sharded(tmp_path):
    """The same tensors in two files, and an index."""
    place = tmp_path / "sharded"
    place.mkdir()
    (place / "config.json").write_text(json.dumps(CONFIG))
    names = list(TENSORS)
    for number, part in enumerate((names[:1], names[1:]), start=1):
        tensors = {name: TENSORS[name] for name in part}
        safetensors_numpy.save_file(tensors, place / f"model-{number}.safetensors")
    write_index(
        place,
        {name: f"model-{1 + (i > 0)}.safetensors" for i, name in enumerate(names)},
    )
    return place


def write_index(place, shard_of):
    (place / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": shard_of}))


def write_header(place, header, data=bytes(64)):
    """A safetensors file with a header made by hand."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    (place / "model.safetensors").write_bytes(
        struct.pack("<Q", len(text)) + text + data
    )


def told(dtype="F32", shape=(8,), offsets=(0, 32)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def assert_same_bits(found, expected):
    assert found.dtype == expected.dtype and found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("which", ["folder", "sharded"])
def test_tensors_are_told_and_read_exactly(which, request):
    checkpoint = open_folder(request.getfixturevalue(which))
    assert checkpoint.config == CONFIG
    assert checkpoint.where.endswith(("model", "sharded"))
    assert set(checkpoint.tensors) - set(BUFFER) == set(TENSORS)
    for name, expected in TENSORS.items():
        tensor = checkpoint.tensors[name]
        assert tensor.shape == expected.shape
        assert tensor.stored in {"float32": "F32", "float16": "F16"}.get(
            expected.dtype.name, "BF16"
        )
        assert_same_bits(tensor.read(), expected)
        assert tensor.read() is not tensor.read()


def test_other_types_are_told_but_not_read(folder):
    tensor = open_folder(folder).tensors["position_ids"]
    assert (tensor.shape, tensor.stored) == ((4,), "I64")
    said = r"model.safetensors: tensor 'position_ids' is stored as I64; allowed: F32"
    with pytest.raises(InputError, match=said):
        tensor.read()


def test_opening_reads_no_tensor(folder, monkeypatch):
    read = []

    class Watched:
        def __init__(self, *args, **kwargs):
            self._file = safe_open(*args, **kwargs)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._file = None

        def get_tensor(self, name):
            read.append(name)
            return self._file.get_tensor(name)

        def __getattr__(self, name):
            assert name in ("keys", "get_slice")
            return getattr(self._file, name)

    monkeypatch.setattr(safetensors_files, "safe_open", Watched)
    checkpoint = open_folder(folder)
    assert read == []
    checkpoint.tensors["layer.bias"].read()
    assert read == ["layer.bias"]


def test_what_has_changed_since_opening_is_refused(folder):
    checkpoint = open_folder(folder)
    write_header(folder, {"layer.bias": told("F16", (32,), (0, 64))})
    with pytest.raises(InputError, match="'layer.bias' has changed since"):
        checkpoint.tensors["layer.bias"].read()
    with pytest.raises(InputError, match="'layer.weight' cannot be read: .*; fetch"):
        checkpoint.tensors["layer.weight"].read()
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="'layer.bias' cannot be read: No such file"):
        checkpoint.tensors["layer.bias"].read()


def test_one_file_of_another_name_will_do_and_symlinks_are_followed(folder, tmp_path):
    blob = tmp_path / "blobs" / "1f2e"  # as huggingface_hub keeps what it fetched
    blob.parent.mkdir()
    (folder / "model.safetensors").rename(blob)
    (folder / "weights.safetensors").symlink_to("../blobs/1f2e")
    assert_same_bits(
        open_folder(folder).tensors["embed.weight"].read(), TENSORS["embed.weight"]
    )


def test_a_folder_without_its_parts_is_refused(folder, tmp_path):
    with pytest.raises(InputError, match="mode is not a folder; did you mean 'model'"):
        open_folder(tmp_path / "mode")
    with pytest.raises(InputError, match="config.json is not a folder; give one with"):
        open_folder(folder / "config.json")
    (folder / "second.safetensors").write_bytes(b"")
    assert open_folder(folder).tensors  # model.safetensors is the one to take
    (folder / "model.safetensors").rename(folder / "first.safetensors")
    with pytest.raises(InputError, match="holds 2 .* and no model.safetensors.index"):
        open_folder(folder)
    for name in ("first", "second"):
        (folder / f"{name}.safetensors").unlink()
    with pytest.raises(InputError, match="holds no model.safetensors; give a folder"):
        open_folder(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl"])
def test_pickles_are_never_loaded(folder, name):
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(InputError, match=f"only in {name}, a pickle: .*; convert it"):
        open_folder(folder)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "config.json does not exist; give a folder as Transformers"),
        (b"{", "config.json is not JSON: "),
        (b"[]", "config.json must be a JSON object"),
        (b"[" * 100_000, "config.json is not JSON: "),
        (b"\xff", "config.json is not UTF-8"),
        (b'{"hidden_size": 3}', "config.json has no 'model_type', e.g. 'llama'"),
    ],
)
def test_a_config_that_says_nothing_is_refused(folder, text, said):
    (folder / "config.json").unlink()
    if text is not None:
        (folder / "config.json").write_bytes(text)
    with pytest.raises(InputError, match=said):
        open_folder(folder)


A, B = told(), told(offsets=(32, 64))


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"a": A, "b": told(offsets=(16, 48))}, "'b' lies at bytes 16 to 48, not from"),
        ({"a": A, "b": told(shape=(4,), offsets=(48, 64))}, "'b' lies at bytes 48"),
        ({"a": A, "b": told(shape=(9,), offsets=(32, 68))}, "'b' should .* 68 of 64"),
        ({"a": told(offsets=(-32, 0))}, "'a' is told as {.*-32"),
        ({"a": told(offsets=(32, 0))}, "'a' lies at bytes 32 to 0"),
        ({"a": told(shape=(2, 5)), "b": B}, r"'a' of shape \[2, 5\] in F32 does not"),
        ({"a": told(shape=(2**40, 2**40)), "b": B}, "'a' of shape .* does not take 32"),
        ({"a": told(shape=(-2, -4)), "b": B}, "'a' is told as"),
        ({"a": told("X32"), "b": B}, "'a' is of type 'X32', not known"),
        ({"a": {"shape": [8]}}, "'a' is told as {'shape'"),
        ({"a": 3}, "'a' is told as 3"),
        ({"a": told("F64"), "b": B}, r"'a' of shape \[8\] in F64 does not take 32"),
        ({"a": A}, "its last tensor ends at byte 32 of 64"),
        (b"[]", "its header is not a JSON object"),
        (b"{a}", "its header is not JSON"),
        (b"\xff\xfe", "its header is not JSON"),
        (b'{"a":' + b"[" * 100_000, "its header is not JSON"),
    ],
)
def test_a_header_that_cannot_be_true_is_refused(folder, header, said):
    write_header(folder, header)
    with pytest.raises(InputError, match=f"model.safetensors is not a whole .*{said}"):
        open_folder(folder)


@pytest.mark.parametrize("length", [2**64 - 1, 2**63, 10**8 + 1, 200])
def test_an_absurd_header_length_is_refused(folder, length):
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", length) + b"{}")
    with pytest.raises(InputError, match=f"10 bytes, and its header .* have {length};"):
        open_folder(folder)


def test_shapes_that_no_array_can_have_are_refused_when_read(folder):
    header = {"a": told(shape=(0, 2**62), offsets=(0, 0))}
    header["b"] = told(shape=(1,) * 99 + (16,), offsets=(0, 64))
    write_header(folder, header)
    for name, tensor in open_folder(folder).tensors.items():
        with pytest.raises(InputError, match=f"tensor '{name}' cannot be read: "):
            tensor.read()


def test_a_file_without_tensors_or_that_is_none_is_refused(folder):
    write_header(folder, {}, data=b"")
    with pytest.raises(InputError, match="model.safetensors holds no tensor"):
        open_folder(folder)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    with pytest.raises(InputError, match="holds no model.safetensors"):
        open_folder(folder)


@pytest.mark.parametrize(
    "name",
    [
        "../model/model-1.safetensors",
        "/etc/model-1.safetensors",
        "sub/model-1.safetensors",
        "..\\model-1.safetensors",
        "model\0-1.safetensors",
        "model-1.bin",
        "..",
        "",
        "é" * 130 + ".safetensors",
        7,
    ],
)
def test_an_index_stays_in_its_folder(sharded, name):
    write_index(sharded, {"embed.weight": name})
    said = "tensor 'embed.weight' is said to be in .*; allowed is the plain name"
    with pytest.raises(InputError, match=said):
        open_folder(sharded)


def test_an_index_and_its_shards_must_agree(sharded):
    first, second = "model-1.safetensors", "model-2.safetensors"
    write_index(sharded, {"embed.weight": first, "layer.weight": first})
    with pytest.raises(
        InputError, match="'layer.weight' should be in model-1.* is not"
    ):
        open_folder(sharded)
    write_index(sharded, {"embed.weight": first, "layer.weight": "model-3.safetensors"})
    with pytest.raises(
        InputError, match="in model-3.safetensors, which is missing; fe"
    ):
        open_folder(sharded)
    write_index(sharded, {"embed.weight": first, "layer.weight": second})
    safetensors_numpy.save_file(TENSORS, sharded / second)
    said = "'embed.weight' is in model-1.safetensors and in model-2.safetensors"
    with pytest.raises(InputError, match=said):
        open_folder(sharded)
    for text in ("{}", '{"weight_map": {}}', '{"weight_map": []}'):
        (sharded / INDEX).write_text(text)
        with pytest.raises(InputError, match="index.json has no 'weight_map'"):
            open_folder(sharded)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_file_cut_anywhere_gives_one_line(folder, name):
    (folder / "tokenizer.json").write_text("{}")
    whole = (folder / name).read_bytes()
    for length in range(len(whole)):
        (folder / name).write_bytes(whole[:length])
        if name == "tokenizer.json":  # text that Tokenizer.from_parts judges
            assert open_folder(folder).tokenizer_json == whole[:length].decode()
            continue
        with pytest.raises(InputError, match=f"^[^\n]*{name}[^\n]*$"):
            open_folder(folder)


def test_broken_bytes_give_one_line_or_other_numbers(folder):
    whole = (folder / "model.safetensors").read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    draw = random.Random(0)
    refused = 0
    for _ in range(300):
        broken = bytearray(whole)
        broken[draw.randrange(header)] = draw.randrange(256)
        (folder / "model.safetensors").write_bytes(broken)
        try:
            for tensor in open_folder(folder).tensors.values():
                if tensor.stored != "I64":
                    assert tensor.read().shape == tensor.shape
        except InputError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 150


def test_tokens_and_templates_become_plain_strings(folder):
    config = {
        "eos_token": {"content": "</s>", "lstrip": False},
        "bos_token": None,
        "add_bos_token": True,
        "chat_template": [
            {"name": "tool_use", "template": "tools"},
            {"name": "default", "template": "plain"},
        ],
    }
    tokens = {"eos_token": "<other>", "bos_token": {"content": "<s>"}}
    (folder / "tokenizer.json").write_text('{"model": "ü"}', encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "special_tokens_map.json").write_text(json.dumps(tokens))
    checkpoint = open_folder(folder)
    assert checkpoint.tokenizer_json == '{"model": "ü"}'
    assert checkpoint.tokenizer_config == {
        "eos_token": "</s>",
        "bos_token": "<s>",
        "add_bos_token": True,
        "chat_template": "plain",
    }
    (folder / "chat_template.jinja").write_text("beside")
    assert open_folder(folder).tokenizer_config["chat_template"] == "beside"
    (folder / "tokenizer_config.json").write_text('{"eos_token": 3}')
    with pytest.raises(
        InputError, match="'eos_token' of its tokenizer_config.json is 3"
    ):
        open_folder(folder)


def test_a_folder_without_tokenizer_has_none(folder):
    checkpoint = open_folder(folder)
    assert checkpoint.tokenizer_json is None
    assert checkpoint.tokenizer_config == {}
    assert checkpoint.sentence == {}


def test_sentence_vectors_are_told_where_they_can_be_made(folder):
    modules = [
        {"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    assert open_folder(folder).sentence == {}
    (folder / "1_Pooling").mkdir()
    pooling = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 256}')
    assert open_folder(folder).sentence == {
        "pooling": "mean",
        "normalize": True,
        "length": 256,
    }
    modules[2]["type"] = "sentence_transformers.models.Dense"  # we have no such layer
    (folder / "modules.json").write_text(json.dumps(modules))
    assert open_folder(folder).sentence == {}


def test_a_written_folder_is_read_back_bit_for_bit(tmp_path):
    odd = np.array([np.nan, -0.0, np.inf, 1e-40], np.float32)
    tensors = TENSORS | {
        "turned": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "turned.half": np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16).T,
        "scalar": np.full((), 3, np.float32),
        "empty": np.zeros((0, 4), np.float16),
        "a.half": np.ones(3, np.float16),  # 6 bytes: what follows must not lie there
        "odd": odd,
        "odd.half": odd.astype(ml_dtypes.bfloat16),
        "näme": odd[::2],
    }
    place = tmp_path / "new" / "model"
    write(place, tensors=tensors)
    checkpoint = open_folder(place)
    assert checkpoint.config == CONFIG
    assert checkpoint.tokenizer_json == '{"model": "ü"}'
    assert checkpoint.tokenizer_config == {
        "eos_token": "ü",
        "chat_template": "{{ x }}",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    assert (place / "README.md").read_text("utf-8") == "# Mödel\n"
    assert set(checkpoint.tensors) == set(tensors)
    for name, expected in tensors.items():
        assert_same_bits(checkpoint.tensors[name].read(), expected)
    by_library = safetensors_numpy.load_file(place / "model.safetensors")
    for name, expected in tensors.items():
        assert_same_bits(by_library[name], expected)
    with safe_open(place / "model.safetensors", framework="numpy") as file:
        assert file.metadata() == {"format": "pt"}
    content = (place / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert length % 8 == 0
    for name, expected in tensors.items():  # a mapped file can be used as it lies
        assert header[name]["data_offsets"][0] % expected.itemsize == 0
    assert [one.name for one in place.parent.iterdir()] == ["model"]


def write(place, *, tensors=TENSORS, tokenizer_json='{"model": "ü"}'):
    write_folder(
        place,
        config=CONFIG,
        tensors=tensors,
        tokenizer_json=tokenizer_json,
        tokenizer_config={"eos_token": "ü", "chat_template": "{{ x }}"},
        model_card="# Mödel\n",
    )


def test_a_model_without_tokenizer_is_written_without(tmp_path):
    write(tmp_path / "model", tokenizer_json=None)
    assert sorted(one.name for one in (tmp_path / "model").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]


def test_tensors_may_be_made_on_demand(tmp_path):
    class Made(dict):
        held = 0

        def items(self):
            return ((name, self[name]) for name in self)

        def __getitem__(self, name):
            Made.held += 1
            return np.full((2, 2), super().__getitem__(name), np.float32)

    write(tmp_path / "model", tensors=Made(a=1, b=2))
    assert Made.held == 4
    tensors = open_folder(tmp_path / "model").tensors
    assert tensors["b"].read().tolist() == [[2, 2], [2, 2]]


def test_a_folder_in_use_is_not_written_to(tmp_path):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("used", "file"):
        with pytest.raises(
            InputError, match=f"{name} is there and not empty; give a n"
        ):
            write(tmp_path / name)
    with pytest.raises(InputError, match="cannot write .*file/model: File exists; ma"):
        write(tmp_path / "file" / "model")
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty")
    assert open_folder(tmp_path / "empty").tensors
    assert [one.name for one in (tmp_path / "used").iterdir()] == ["notes.txt"]


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        with pytest.raises(
            InputError, match="cannot write .*model: File too large; ma"
        ):
            write(tmp_path / "model", tensors={"a": np.zeros(1 << 15, np.float32)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_a_type_that_is_not_written_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="'a' is int64; allowed: float32, float16"):
        write(tmp_path / "model", tensors={"a": np.arange(3)})
    assert list(tmp_path.iterdir()) == []


def test_fetching_returns_the_folder_or_one_line(monkeypatch, tmp_path):
    asked = {}

    def fetch(name, **kwargs):
        asked.update(kwargs, name=name)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert fetch_hub("org/name") == pathlib.Path(tmp_path)
    assert asked["name"] == "org/name"
    assert "*.safetensors" in asked["allow_patterns"]
    assert not any("bin" in one or "*" == one for one in asked["allow_patterns"])

    def no_internet(name, **kwargs):
        raise huggingface_hub.errors.LocalEntryNotFoundError(
            "Got: ConnectError\nAn error happened while trying to locate the files"
        )

    monkeypatch.setattr(huggingface_hub, "snapshot_download", no_internet)
    said = r"^hf:org/name is not a folder .* \(there is no way .*\); give hf:DIR"
    with pytest.raises(InputError, match=said) as refusal:
        fetch_hub("org/name")
    assert "\n" not in str(refusal.value)


def test_a_name_that_the_hub_cannot_have_is_refused_without_asking():
    with pytest.raises(InputError, match=r"hf:a b is not a folder .*alphanumeric"):
        fetch_hub("a b")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('"rope_theta": NaN', "config.json has rope_theta=nan; it must be a finite"),
        ('"rope": {"factors": [1, -Infinity]}', r"has rope.factors\[1\]=-inf; it must"),
        ('"rms_norm_eps": 1e999', "config.json has rms_norm_eps=inf; it must be"),
        ('"vocab_size": "320"', "config.json has vocab_size='320'; it must be a whole"),
        ('"vocab_size": null', "config.json has vocab_size=None; it must be a whole"),
        ('"eos_token_id": "2"', "eos_token_id is '2'; it must be the id of a token"),
        ('"eos_token_id": [2, true]', r"eos_token_id is \[2, True\]; it must be the"),
    ],
)
def test_values_that_no_config_has_are_one_line(folder, text, said):
    (folder / "config.json").write_text(f'{{"model_type": "llama", {text}}}')
    with pytest.raises(InputError, match=said):
        open_folder(folder)


@pytest.mark.parametrize(
    ("config", "generation", "ends"),
    [
        ({"eos_token_id": 2}, None, 2),
        ({"eos_token_id": 2}, {"eos_token_id": 2}, 2),
        ({"eos_token_id": 2}, {"eos_token_id": [7, 2, 5]}, [2, 7, 5]),
        ({"eos_token_id": [3, 3]}, {}, 3),
        ({"eos_token_id": None}, {"eos_token_id": [4]}, 4),
        ({}, {"eos_token_id": 4}, 4),
    ],
)
def test_what_ends_a_text_is_gathered(folder, config, generation, ends):
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    assert open_folder(folder).config["eos_token_id"] == ends


def test_a_tokenizers_own_class_is_kept(tmp_path):
    write_folder(
        tmp_path / "model",
        config=CONFIG,
        tensors=TENSORS,
        tokenizer_json="{}",
        tokenizer_config={"tokenizer_class": "GPT2Tokenizer"},
        model_card="",
    )
    config = json.loads((tmp_path / "model" / "tokenizer_config.json").read_text())
    assert config == {"tokenizer_class": "GPT2Tokenizer"}
