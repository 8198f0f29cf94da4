"""What GGUF's two kinds of tokenizer are, for reading and writing alike.

byte-level BPE ('gpt2'):     text | split by regexes | bytes | merges, first ones first
SentencePiece BPE ('llama'): text | ' ' is '▁' | join what makes the best-scored piece
"""

from collections.abc import Sequence
from typing import NamedTuple

TYPES = UNDEFINED, NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(7)
NONE = ("none", "no_vocab")
SPECIAL = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
SPACE = "▁"

DIGIT = r"\p{N}"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CASED = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|NUMBER"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class Pre(NamedTuple):
    """What happens to text before merges.

    Attributes:
      splits: regexes, each of which cuts what the one before left.
      nfc: text is composed first.
      whole_first: a word that is a token is not built by merges.
      add_bos: where the file does not say.
    """

    splits: tuple[str, ...]
    nfc: bool = False
    whole_first: bool = False
    add_bos: bool = False


_QWEN2 = _CASED.replace("NUMBER", r"\p{N}")
_LLAMA3 = Pre(
    (_CASED.replace("NUMBER", r"\p{N}{1,3}"),), whole_first=True, add_bos=True
)
# tokenizer.ggml.pre; where two are equal, the first is the one that is written.
# Source: llama.cpp, llama-vocab.cpp, and the tokenizer.json files that it cites.
PRES = {
    "gpt-2": Pre((GPT2,)),
    "smollm": Pre((DIGIT, GPT2)),
    "qwen2": Pre((_QWEN2,), nfc=True),
    "deepseek-r1-qwen": Pre((_QWEN2,)),
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "default": Pre((r"[\p{P}$+<=>^~|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
}


def merges_of(pieces: Sequence[str]) -> list[tuple[str, str]]:
    """SentencePiece's rule (join what makes the best piece) as BPE's list of merges.

    Args:
      pieces: the best first.

    Returns:
      Every way to cut each piece into two pieces; of one piece's, the longest left
      part first, as Transformers orders them.
    """
    known = set(pieces)
    return [
        (piece[:cut], piece[cut:])
        for piece in pieces
        for cut in range(len(piece) - 1, 0, -1)
        if piece[:cut] in known and piece[cut:] in known
    ]
