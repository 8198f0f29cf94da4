"""The loop: rounds of steps, each ending in a record, a look, perhaps a checkpoint.

    resume, or start  ->  for each round: advance, record, validate, checkpoint  ->  end

A member may end before its last step: where validations no longer get better
(patience; Prechelt 1998), where others are better (pruned), or where its loss is not
finite while others go on.
Sums are read one dispatch late, so that the device never waits for the host. Killed at
any moment, a run goes on from its last checkpoint to the same parameters and records.
"""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tljax.settings import InputError, RecordSettings
from tljax.train.checkpoint import Checkpoints
from tljax.train.interrupts import interrupts
from tljax.train.progress import Progress
from tljax.train.record import RunRecord
from tljax.train.rounds import Look, Pruned, boundaries, tell_again, validation_due


@dataclasses.dataclass
class Work:
    """What the loop drives; every array and list has one entry a member (axis S).

    Attributes:
      state: tree with axis S; `.step` is int32 [S], `.params` the parameters.
      steps: each member's number of steps.
      advance: (state, until) -> (state, sums): trains every member up to step
        until[i]; sums hold "nats", "weight" and counts, added up over the steps.
      validate: (state, members) -> for each of those members a dict for its
        "validation" record, or None where its output is no number; None = never.
      data_state: () -> JSON-able place of the next batch; None where there is none.
      set_data_state: goes to such a place.
      tokens_per_step: for the progress bar.
      started: of the job, by time.monotonic(): how long the first dispatch took to come
        is said; None = not said.
      others: whether there are runs beside one member: where its loss is not finite, it
        ends alone. Without, the command ends.
      pruned: asked right after every validation whose runs are to end since others are
        better (`train.rounds`); on resume it hears all that is on record. None = never.
    """

    state: Any
    steps: list[int]
    advance: Callable
    validate: Callable | None
    data_state: Callable[[], Any]
    set_data_state: Callable[[Any], None]
    tokens_per_step: float
    stride: int | None = None  # steps a dispatch; None = a whole round
    chosen: Callable = lambda state: state.params  # what is validated and kept
    others: bool = False
    started: float | None = None
    pruned: Pruned | None = None


def train(
    work: Work,
    *,
    records: list[RunRecord],
    checkpoints: Checkpoints,
    settings: RecordSettings,
    progress: Progress,
) -> dict[str, Any]:
    """Trains every member to its end, resuming if a checkpoint is there.

    Returns:
      {"params": each member's chosen parameters, "steps": that each took, "stopped":
      for each None, or {"step", "of_steps", "reason"} of one that ended early, reason
      being 'patience', 'pruned' or 'not finite', "seconds": of training, over all
      sittings}. The caller writes them and the last records.

    Raises:
      InputError: a loss is not finite; the last good checkpoint is kept.
    """
    return _Loop(work, records, checkpoints, settings, progress).run()


def _no_validation():
    return {"round": -1, "loss_nats": math.inf, "worse": 0}


