"""Progress: right figures, quiet where nobody watches, moving where somebody does."""

import io

import pytest

from tljax.train.progress import Progress, describe_seconds


class Clock:
    """Seconds that pass when told."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self):
        return True


def test_a_log_gets_a_line_every_thirty_seconds_and_at_the_end():
    clock, stream = Clock(), io.StringIO()
    with Progress("pretrain", 100, stream=stream, clock=clock) as progress:
        for step in range(1, 101):
            clock.now += 1
            progress.update(step, loss=3.21, tokens=step * 2000)
    assert stream.getvalue().splitlines() == [
        "pretrain: 30/100 · loss 3.210 nats · 2,000 tokens/s · 1 min 10 s left",
        "pretrain: 60/100 · loss 3.210 nats · 2,000 tokens/s · 40 s left",
        "pretrain: 90/100 · loss 3.210 nats · 2,000 tokens/s · 10 s left",
        "pretrain: 100/100 · loss 3.210 nats · 2,000 tokens/s · 0 s left",
    ]


def test_the_rate_counts_neither_compiling_nor_what_was_done_before_a_resume():
    clock, stream = Clock(), io.StringIO()
    progress = Progress("lm", 1000, stream=stream, clock=clock)
    clock.now += 60  # compiling
    progress.update(900, tokens=900_000)
    clock.now += 10
    progress.update(920, loss=2.0, tokens=920_000)
    assert progress.describe(2.0) == "loss 2.000 nats · 2,000 tokens/s · 40 s left"
    assert stream.getvalue() == "lm: 900/1000 · starting\n"


def test_a_terminal_shows_one_moving_line():
    clock, stream = Clock(), Terminal()
    with Progress("finetune", 20, stream=stream, clock=clock) as progress:
        for step in (1, 11, 20):
            clock.now += 1
            progress.update(step, loss=0.693, tokens=step)
    shown = stream.getvalue()
    assert "finetune" in shown and "20/20" in shown and "loss 0.693 nats" in shown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 0 s"), (130, "2 min 10 s"), (4000, "1 h 6 min")],
)
def test_seconds_are_said_as_people_say_them(seconds, text):
    assert describe_seconds(seconds) == text
