"""Progress of long work on stderr: steps, loss, tokens a second, time left.

On a terminal one line that moves; elsewhere (a log, CI) a plain line every 30 seconds.
Says what the loop knows already: it never makes the device wait.
"""

import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TextIO

SECONDS_BETWEEN_LINES = 30.0
WINDOW = 50  # updates over which the rate is taken, so that compiling is soon forgotten


class Progress:
    """Use as a context manager around the work.

    Args:
      title: what is being done, e.g. 'pretrain'.
      steps: how many there are in all.
      stream: where to; standard error unless told.
      clock: seconds; for tests.
    """

    def __init__(
        self,
        title: str,
        steps: int,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.title, self.steps = title, steps
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._seen: deque[tuple[float, int, float]] = deque(maxlen=WINDOW)
        self._spoken = clock()
        self._bar = _bar(self._stream, title, steps) if self._stream.isatty() else None

    def update(
        self, step: int, *, loss: float | None = None, tokens: float = 0
    ) -> None:
        """Says how far it is.

        Args:
          step: steps done in all, those before a resume included.
          loss: the latest training loss, nats; None = not known yet.
          tokens: tokens done in all.
        """
        now = self._clock()
        self._seen.append((now, step, tokens))
        text = self.describe(loss)
        if self._bar is not None:
            self._bar.update(0, completed=step, facts=text)
        elif now - self._spoken >= SECONDS_BETWEEN_LINES or step >= self.steps:
            self._spoken = now
            print(f"{self.title}: {step}/{self.steps} · {text}", file=self._stream)
            self._stream.flush()

    def say(self, text: str) -> None:
        """Says something once, above the bar."""
        line = f"{self.title}: {text}"
        if self._bar is not None:
            self._bar.console.print(line)
        else:
            print(line, file=self._stream, flush=True)

    def describe(self, loss: float | None) -> str:
        """'loss 3.210 nats · 10,200 tokens/s · 2 min 10 s left', or what is known."""
        parts = [] if loss is None else [f"loss {loss:.3f} nats"]
        (first_time, first_step, first_tokens) = self._seen[0]
        (time_, step, tokens) = self._seen[-1]
        seconds = time_ - first_time
        if seconds > 0 and step > first_step:
            if tokens > first_tokens:
                parts.append(f"{(tokens - first_tokens) / seconds:,.0f} tokens/s")
            left = (self.steps - step) * seconds / (step - first_step)
            parts.append(f"{describe_seconds(left)} left")
        return " · ".join(parts) or "starting"

    def __enter__(self) -> "Progress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()


def describe_seconds(seconds: float) -> str:
    """130 -> '2 min 10 s'; 4000 -> '1 h 6 min'."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


class Shifted:
    """A progress bar that other members have already moved.

    Args:
      progress: of all.
      done, tokens: steps and tokens of the others.
    """

    def __init__(self, progress: Progress, done: int, tokens: int):
        self.progress, self.done, self.tokens = progress, done, tokens

    def update(self, step: int, *, loss: float | None, tokens: float) -> None:
        """As of `Progress`, of these members alone."""
        self.progress.update(self.done + step, loss=loss, tokens=self.tokens + tokens)

    def say(self, text: str) -> None:
        """As of `Progress`."""
        self.progress.say(text)


def _bar(stream: TextIO, title: str, steps: int) -> Any:
    """A rich bar with one task, number 0."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as RichProgress

    bar = RichProgress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[facts]}"),
        console=Console(file=stream),
    )
    bar.add_task(title, total=steps, facts="starting")
    return bar
