"""tljax embed: one vector for every text of a file, from a model as it is.

texts -> tokens -> final states -> pooled [I, D] -> .npy
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tljax.cli.command import Flag, check_file, read_only_flags
from tljax.cli.flags import DTYPE, MODEL
from tljax.cli.predict import TEXT, read_texts
from tljax.settings import HeadSettings, InputError, suggestion

DESCRIPTION = """
Writes float32 vectors [texts, width], in the order of the texts.

  tljax embed --model=pkg:minilm-l6 --input=questions.txt --out=vectors.npy
  tljax embed --model=pkg:smollm2-135m --input=reviews.csv --text=review \\
      --pooling=last --out=vectors.npy

Texts are cut to what the model takes: its context, or the length that it was made for
if it says one that is less. A model made for sentence vectors says how it pools and
whether vectors have length 1; else it is the mean for an encoder and the last token for
a decoder, not normalised.
"""
POOLINGS = HeadSettings.__dataclass_fields__["pooling"].metadata["choices"]
LONGEST = 2048  # tokens of a text, where the model has no limit of its own


def run(argv: Sequence[str]) -> None:
    """Reads, embeds, writes."""
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
    given = read_only_flags(argv, flags, program="tljax embed", description=DESCRIPTION)
    if given is None:
        return
    out = Path(given["out"])
    check_file(out, ".npy")
    pooling, normalize = _choices(given)
    texts = read_texts(given["input"], given.get("text"))
    from tljax.cli import parts
    from tljax.cli.models import open_model

    parts.prepare_devices()
    model = open_model(given["model"], dtype=given.get("dtype", "float32"))
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
    limits = (model.sentence.get("length", 0), model.settings.context)
    longest = min((one for one in limits if one > 0), default=LONGEST)
    empty = np.array([tokenizer.end_id], np.int32)
    tokens = tokenizer.encode(texts, special=True, longest=longest)
    return [ids if len(ids) else empty for ids in tokens]


def _choices(given: Mapping[str, str]) -> tuple[str | None, bool | None]:
    pooling = given.get("pooling")
    if pooling is not None and pooling not in POOLINGS:
        raise InputError(
            f"--pooling={pooling} is not known{suggestion(pooling, POOLINGS)};"
            f" allowed: {', '.join(POOLINGS)}"
        )
    normalize = given.get("normalize")
    if normalize not in (None, "true", "false"):
        raise InputError(f"--normalize={normalize} is neither true nor false")
    return pooling, None if normalize is None else normalize == "true"
