"""What a sweep shows while it runs: a table that lives, or lines in a log.

The best trials so far, those that train, how many are left and how long that takes.
"""

import collections
import sys
import time
from collections.abc import Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tljax.report.sweep_best import best_trials
from tljax.sweep.space import Point
from tljax.sweep.study import Trial
from tljax.train.progress import SECONDS_BETWEEN_LINES, describe_seconds

_ROWS = 10
_SECONDS_BETWEEN_LOOKS = 0.5


class SweepTable:
    """Use as a context manager around the work; `show` it what is known."""

    def __init__(self, metric: str, direction: str, trials: int):
        self.metric, self.direction = metric, direction
        self.trials, self.began = trials, time.monotonic()
        self.spoken = self.looked = self.began
        self.ended_before: int | None = None
        self.console = Console(stderr=True)
        self.live = Live(console=self.console, auto_refresh=False)

    def __enter__(self) -> "SweepTable":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    @property
    def due(self) -> bool:
        """Whether it is time for another look."""
        wait = _SECONDS_BETWEEN_LOOKS if self.console.is_terminal else 5.0
        return time.monotonic() - self.looked >= wait

    def say(self, line: str) -> None:
        """A line above the table."""
        self.console.print(line, soft_wrap=True, highlight=False, markup=False)

    def show(self, trials: Sequence[Trial], *, last: bool = False) -> None:
        """How far the sweep is."""
        self.looked = now = time.monotonic()
        if self.ended_before is None:
            self.ended_before = sum(one.ended for one in trials)
        if self.console.is_terminal:
            self.live.update(
                Group(self._table(trials), self._line(trials)), refresh=True
            )
        elif last or now - self.spoken >= SECONDS_BETWEEN_LINES:
            self.spoken = now
            print(f"sweep: {self._line(trials)}", file=sys.stderr, flush=True)

    def _best(self, trials: Sequence[Trial]) -> list[Trial]:
        """Those that are complete, best first, as the report ranks them."""
        by_number = {one.number: one for one in trials}
        ranking = best_trials([one.row() for one in trials], self.direction)
        return [by_number[number] for number in ranking.order]

    def _table(self, trials: Sequence[Trial]) -> Table:
        table = Table(title=f"best of {self.metric}", title_justify="left")
        for name in ("trial", self.metric, "settings"):
            table.add_column(name)
        for one in self._best(trials)[:_ROWS]:
            table.add_row(
                f"{one.number}", f"{one.value:.4f}", Text(point_text(one.point))
            )
        return table

    def _line(self, trials: Sequence[Trial]) -> str:
        counts = collections.Counter(one.state for one in trials)
        ended = sum(one.ended for one in trials)
        said = [f"{ended}/{self.trials} trials"]
        said += [
            f"{counts[state]} {state}"
            for state in ("running", "failed", "pruned")
            if counts[state]
        ]
        if best := self._best(trials):
            said.append(f"best {best[0].value:.4f} (trial {best[0].number})")
        done = ended - (self.ended_before or 0)
        if done and ended < self.trials:
            each = (time.monotonic() - self.began) / done
            said.append(f"{describe_seconds(each * (self.trials - ended))} left")
        return " · ".join(said)


def point_text(point: Point) -> str:
    """'optim.lr_peak=0.001 transfer.method=lora'."""
    return " ".join(
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in point.items()
    )


def counted(number: int, noun: str) -> str:
    """'1 run', '1,200 runs'."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
