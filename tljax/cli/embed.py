"""tljax embed: one vector for every text of a file, from a model as it is.

texts -> tokens -> final states -> pooled [I, D] -> .npy
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tljax.cli.command import Flag, help_text, no_words, read_flags
from tljax.cli.predict import TEXT, read_texts
from tljax.settings import HeadSettings, InputError, suggestion

DESCRIPTION = """
Writes float32 vectors [texts, width], in the order of the texts.

  tljax embed --model=pkg:minilm-l6 --input=questions.txt --out=vectors.npy
  tljax embed --model=pkg:smollm2-135m --input=reviews.csv --text=review \\
      --pooling=last --out=vectors.npy

Texts longer than the model's context are cut. A model made for sentence vectors says
how it pools and whether vectors have length 1; else it is the mean for an encoder and
the last token for a decoder, not normalised.
"""
POOLINGS = HeadSettings.__dataclass_fields__["pooling"].metadata["choices"]
LONGEST = 2048  # tokens of a text, where the model has no limit of its own


def run(argv: Sequence[str]) -> None:
    """Reads, embeds, writes."""
    from tljax.cli.models import DTYPE, MODEL, open_model

    flags = (
        MODEL,
        Flag(
            "input", "FILE", ".txt (a text a line), .csv, .jsonl or '-'", required=True
        ),
        Flag("out", "FILE.npy", "where to", required=True),
        TEXT,
        Flag("pooling", "KIND", f"one of {', '.join(POOLINGS)}"),
        Flag("normalize", "BOOL", "whether vectors get length 1: true or false"),
        DTYPE,
    )
    program = "tljax embed"
    given = read_flags(argv, flags, program=program)
    if "help" in given.flags:
        usage = f"{program} --model=URI --input=FILE --out=FILE.npy"
        print(help_text(usage, DESCRIPTION, flags))
        return
    no_words(given, program)
    flags = given.flags
    out = Path(flags["out"])
    if out.suffix != ".npy":
        raise InputError(f"--out={out} must end in .npy")
    pooling, normalize = _choices(flags)
    texts = read_texts(flags["input"], flags.get("text"))
    model = open_model(flags["model"], dtype=flags.get("dtype", "float32"))
    said = model.sentence
    default = "last" if model.settings.causal else "mean"
    pooling = pooling or said.get("pooling", default)
    vectors_ID = embed(model, texts, pooling=pooling)
    if normalize if normalize is not None else said.get("normalize", False):
        vectors_ID /= np.linalg.norm(vectors_ID, axis=1, keepdims=True)
    from tljax.train.files import write_bytes

    write_bytes(out, lambda file: np.save(file, vectors_ID))


def embed(model, texts: Sequence[str], *, pooling: str) -> np.ndarray:
    """Vectors [I, D] of texts, float32, pooled from a model's final states."""
    from tljax.evaluate.features import pooled_features
    from tljax.train.progress import Progress

    tokens = tokens_of(model, texts)
    with Progress("embed", len(texts)) as bar:
        found = pooled_features(
            model.settings,
            model.params,
            tokens,
            poolings=[pooling],
            progress=lambda items, tokens: bar.update(items, tokens=tokens),
        )
    return found[:, 0, 0]


def tokens_of(model, texts: Sequence[str]) -> list[np.ndarray]:
    """Tokens of texts as the model wants them, cut to what it can take."""
    tokenizer = model.needs_tokenizer()
    longest = min(
        model.sentence.get("length", LONGEST), model.settings.context or LONGEST
    )
    empty = np.array([tokenizer.end_id], np.int32)
    tokens = tokenizer.encode(texts, special=True, longest=longest)
    return [ids if len(ids) else empty for ids in tokens]


def _choices(flags) -> tuple[str | None, bool | None]:
    pooling = flags.get("pooling")
    if pooling is not None and pooling not in POOLINGS:
        raise InputError(
            f"--pooling={pooling} is not known{suggestion(pooling, POOLINGS)};"
            f" allowed: {', '.join(POOLINGS)}"
        )
    normalize = flags.get("normalize")
    if normalize not in (None, "true", "false"):
        raise InputError(f"--normalize={normalize} is neither true nor false")
    return pooling, None if normalize is None else normalize == "true"