class _Loop:
    def __init__(self, work, records, checkpoints, settings, progress):
        self.work, self.records, self.checkpoints = work, records, checkpoints
        self.settings, self.progress = settings, progress
        members = len(work.steps)
        self.ends = [boundaries(n, settings.rounds) for n in work.steps]
        self.rounds = max(map(len, self.ends))
        self.sums = [{} for _ in range(members)]  # since each member's last record
        self.best = [_no_validation() for _ in range(members)]
        self.stopped = [None] * members  # else what `train` returns of it
        self.best_params = None
        if settings.choose == "best":  # a copy: the state's own buffers are donated
            self.best_params = jax.tree.map(jnp.copy, work.chosen(work.state))
        self.seconds = 0.0
        self.pending = None
        self.first_told = work.started is None
        self.interrupted = False

    def run(self):
        start_round = self._resume()
        self.started = self.saved = time.monotonic()
        with interrupts(self._interrupt):
            for index in range(start_round, self.rounds):
                self._round(index)
        chosen = self.work.chosen(self.work.state)
        if self.settings.choose == "best":
            chosen = self.best_params
        self.seconds += time.monotonic() - self.started
        return {
            "params": chosen,
            "steps": [
                stop["step"] if stop else steps
                for stop, steps in zip(self.stopped, self.work.steps, strict=True)
            ],
            "stopped": self.stopped,
            "seconds": self.seconds,
        }

    def _interrupt(self):
        """Ctrl-C: the loop ends after this step, with a checkpoint."""
        self.interrupted = True
        self.progress.say("stopping after this step; Ctrl-C again stops at once")

    def _round(self, index):
        while (self.done < (target := self._until(index))).any():
            if self.work.stride is not None:
                target = np.minimum(target, self.done + self.work.stride)
            state, sums = self.work.advance(self.work.state, target)
            self._collect()
            self.work.state, self.pending = state, sums
            self.done = target
            if not self.first_told:  # at once: else it is told after the second
                self._tell_of_first()
            self.progress.update(
                int(target.sum()), loss=self._loss(), tokens=self._tokens()
            )
            if self._checkpoint_due() or self.interrupted:
                self._save()
            if self.interrupted:
                self.checkpoints.wait()
                raise KeyboardInterrupt
        self._collect()
        alive = [
            i
            for i, ends in enumerate(self.ends)
            if index < len(ends) and not self.stopped[i]
        ]
        for i in alive:
            self._record_training(i)
        validations = self.settings.validations
        due = [
            i for i in alive if validation_due(index, len(self.ends[i]), validations)
        ]
        if self.work.validate and due:
            self._record_validation(due, index)

    def _until(self, index):
        """The step at which each member's round ends; who has stopped stays."""
        ends = [ends[min(index, len(ends) - 1)] for ends in self.ends]
        stays = np.array([stop is not None for stop in self.stopped])
        return np.where(stays, self.done, np.array(ends, np.int32))

    def _stop(self, i, reason):
        of_steps = self.work.steps[i]
        stop = {"step": int(self.done[i]), "of_steps": of_steps, "reason": reason}
        self.stopped[i], self.sums[i] = stop, {}

    def _tell_of_first(self):
        jax.block_until_ready(self.pending)
        self.first_told = True
        waited = time.monotonic() - self.work.started
        self.progress.say(f"first step after {waited:.1f} s")

    def _collect(self):
        """Adds the pending sums to the members'; here the host waits for the device."""
        if self.pending is None:
            return
        sums, self.pending = jax.device_get(self.pending), None
        for i, total in enumerate(self.sums):
            if self.stopped[i]:
                continue
            for name, values in sums.items():
                total[name] = total.get(name, 0.0) + float(values[i])
            # a gradient may be the first to go: its parameters must not be kept
            if not math.isfinite(total["nats"] + total["gradient_norm"]):
                self._lose(i)

    def _lose(self, i):
        """Ends a member that is no number any more; alone, it ends the command."""
        if self.work.others:
            self._stop(i, "not finite")
            return
        self.checkpoints.wait()
        last = self.checkpoints.latest_step()
        kept = "the last checkpoint is kept" if last else "none was kept yet"
        raise InputError(
            f"the loss of {self.records[i].folder.name} or its gradient is not finite"
            f" by step {int(self.done[i])}; {kept}. Lower optim.lr_peak or"
            " lr_muon, or set optim.clip_norm=1.0, in another --workdir"
        )

    def _loss(self):
        nats = sum(total.get("nats", 0.0) for total in self.sums)
        weight = sum(total.get("weight", 0.0) for total in self.sums)
        return nats / weight if weight else None

    def _tokens(self):
        return float(self.done.sum()) * self.work.tokens_per_step

    def _record_training(self, i):
        total, self.sums[i] = self.sums[i], {}
        weight = total.get("weight", 0.0)
        steps = max(total.pop("steps", 0.0), 1.0)
        if not weight:
            return
        row = {
            "step": int(self.done[i]),
            "split": "train",
            "loss_nats": total["nats"] / weight,
            "gradient_norm": total["gradient_norm"] / steps,
            "n": weight,
        }
        if "correct" in total:
            row["accuracy"] = total["correct"] / weight
        self.records[i].append({**row, "time_seconds": self._clock()})

    def _record_validation(self, due, index):
        results, looks = self.work.validate(self.work.state, due), []
        for i, found in zip(due, results, strict=True):
            if found is None:
                self._lose(i)
                continue
            row = {"step": int(self.done[i]), "split": "validation", **found}
            self.records[i].append({**row, "time_seconds": self._clock()})
            share = (index + 1) / len(self.ends[i])
            looks.append(Look(self.records[i].folder, share, row))
            self.best[i]["worse"] += 1
            if row["loss_nats"] < self.best[i]["loss_nats"]:
                loss = float(row["loss_nats"])
                self.best[i] = {"round": index, "loss_nats": loss, "worse": 0}
                if self.best_params is not None:
                    self.best_params = jax.tree.map(
                        lambda best, now, i=i: best.at[i].set(now[i]),
                        self.best_params,
                        self.work.chosen(self.work.state),
                    )
            more = index + 1 < len(self.ends[i])
            if more and 0 < self.settings.patience <= self.best[i]["worse"]:
                self._stop(i, "patience")
        if self.work.pruned:
            self._prune(looks)

    def _prune(self, looks):
        """Ends the members that are named, but for those that have ended anyway."""
        folders = [record.folder for record in self.records]
        ended = {folder for i, folder in enumerate(folders) if self.stopped[i]}
        named = self.work.pruned(looks, ended) - ended
        for i, folder in enumerate(folders):
            if folder in named and self.done[i] < self.work.steps[i]:
                self._stop(i, "pruned")

    def _clock(self):
        return round(self.seconds + time.monotonic() - self.started, 3)

    def _checkpoint_due(self):
        return time.monotonic() - self.saved >= self.settings.checkpoint_seconds

    def _save(self):
        self._collect()
        extra = {
            "done": [int(step) for step in self.done],
            "data": self.work.data_state(),
            "sums": self.sums,
            "best": [
                {**best, "loss_nats": repr(best["loss_nats"])} for best in self.best
            ],
            "stopped": self.stopped,
            "time_seconds": self._clock(),
        }
        for record in self.records:
            record.flush()
        self.checkpoints.save(int(self.done.sum()), self._tree(), extra)
        self.saved = time.monotonic()

    def _tree(self):
        tree = {"state": self.work.state}
        if self.best_params is not None:
            tree["best_params"] = self.best_params
        return tree

    def _resume(self):
        """Restores the newest checkpoint; returns the round to go on with."""
        self.done = np.zeros(len(self.work.steps), np.int32)
        if self.checkpoints.latest_step() is None:
            for record in self.records:
                record.cut_back(0)
            return 0
        restored = self.checkpoints.restore(self._tree())
        self.work.state = restored.tree["state"]
        self.best_params = restored.tree.get("best_params")
        extra = restored.extra
        self.done = np.array(extra["done"], np.int32)
        self.work.set_data_state(extra["data"])
        self.sums, self.seconds = extra["sums"], extra["time_seconds"]
        self.best = [
            {**_no_validation(), **best, "loss_nats": float(best["loss_nats"])}
            for best in extra["best"]
        ]
        self.stopped = extra.get("stopped", self.stopped)
        # a round whose last step is done but not yet recorded is recorded again
        finished = self._finished_rounds()
        for i, record in enumerate(self.records):
            ended = self.ends[i][:finished][-1:]
            record.cut_back(ended[0] if ended else 0)
        if self.work.pruned:
            folders = [record.folder for record in self.records]
            tell_again(self.work.pruned, folders, self.ends, self.stopped)
        return finished

    def _finished_rounds(self):
        """Rounds that were recorded before the checkpoint was written."""
        open_sums = any(total for total in self.sums)
        for index in range(self.rounds):
            ends = self._until(index)
            if (self.done < ends).any() or (open_sums and (self.done == ends).all()):
                return index
        return self.rounds
