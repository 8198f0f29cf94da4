"""GGUF headers: bytes by hand, and every cut or damage ends in one line."""

import struct

import gguf
import numpy as np
import pytest

from tljax.pretrained.gguf.header import Header, read_header
from tljax.settings import InputError


def text(value):
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def key(name, kind, value):
    return text(name) + struct.pack("<I", kind) + value


def tensor(name, dims, kind=0, offset=0):
    """dims as the file has them: the length of a row first."""
    numbers = struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)
    return text(name) + numbers


def whole(keys=(), tensors=(), data=b"", *, version=3, alignment=32, counts=None):
    """A GGUF file, byte by byte."""
    head = b"GGUF" + struct.pack(
        "<IQQ", version, *(counts or (len(tensors), len(keys)))
    )
    head += b"".join(keys) + b"".join(tensors)
    return head + bytes(-len(head) % alignment) + data


KEYS = (
    key("a.int", 4, struct.pack("<I", 7)),
    key("a.negative", 5, struct.pack("<i", -7)),
    key("a.float", 6, struct.pack("<f", 0.5)),
    key("a.bool", 7, b"\x01"),
    key("a.text", 8, text("naïve")),
    key("a.texts", 9, struct.pack("<IQ", 8, 2) + text("x") + text("▁y")),
    key("a.numbers", 9, struct.pack("<IQ3i", 5, 3, 1, -2, 3)),
)
TENSORS = (tensor("one", [2, 3]), tensor("two", [4], kind=1, offset=32))
DATA = (
    np.arange(6, dtype="<f4").tobytes()
    + bytes(8)
    + np.array([1, 2, 0.5, -1], dtype="<f2").tobytes()
)


@pytest.fixture
def refused(tmp_path):
    """refused(bytes) -> the one line that a file of them is refused with."""

    def read(data):
        path = tmp_path / "bad.gguf"
        path.write_bytes(data)
        with pytest.raises(InputError) as error:
            read_header(path)
        line = str(error.value)
        assert str(path) in line and "\n" not in line
        return line

    return read


