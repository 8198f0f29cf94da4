"""Bits per byte of held-out text: sum of nats / ln 2 / UTF-8 bytes.

Comparable across tokenizers. The bytes are those of the text as the tokenizer
normalises it, which is what the model predicts.
"""

from collections.abc import Callable, Iterable

import jax
import numpy as np

from tljax.model import transformer
from tljax.objective.next_token import token_nats
from tljax.settings import ModelSettings


def make_score(settings: ModelSettings, place: Callable) -> Callable:
    """Returns score(params, batch) -> nats [B, L], compiled once; place(batch) puts
    a numpy batch on the devices."""

    @jax.jit
    def score(params, batch):
        hidden_BLD = transformer.apply(settings, params, batch)
        output_VD = transformer.output_matrix(params)
        return token_nats(hidden_BLD, output_VD, batch["targets_BL"])

    return lambda params, batch: score(params, place(batch))


def bits_per_byte(
    score: Callable, params: dict, windows: Iterable[dict], byte_counts: np.ndarray
) -> dict[str, float]:
    """Scores documents window by window.

    Args:
      score: from make_score.
      params: the model's.
      windows: of corpus.scoring_windows, over the documents of byte_counts.
      byte_counts: bytes of each document, [documents].

    Returns:
      {"value": bits per byte, "se": standard error over documents (of a ratio of
      sums), "documents": number, "bytes": number, "tokens": targets scored}.
    """
    nats = np.zeros(len(byte_counts))
    tokens = 0
    for window in windows:
        documents_BL = window["documents_BL"]
        batch = {k: v for k, v in window.items() if k != "documents_BL"}
        nats_BL = np.asarray(score(params, batch), np.float64)
        scored_BL = window["targets_BL"] >= 0
        np.add.at(nats, documents_BL[scored_BL], nats_BL[scored_BL])
        tokens += int(scored_BL.sum())
    bits = nats / np.log(2)
    total = byte_counts.sum()
    value = bits.sum() / total
    rest = bits - value * byte_counts
    n = len(byte_counts)
    se = np.sqrt((rest**2).sum() * n / max(n - 1, 1)) / total
    return {
        "value": float(value),
        "se": float(se),
        "documents": n,
        "bytes": int(total),
        "tokens": tokens,
    }
