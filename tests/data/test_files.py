"""Files walked once and read again by place: the same results, little memory."""

import hashlib
import json
import os
import tracemalloc

import pytest

from tljax.data import files
from tljax.data.formats import JsonLines, open_text
from tljax.data.sources import open_source
from tljax.data.splits import SPLITS
from tljax.data.token_store import open_token_store
from tljax.data.tokenizer_training import train_tokenizer
from tljax.settings import InputError

MARK = b"\xef\xbb\xbf"
REPEATED = "2 repeated texts dropped"
CONFLICT = "1 of them had another label than the first, which stays"

# Sizes and notes; the heads of the SHA-256s of (file, splits, notes), of the stored
# tokens with their key, and of a tokenizer trained on it: as found when files were
# read whole into memory.
GOLDEN = {
    "jsonl:{}/a.jsonl?label=y": (
        [30, 4, 8], (REPEATED, CONFLICT),
        "44e364643338d487", "4ec3a24db82b5d8e", "c92ea05f2fbb995e",
    ),
    "jsonl:{}/a.jsonl": (
        [30, 4, 8], (REPEATED,),
        "ca17d982dac242f2", "6261cb4ea65f148b", "c92ea05f2fbb995e",
    ),
    "csv:{}/a.csv?label=y": (
        [30, 4, 8], (REPEATED, CONFLICT),
        "bc8b6af65540451c", "38f3170c5e554bee", "c92ea05f2fbb995e",
    ),
    "csv:{}/a.csv": (
        [30, 4, 8], (REPEATED,),
        "758679dff3144691", "6261cb4ea65f148b", "c92ea05f2fbb995e",
    ),
    "text:{}/a.txt": (
        [30, 4, 9], ("1 repeated texts dropped",),
        "e126091d7ce47bb2", "4600d73944ffa543", "3fb0b87638325991",
    ),
    "text:{}/notes": (
        [30, 4, 8], ("1 repeated texts dropped",),
        "b849001b907a131f", "2c5745b04c3bceca", "1302143ce6ba69e3",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Each format with all that is awkward in it: marks, line ends, quotes, repeats."""
    folder = tmp_path_factory.mktemp("files")
    rows = [(f'Film {i}: été,\n"{i * 7 % 5}" stars\u2028.', i % 3) for i in range(40)]
    rows += [("", 1), (rows[3][0], 0), (rows[4][0], 2), (" \t", 0)]
    lines = [
        json.dumps({"n": i, "text": text, "y": y}, ensure_ascii=i % 2 == 0)
        for i, (text, y) in enumerate(rows)
    ]
    (folder / "a.jsonl").write_bytes(MARK + "\r\n\n".join(lines).encode())
    quoted = ['"{}",{},x'.format(t.replace('"', '""'), "pqr"[y]) for t, y in rows]
    quoted.insert(5, "")
    old_mac = "\r".join(["text,y,z", *quoted[:9]])
    windows = "\r\n".join(quoted[9:])
    (folder / "a.csv").write_bytes(MARK + f"{old_mac}\r\n{windows}".encode())
    blocks = [f"{text}\n  second {y}\n" for text, y in rows]
    (folder / "a.txt").write_bytes(MARK + "\n \u00a0\n".join(blocks).encode())
    for i, (text, y) in enumerate(rows):
        path = folder / "notes" / ("b" if y else ".") / f"n{i}{'-' * y}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        content = f"{text}\n\n{y}\n".encode() if text else b""
        path.write_bytes((MARK if y else b"") + content)
    return folder


def head(*parts):
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


@pytest.mark.parametrize("uri", GOLDEN)
def test_every_kind_of_file_gives_what_it_gave_when_it_was_read_whole(
    folder, tmp_path, uri
):
    source = open_source(uri.format(folder))
    hashes = [source.split_hash(split) for split in SPLITS]
    found = " ".join([source.facts.sha256, *hashes, *source.notes])
    tokenizer = train_tokenizer(
        ["Film: été, stars second"] * 3, vocab_size=280, normalization="lower"
    )
    open_token_store(source, "train", tokenizer, cache=tmp_path)
    (made,) = (tmp_path / "tokens").iterdir()
    arrays = [(made / f"{name}.npy").read_bytes() for name in ("flat", "offsets")]
    texts = (example.text for example in source.examples("train"))
    own = train_tokenizer(texts, vocab_size=290, normalization="none")
    assert GOLDEN[uri] == (
        [len(source.examples(split)) for split in SPLITS],
        source.notes,
        head(found.encode()),
        head(made.name.encode(), *arrays),
        own.sha256[:16],
    )


@pytest.mark.parametrize("uri", GOLDEN)
def test_an_index_a_slice_and_a_walk_give_the_same_rows(folder, uri):
    examples = open_source(uri.format(folder)).examples("train")
    walked = list(examples)
    assert [examples[i] for i in range(len(examples))] == walked
    assert list(examples[20:3:-4]) == walked[20:3:-4]
    assert examples[-1] == walked[-1]


def test_opening_and_reading_keep_no_texts(tmp_path):
    path, text = tmp_path / "a.jsonl", "x" * 10_000
    with path.open("w") as file:
        for number in range(2_000):
            file.write(f'{{"text": "{number} {text}"}}\n')
    tracemalloc.start()
    try:
        source = open_source(f"jsonl:{path}")
        for split in SPLITS:
            source.split_hash(split)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 20_000_000
    # three blocks: one is read while another is decoded; no more for a longer file
    assert peak < 5_000_000


@pytest.mark.parametrize("block", range(1, 9))
def test_what_is_not_utf_8_is_found_wherever_blocks_end(tmp_path, monkeypatch, block):
    monkeypatch.setattr(files, "_BLOCK", block)
    path = tmp_path / "a.txt"
    path.write_bytes("é\n".encode() + b"ab\xe2\x82\nc")
    said = r"a\.txt, line 2: not UTF-8 \(byte 0xe2 at offset 5\)"
    with pytest.raises(InputError, match=said):
        open_text(path)
    path.write_bytes("é\n€".encode()[:-1])
    with pytest.raises(InputError, match=r"line 2: .* 0xe2 at offset 3"):
        open_text(path)
    path.write_bytes("é\n\n€".encode())
    assert [row.text for row in open_text(path)] == ["é", "€"]


def test_a_file_that_is_changed_or_gone_is_noticed(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"t": "{i}"}}\n' for i in range(9)))
    examples = open_source(f"jsonl:{path}?text=t").examples("train")
    assert len(list(examples)) == 6
    with path.open("a") as file:
        file.write('{"t": "more"}\n')
    with pytest.raises(InputError, match=r"a\.jsonl was changed while it was in use"):
        list(examples)
    path.unlink()
    with pytest.raises(InputError, match=r"a\.jsonl cannot be read: No such file"):
        examples[0]


def test_a_pipe_is_refused_as_it_can_be_read_only_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe is no file on disk"):
        JsonLines(tmp_path / "pipe", text="t", label=None)