def test_a_file_by_hand(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(whole(KEYS, TENSORS, DATA))

    header = read_header(path)

    numbers = header.metadata["a.numbers"]
    assert {k: v for k, v in header.metadata.items() if k != "a.numbers"} == {
        "a.int": 7,
        "a.negative": -7,
        "a.float": 0.5,
        "a.bool": True,
        "a.text": "naïve",
        "a.texts": ["x", "▁y"],
    }
    assert numbers.tolist() == [1, -2, 3]
    assert list(header.tensors) == ["one", "two"]
    one, two = header.tensors.values()
    assert (one.shape, one.kind.name, one.raw_shape) == ((3, 2), "F32", (3, 8))
    assert (two.shape, two.kind.name, two.raw_shape) == ((4,), "F16", (8,))
    np.testing.assert_array_equal(one.read().view("<f4"), [[0, 1], [2, 3], [4, 5]])
    np.testing.assert_array_equal(two.read().view("<f2"), [1, 2, 0.5, -1])


def test_bytes_are_read_anew_at_each_call(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(whole(KEYS, TENSORS, DATA))
    one = read_header(path).tensors["one"]
    assert one.read().view("<f4")[2, 1] == 5

    path.write_bytes(
        whole(KEYS, TENSORS, DATA.replace(struct.pack("<f", 5), b"\0" * 4))
    )
    assert one.read().view("<f4")[2, 1] == 0

    path.write_bytes(b"")
    with pytest.raises(InputError, match="shorter since it was opened"):
        one.read()


def test_the_gguf_package_reads_the_same(tmp_path):
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint64("n.u64", 2**40)
    writer.add_int8("n.i8", -3)
    writer.add_float64("n.f64", 0.1)
    writer.add_array("n.floats", [0.5, 1.5])
    writer.add_string("s", "tab\tand\nline")
    writer.add_custom_alignment(64)
    writer.add_tensor("w", np.arange(35, dtype=np.float32).reshape(5, 7))
    writer.add_tensor("v", np.arange(3, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    ours, theirs = read_header(path), gguf.GGUFReader(path)

    keys = [one for one in theirs.fields if not one.startswith("GGUF.")]
    assert list(ours.metadata) == keys
    assert {k: np.asarray(v).tolist() for k, v in ours.metadata.items()} == {
        k: theirs.fields[k].contents() for k in keys
    }
    assert len(theirs.tensors) == len(ours.tensors) == 2
    for one in theirs.tensors:
        stored = ours.tensors[one.name]
        assert stored.shape == tuple(one.data.shape)
        np.testing.assert_array_equal(stored.read().view("<f4"), one.data)


def test_version_2_is_read_and_alignment_heeded(tmp_path):
    path = tmp_path / "model.gguf"
    keys = (key("general.alignment", 4, struct.pack("<I", 256)),)
    path.write_bytes(whole(keys, TENSORS[:1], DATA, version=2, alignment=256))
    assert read_header(path).tensors["one"].read().view("<f4")[1, 0] == 2


def test_cut_off_at_any_byte_is_refused(refused):
    data = whole(KEYS, TENSORS, DATA)
    lines = [refused(data[:end]) for end in range(len(data))]
    told = ("is not a GGUF file", "cut off or damaged")
    assert all(any(one in line for one in told) for line in lines)


def test_a_length_that_no_file_can_have_is_not_believed(refused):
    endless = struct.pack("<IQ", 4, 2**60)
    assert "in metadata 'a.list'" in refused(whole((key("a.list", 9, endless),)))
    texts = struct.pack("<IQ", 8, 2**60)
    assert "in metadata 'a.list'" in refused(whole((key("a.list", 9, texts),)))
    assert "cut off or damaged" in refused(whole(counts=(0, 2**63)))
    assert "tensor '' has 0 dim" in refused(whole(counts=(2**63, 0)) + bytes(64))
    assert "in a metadata key" in refused(
        whole((struct.pack("<Q", 2**63),), counts=(0, 1))
    )
    wide = tensor("w", [2**40, 2**40])
    assert "tensor 'w' ends at byte" in refused(whole((), (wide,)))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "is not a GGUF file: it has 0 bytes"),
        (b"PK\x03\x04 a zip", r"it starts with b'PK\x03\x04', not b'GGUF'"),
        (whole(version=1), "version 1; known here, little-endian: 2, 3"),
        (whole(version=3 << 24), "version 50331648"),  # big-endian
        (whole((KEYS[0], KEYS[0])), "two metadata keys 'a.int'"),
        (whole((), (TENSORS[0],) * 2, DATA), "two tensors 'one'"),
        (whole((key("k", 13, b""),)), "metadata 'k' has value type 13"),
        (
            whole((key("k", 9, struct.pack("<IQ", 9, 1)),)),
            "metadata 'k' is a list of value type 9",
        ),
        (whole((key("k", 8, text(b"\xff")),)), "metadata 'k' is not UTF-8"),
        (whole((), (tensor("t", []),)), "tensor 't' has 0 dimensions"),
        (whole((), (tensor("t", [1] * 5),)), "tensor 't' has 5 dimensions"),
        (whole((), (tensor("t", [0, 3]),)), "tensor 't' has shape (3, 0)"),
        (
            whole((), (tensor("t", [33], kind=8),), bytes(99)),
            "shape (33,); a row of Q8_0 has a multiple of 32 values",
        ),
        (
            whole((), (tensor("t", [256], kind=10),), bytes(999)),
            "tensor 't' is of type Q2_K; known here: F32, F16, BF16, Q8_0, Q4_0",
        ),
        (whole((), (tensor("t", [4], kind=99),), bytes(99)), "is of type 99; known"),
        (
            whole((), (tensor("t", [4], offset=32),), bytes(47)),
            "tensor 't' ends at byte 112, the file at 111",
        ),
        (
            whole((), (tensor("t", [4], offset=4),), bytes(47)),
            "tensor 't' begins at byte 68, no multiple of 32; the file is damaged",
        ),
        (
            whole((), (tensor("t", [16]), tensor("u", [4], offset=32)), bytes(64)),
            "tensor 'u' begins within tensor 't'; the file is damaged",
        ),
        (
            whole((key("general.alignment", 4, struct.pack("<I", 24)),)),
            "general.alignment is 24; it must be a power of two",
        ),
        (
            whole((key("general.alignment", 8, text("x")),)),
            "'general.alignment' is 'x'; it must be a whole number",
        ),
    ],
    ids=lambda one: one[-40:] if isinstance(one, str) else "",
)
def test_refused(refused, data, told):
    assert told in refused(data)


def test_no_such_file(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"")
    with pytest.raises(InputError, match="did you mean 'model.gguf'"):
        read_header(tmp_path / "modle.gguf")
    with pytest.raises(InputError, match="is not a file"):
        read_header(tmp_path)


def test_a_value_is_of_the_kind_asked_for(tmp_path):
    header = Header(tmp_path, {"i": 2, "f": 0.5, "b": True, "l": ["a"]}, {})
    assert header.value("i", int) == 2
    assert type(header.value("i", float)) is float
    assert header.value("b", bool) is True
    assert header.value("none", int, None) is None
    for name, kind, told in (
        ("b", int, "'b' is True; it must be a whole number"),
        ("f", int, "'f' is 0.5; it must be a whole number"),
        ("l", str, "must be text"),
        ("i", list, "must be a list of texts"),
        ("none", str, "metadata key 'none' is missing"),
    ):
        with pytest.raises(InputError, match=told):
            header.value(name, kind)
