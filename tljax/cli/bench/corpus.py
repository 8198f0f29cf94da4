"""What a corpus costs: a user's file opened and tokenised, in a process of its own.

    python -m tljax.cli.bench.corpus FILE TOKENIZER -> {"seconds", "bytes"}

bytes is the process's largest resident memory; it imports no JAX, so that the text
weighs more than the libraries.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

from tljax.cli.bench.resident import peak_bytes
from tljax.data.sources import open_source
from tljax.data.token_store import open_token_store
from tljax.data.tokenizer import Tokenizer
from tljax.data.tokenizer_training import train_tokenizer
from tljax.settings import InputError

WORDS, DOCUMENT = 50_000, 180  # in the language; of a document, about a kilobyte
VOCAB = 4096
ZIPF = 1.3  # a word's frequency falls with this power of its rank


def made_documents(size: int, seed: int) -> list[str]:
    """Texts of invented words, as frequent as Zipf's law has them, of `size` bytes."""
    random = np.random.default_rng(seed)
    letters = random.integers(ord("a"), ord("z") + 1, (WORDS, 9), dtype=np.uint8)
    lengths = random.integers(2, 10, WORDS)
    words = np.array(
        [
            one[:length].tobytes().decode()
            for one, length in zip(letters, lengths, strict=True)
        ]
    )
    documents, done = [], 0
    while done < size:
        ranks = np.minimum(random.zipf(ZIPF, DOCUMENT), WORDS) - 1
        documents.append(" ".join(words[ranks]))
        done += len(documents[-1])
    return documents


def write_corpus(folder: pathlib.Path, megabytes: float) -> pathlib.Path:
    """FOLDER/MEGABYTES.jsonl of made documents, beside it a tokenizer of the first."""
    documents = made_documents(round(megabytes * 1e6), seed=0)
    path = folder / f"{megabytes:g}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": one}) + "\n" for one in documents)
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.exists():
        train_tokenizer(
            iter(documents[:1000]), vocab_size=VOCAB, normalization="none"
        ).save(tokenizer)
    return path


def cost(path: pathlib.Path) -> tuple[float, int]:
    """(seconds, bytes) of opening and tokenising a file of `write_corpus`.

    Raises:
      InputError: the process failed; with the last line that it said.
    """
    with tempfile.TemporaryDirectory() as cache:  # nothing is kept from before
        done = subprocess.run(
            [sys.executable, "-m", __name__, path, path.with_name("tokenizer.json")],
            env={**os.environ, "TLJAX_CACHE": cache},
            capture_output=True,
            text=True,
        )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise InputError(f"the process that opens {path.name} failed: {said}")
    found = json.loads(done.stdout)
    return found["seconds"], found["bytes"]


def main(path: str, tokenizer: str) -> None:
    """Opens and tokenises all splits; prints what that took."""
    started = time.perf_counter()
    source = open_source(f"jsonl:{path}?text=text")
    made = Tokenizer.load(tokenizer)
    for split in source.splits:
        open_token_store(source, split, made)
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "bytes": peak_bytes()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
