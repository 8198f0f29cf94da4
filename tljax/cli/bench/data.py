"""The input pipeline against what a training step eats; its speed and its memory."""

import itertools
import os
import pathlib
import tempfile
import time

from tljax.cli.bench import corpus, training
from tljax.cli.bench.turns import Work
from tljax.data.corpus import training_iterator
from tljax.data.sources import open_source
from tljax.data.token_store import open_token_store
from tljax.data.tokenizer import Tokenizer
from tljax.data.tokenizer_training import train_tokenizer

TEXT = "pkg:rotten_tomatoes"
STEPS = 200  # batches of one measure
MEGABYTES = 32, 128  # of text: the same memory


def works(*, small: bool) -> list[Work]:
    """Rows against a step's tokens a second; megabytes tokenised a second; memory."""
    size = training.SIZES["small" if small else "base"]
    source = open_source(TEXT)
    texts = [one.text for one in source.examples("train")]
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    tokenizer = trained_tokenizer(texts, size.vocab)

    def rows():
        with tempfile.TemporaryDirectory() as folder:
            # what is open stays there to be read
            store = open_token_store(
                source, "train", tokenizer, cache=pathlib.Path(folder)
            )

        def measure() -> float:
            batches = training_iterator(
                store, batch=size.batch, length=size.length, seed=0
            )
            started = time.perf_counter()
            for _ in itertools.islice(batches, STEPS):
                pass
            return STEPS * size.tokens / (time.perf_counter() - started)

        return measure

    def tokenised() -> float:
        started = time.perf_counter()
        tokenizer.encode(texts)
        seconds = time.perf_counter() - started
        return megabytes / seconds / (os.cpu_count() or 1)

    step = training.prepare(size, training.best_dtype())
    return [
        Work("rows, shuffled and packed, against a training step", "tokens/s", rows,
             step, target=20.0),
        Work("text tokenised, a core", "MB/s", lambda: tokenised),
        *(_memory(megabytes) for megabytes in ((1, 2) if small else MEGABYTES)),
    ]  # fmt: skip


def _memory(megabytes: int) -> Work:
    """Largest memory of a process that opens and tokenises a file of that size."""

    def measure() -> float:
        with tempfile.TemporaryDirectory() as folder:
            path = corpus.write_corpus(pathlib.Path(folder), megabytes)
            return corpus.cost(path)[1] / 2**20

    told = f"memory of opening and tokenising {megabytes} MB"
    return Work(told, "MiB", lambda: measure)


def trained_tokenizer(texts: list[str], vocab_size: int) -> Tokenizer:
    """Trained here, then saved and read as a run does."""
    made = train_tokenizer(iter(texts), vocab_size=vocab_size, normalization="none")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "tokenizer.json"
        made.save(path)
        return Tokenizer.load(path)
