"""Tokens -> text, as they come: a character that needs several tokens waits for them.

tokens   "caf" "\\xc3" "\\xa9" " au"         the two bytes of é
pushed   caf    -      é      ' au'

Only the last few tokens are decoded at each step, never the whole text.
"""

from collections.abc import Callable, Sequence

_UNKNOWN = "\N{REPLACEMENT CHARACTER}"  # what bytes that are no character decode to
# Bytes that will never be a character are given up after as many tokens.
_WAITING_TOKENS = 16


class TextStream:
    """New text of each token; all of it together is the text of all tokens.

    Decoders join tokens (spaces, bytes), so that a token is decoded behind those of
    the last text shown. Where a model writes bytes that are no text, a run of U+FFFD
    may be longer or shorter than that of all tokens decoded at once.

    Args:
      decode: ids -> text, U+FFFD for what is not yet a character.
      context: ids before the first token, e.g. the prompt's last; their text is not
        shown. Decoders that drop a text's first space need one.
    """

    def __init__(
        self, decode: Callable[[Sequence[int]], str], context: Sequence[int] = ()
    ):
        self._decode = decode
        self._context = [int(one) for one in context]
        self._waiting: list[int] = []
        self._shown = len(decode(self._context).rstrip(_UNKNOWN))

    def push(self, token: int) -> str:
        """Returns the text that the token completes, '' while a character waits."""
        self._waiting.append(int(token))
        text = self._decode(self._context + self._waiting)
        whole = text.rstrip(_UNKNOWN)
        if len(self._waiting) >= _WAITING_TOKENS:
            whole = text
        new = whole[self._shown :]
        self._shown += len(new)
        if whole == text and (new or len(self._waiting) >= _WAITING_TOKENS):
            self._context, self._waiting = self._waiting, []
            self._shown = len(self._decode(self._context))
        return new

    def flush(self) -> str:
        """Returns the text of what waits: no token will complete it."""
        text = self._decode(self._context + self._waiting)[self._shown :]
        self._shown += len(text)
        return text
