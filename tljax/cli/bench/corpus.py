"""Memory of a corpus, from opening it to its first batch: the same at any size.

A process of its own does what `tljax train` does: opens, hashes, trains a tokenizer,
tokenises, draws a batch. Documents are about 1 KB, an index of each is kept.
"""

import itertools
import json
import pathlib
import re
import subprocess
import sys
import tempfile

from tljax.cli.bench.turns import Work
from tljax.data.corpus import training_iterator
from tljax.data.sources import open_source
from tljax.data.token_store import open_token_store
from tljax.data.tokenizer_training import train_tokenizer

MEGABYTES = (32, 128)
DOCUMENT = 8  # sentences


def works(texts: list[str]) -> list[Work]:
    """Peak memory over that of the process's start, for each size of corpus.

    Args:
      texts: sentences that documents are made of.
    """
    return [
        Work(
            name=f"memory to a corpus's first batch, {megabytes} MB of text",
            unit="MiB",
            prepare=lambda megabytes=megabytes: lambda: _measure(texts, megabytes),
        )
        for megabytes in MEGABYTES
    ]


def _measure(texts: list[str], megabytes: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "corpus.jsonl"
        write_corpus(path, texts, bytes_wanted=megabytes * 10**6)
        call = f"from tljax.cli.bench import corpus; corpus.peak({str(path)!r})"
        done = subprocess.run(
            [sys.executable, "-c", call], capture_output=True, text=True, check=True
        )
    return json.loads(done.stdout.strip().splitlines()[-1])


def write_corpus(path: pathlib.Path, texts: list[str], *, bytes_wanted: int) -> None:
    """Writes numbered documents of some neighbouring texts each as JSON lines."""
    written = 0
    with path.open("wb") as file:
        for number in itertools.count():
            if written >= bytes_wanted:
                return
            start = number * DOCUMENT % len(texts)
            text = " ".join([str(number), *texts[start : start + DOCUMENT]])
            written += file.write(json.dumps({"text": text}).encode() + b"\n")


def peak(path: str) -> None:
    """Prints by how many MiB the process grew at most, up to the first batch."""
    started = _mebibytes("VmRSS")
    source = open_source(f"jsonl:{path}")
    for split in source.splits:
        source.split_hash(split)
    texts = (example.text for example in source.examples("train"))
    tokenizer = train_tokenizer(texts, vocab_size=8192, normalization="none")
    store = open_token_store(
        source, "train", tokenizer, cache=pathlib.Path(path).parent
    )
    next(training_iterator(store, batch=16, length=256, seed=0))
    print(_mebibytes("VmHWM") - started)


def _mebibytes(what: str) -> float:
    """Of resident memory: now (VmRSS), at most (VmHWM).

    getrusage's ru_maxrss begins with that of the process that called this one.
    """
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(rf"{what}:\s*(\d+) kB", status)[1]) / 1024
