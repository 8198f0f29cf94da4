"""Stop strings: text is shown until one of them is complete; none is ever shown.

stop "END"   fed    a E | N | x E N | D ...
             shown  a   |   | E N x |        what may still become "END" waits
"""

from collections.abc import Iterable

from tljax.settings import InputError


class StopStrings:
    """Cuts a stream of text at the stop string that is complete first.

    What is shown does not depend on the pieces in which the text was fed. Of two that
    are complete at the same character, the longer cuts.

    Args:
      strings: where the text stops; none = nowhere.

    Raises:
      InputError: an empty stop string, which would stop everything.
    """

    def __init__(self, strings: Iterable[str]):
        self._strings = tuple(strings)
        if "" in self._strings:
            raise InputError("a stop string is ''; it must have a character")
        self._held = ""
        self._stopped = False

    def feed(self, text: str) -> tuple[str, bool]:
        """Returns (what of it, and of what was held back, is shown; whether to stop).

        Nothing that is fed after the stop is shown.
        """
        if self._stopped:
            return "", True
        text = self._held + text
        found = [
            (start + len(one), start)
            for one in self._strings
            if (start := text.find(one)) >= 0
        ]
        if found:
            self._held, self._stopped = "", True
            return text[: min(found)[1]], True
        held = max((_overlap(text, one) for one in self._strings), default=0)
        shown = text[: len(text) - held]
        self._held = text[len(shown) :]
        return shown, False

    def flush(self) -> str:
        """Returns what was held back: the text has ended without a stop string."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Characters at the end of the text that begin the stop string, not all of it."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
