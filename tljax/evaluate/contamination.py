"""Contamination: test items that share a run of words with the pre-training text.

A run of 8 words, lower-cased, punctuation dropped, that stands in both (after GPT-3,
Brown et al. 2020, appendix C, which used 13). Items of fewer words have no such run.
"""

import re
from collections.abc import Iterable, Mapping

NGRAM = 8
_WORD = re.compile(r"[^\W_]+")


def runs_of_words(text: str, ngram: int = NGRAM) -> set[str]:
    """All runs of `ngram` words of a text, joined by spaces."""
    words = _WORD.findall(text.lower())
    return {" ".join(words[i : i + ngram]) for i in range(len(words) - ngram + 1)}


def contaminated(
    items: Mapping[str, str], corpus: Iterable[str], ngram: int = NGRAM
) -> list[str]:
    """Sorted ids of the items (id -> text) that share a run with a corpus document."""
    owners: dict[str, list[str]] = {}
    for name, text in items.items():
        for run in runs_of_words(text, ngram):
            owners.setdefault(run, []).append(name)
    found: set[str] = set()
    for text in corpus:
        for run in owners.keys() & runs_of_words(text, ngram):
            found.update(owners[run])
    return sorted(found)
