"""Working through a study: a population after the other is claimed, trained, recorded.

    claim -> launch (yields while it trains) -> outcome of each trial, as it ends
                 |- killed from outside: the same once more
                 |- that too, out of memory, a crash, refused: two halves
                 '- alone: failed, with the reason

What training is, the caller says (`launch`, `outcome`); nothing here knows of runs.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence

from tljax.sweep.study import Study, Trial

_ALIVE_SECONDS = 15.0
_POLL_SECONDS = 2.0


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a trial: `Study.finish` takes the same."""

    values: tuple[float, ...] = ()
    seconds: float = 0.0
    reason: str = ""
    pruned: bool = False


class LaunchError(Exception):
    """A population ended before its trials did.

    Attributes:
      reason: one line.
      killed: whether something outside ended it, so that the same may fare better.
    """

    def __init__(self, reason: str, *, killed: bool = False):
        super().__init__(reason)
        self.reason, self.killed = reason, killed


Launch = Callable[[Sequence[Trial]], Iterator[None]]


def work_through(
    study: Study,
    *,
    launch: Launch,
    outcome: Callable[[Trial], Outcome | None],
    more: Callable[[], Sequence[Trial]] = tuple,
    parts: Callable[[Sequence[Trial]], list[Sequence[Trial]]] = lambda them: [them],
    tell: Callable[[], None] = lambda: None,
    say: Callable[[str], None] = print,
) -> None:
    """Trains what waits, until nothing waits or runs, here or at other workers.

    Args:
      study: its trials are planned.
      launch: trains trials that share a program; yields now and then; raises
        LaunchError where it ends early.
      outcome: of a trial of this worker's; None while it trains.
      parts: claimed trials of one group -> those that train together, in order: halves,
        where the worker was stopped after a population had been split.
      more: asks for trials of this worker's when none waits (TPE); () = no more.
      tell: called now and then, to show how far it is.
      say: a line for the user.
    """
    worker = _Worker(study, launch, outcome, parts, tell, say)
    while True:
        study.reclaim()
        waiting = [one for one in study.trials() if one.state == "waiting"]
        if waiting:
            first = min(one.group for one in waiting)  # one after another, as unbroken
            claimed = study.claim([one.number for one in waiting if one.group == first])
        else:
            claimed = list(more())
        if claimed:
            worker.run(claimed)
        elif all(one.ended for one in study.trials()):
            return
        else:  # other workers are at it
            worker.tick()
            time.sleep(_POLL_SECONDS)


class _Worker:
    def __init__(self, study, launch, outcome, parts, tell, say):
        self.study, self.launch, self.outcome = study, launch, outcome
        self.parts, self.tell, self.say = parts, tell, say
        self.alive = 0.0

    def run(self, trials: Sequence[Trial]) -> None:
        """Trains claimed trials and records them; those left wait again if stopped."""
        left = {one.number: one for one in trials}
        try:
            self._run(left)
        finally:
            self.study.give_back(list(left))

    def _run(self, left: dict[int, Trial]) -> None:
        queue, again = list(self.parts(list(left.values()))), set()
        while queue:
            trials = queue.pop(0)
            try:
                self.tick()
                for _ in self.launch(trials):
                    self.tick()
                    self._collect(trials, left)
                self._collect(trials, left)
                self._fail(trials, left, "it ended without a last record")
            except LaunchError as error:
                self._collect(trials, left)
                rest = [one for one in trials if one.number in left]
                if not rest:
                    continue
                same, many = tuple(one.number for one in rest), len(rest) > 1
                who = f"{len(rest)} trials together" if many else f"trial {same[0]}"
                if error.killed and same not in again:
                    again.add(same)
                    self.say(f"{who}: {error.reason}; once more")
                    queue.insert(0, rest)
                elif many:
                    half = -(-len(rest) // 2)
                    self.say(f"{who}: {error.reason}; they go on in two halves")
                    queue[:0] = [rest[:half], rest[half:]]
                else:
                    self._fail(trials, left, error.reason)

    def tick(self) -> None:
        """Tells others that we are there, and the user how far it is."""
        if time.monotonic() - self.alive > _ALIVE_SECONDS:
            self.alive = time.monotonic()
            self.study.say_alive()
        self.tell()

    def _collect(self, trials, left) -> None:
        # Looked at from the last: where they end one after another, none that ended
        # between two looks is passed over for a later one.
        open_still = [one for one in trials if one.number in left]
        found = {one.number: self.outcome(one) for one in reversed(open_still)}
        for one in open_still:
            if outcome := found[one.number]:
                self.study.finish(one.number, **dataclasses.asdict(outcome))
                del left[one.number]

    def _fail(self, trials, left, reason) -> None:
        for one in trials:
            if one.number in left:
                self.study.finish(one.number, reason=reason)
                del left[one.number]
