"""The loop: interrupted anywhere and resumed, it says and ends as if unbroken."""

import contextlib
import json
import os
import signal
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.settings import InputError, RecordSettings
from tljax.sweep import prune
from tljax.train import checkpoint, loop, record


class State(NamedTuple):
    """Of members that walk: w += sin(place of the batch + step), a step."""

    params: dict
    step: jax.Array


def walk(state, until, place):
    """Step t has the loss t on 2 items, of which one is right, and a gradient of t."""

    def body(carry):
        state, sums = carry
        goes = state.step < until
        t = (state.step + 1) * goes
        w = state.params["w"] + jnp.sin(place + state.step) * goes
        more = {"nats": 2.0 * t, "weight": 2.0 * goes, "correct": 1.0 * goes,
                "gradient_norm": 1.0 * t, "steps": 1.0 * goes}  # fmt: skip
        return State({"w": w}, state.step + goes), jax.tree.map(jnp.add, sums, more)

    zeros = {name: jnp.zeros(len(until)) for name in
             ("nats", "weight", "correct", "gradient_norm", "steps")}  # fmt: skip
    return jax.lax.while_loop(
        lambda carry: (carry[0].step < until).any(), body, (state, zeros)
    )


ADVANCE = jax.jit(walk, donate_argnums=0)


class Silent:
    """A progress bar that nobody sees."""

    def update(self, step, *, loss, tokens):
        self.seen = step, loss, tokens

    def say(self, text):
        self.said = text


class Killed(Exception):
    """Ends a sitting as a kill would."""


class Sitting:
    """One process's share of a run: what `loop.train` is given, and what it met.

    Args:
      steps: of each member.
      fail_at: the number of the call (advance or validate) that is not survived.
      poison: {step: sum that is not finite there}.
      losses: of the validations, member by member; None = of the walk's place.
      pruned: (folder) -> what is asked who is to end.
      started: of the job, where the first step is told of.
    """

    def __init__(self, folder, steps, *, stride=None, fail_at=None, poison=None,
                 losses=None, choose="last", every=0.0, looks=(3, 2), patience=0,
                 others=False, pruned=None, started=None):  # fmt: skip
        self.folder, self.steps, self.stride = folder, steps, stride
        self.fail_at, self.poison, self.losses = fail_at, poison or {}, losses
        self.calls, self.place, self.interrupt_at, self.interrupts = 0, 0, None, 1
        self.others, self.pruned = others, pruned and pruned(folder)
        self.started = started
        self.settings = RecordSettings(
            rounds=looks[0], validations=looks[1], checkpoint_seconds=every,
            checkpoints_kept=1, choose=choose, patience=patience,
        )  # fmt: skip

    def _call(self):
        self.calls += 1
        if self.calls - 1 == self.fail_at:
            raise Killed
        for _ in range(self.interrupts if self.calls - 1 == self.interrupt_at else 0):
            os.kill(os.getpid(), signal.SIGINT)

    def advance(self, state, until):
        self._call()
        self.place += 1
        place = self.place if self.stride else 0
        state, sums = ADVANCE(state, until, jnp.float32(place))
        for step, name in self.poison.items():
            sums[name] = jnp.where(until >= step, jnp.nan, sums[name])
        return state, sums

    def validate(self, state, members):
        self._call()
        if self.losses is not None:
            return [{"loss_nats": next(self.losses[i])} for i in members]
        return [{"loss_nats": np.float64(state.params["w"])[i]} for i in members]

    def run(self):
        """Trains to the end: (bits of the parameters, records without times)."""
        members = len(self.steps)
        work = loop.Work(
            state=State(
                {"w": jnp.arange(members, dtype=jnp.float32)},
                jnp.zeros(members, jnp.int32),
            ),
            steps=self.steps,
            advance=self.advance,
            validate=self.validate,
            data_state=lambda: {"place": self.place},
            set_data_state=lambda state: setattr(self, "place", state["place"]),
            tokens_per_step=10,
            stride=self.stride,
            others=self.others,
            started=self.started,
            pruned=self.pruned,
        )
        records = [record.RunRecord(self.folder / f"m{i}") for i in range(members)]
        self.progress = Silent()
        checkpoints = checkpoint.Checkpoints(self.folder / "checkpoints", kept=1)
        try:
            ended = loop.train(
                work, records=records, checkpoints=checkpoints,
                settings=self.settings, progress=self.progress,
            )  # fmt: skip
        finally:
            checkpoints.close()
            for one in records:
                one.close()
        self.ended = {name: ended[name] for name in ("steps", "stopped")}
        return np.asarray(ended["params"]["w"]).tobytes(), metrics(self.folder, members)


def metrics(folder, members):
    """Every member's records, but for what a clock said."""
    return [
        [
            {k: v for k, v in row.items() if not k.startswith("time_")}
            for row in record.read_metrics(folder / f"m{i}")
        ]
        for i in range(members)
    ]


def by_loss(folder):
    """Of four trials of one run each, two go on from the rung at half of the rounds."""
    trials = {i: [folder / f"m{i}"] for i in range(4)}
    return prune.Prune(prune.Asha("minimize", eta=2), trials, "validation/loss_nats")


JOBS = {
    "one, a step a dispatch": {"steps": [5], "stride": 1, "choose": "best"},
    "several, a round a dispatch": {"steps": [2, 7, 4], "choose": "best"},
    "several, two steps a dispatch": {"steps": [5, 1], "stride": 2, "choose": "best"},
    "one loses patience": {"steps": [9, 4], "looks": (3, 3), "patience": 1},
    "one is not finite": {
        "steps": [3, 6], "stride": 1, "poison": {4: "nats"}, "others": True,
    },
    # validated at 1/2, 3/4, 1: were 1/2 forgotten, 3/4 would count as the same rung
    "two are better than others": {
        "steps": [4, 4, 4, 8], "looks": (4, 3), "pruned": by_loss,
    },
}  # fmt: skip


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_interrupted_at_any_call_and_resumed_is_unbroken(tmp_path, job):
    whole = Sitting(tmp_path / "whole", **job)
    unbroken = whole.run()
    assert whole.calls >= 5
    for call in range(whole.calls):
        folder = tmp_path / str(call)
        with pytest.raises(Killed):
            Sitting(folder, **job, fail_at=call).run()
        resumed = Sitting(folder, **job)
        assert resumed.run() == unbroken, call
        assert resumed.ended == whole.ended
        assert resumed.calls < whole.calls or call <= 1


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_interrupted_at_every_call_is_unbroken(tmp_path, job):
    unbroken = Sitting(tmp_path / "whole", **job).run()
    broken, sittings = None, 0
    while broken is None and sittings < 20:
        sittings += 1
        with contextlib.suppress(Killed):  # each gets a call or two further
            broken = Sitting(tmp_path / "broken", **job, fail_at=2).run()
    assert broken == unbroken and sittings > 2


class Told:
    """A sum that tells when the host reads it, and so waits for the device."""

    def __init__(self, values, tell):
        self.values, self.tell = values, tell

    def __array__(self, dtype=None, copy=None):
        self.tell()
        return np.asarray(self.values, dtype)


def test_a_dispatch_is_read_when_the_next_has_been_sent(tmp_path):
    events = []
    sitting = Sitting(tmp_path, [4], stride=1, looks=(1, 1), every=1e6)
    plain = sitting.advance

    def advance(state, until):
        state, sums = plain(state, until)
        step = int(until[0])
        events.append(f"send {step}")
        told = Told(sums["nats"], lambda: events.append(f"read {step}"))
        return state, sums | {"nats": told}

    sitting.advance = advance
    sitting.run()
    assert events == [
        "send 1", "send 2", "read 1", "send 3", "read 2", "send 4", "read 3", "read 4",
    ]  # fmt: skip


def test_checkpoints_only_now_and_then(tmp_path):
    unbroken = Sitting(tmp_path / "whole", [6], stride=1).run()
    with pytest.raises(Killed):
        Sitting(tmp_path / "never", [6], stride=1, fail_at=5, every=1e6).run()
    assert not list((tmp_path / "never" / "checkpoints").iterdir())
    assert Sitting(tmp_path / "never", [6], stride=1, every=1e6).run() == unbroken


def test_records_by_hand(tmp_path):
    _, (short, long) = Sitting(tmp_path, [2, 6]).run()

    def train(step, mean, items):
        return {"step": step, "split": "train", "loss_nats": mean,
                "gradient_norm": mean, "n": items, "accuracy": 0.5}  # fmt: skip

    assert [row for row in long if row["split"] == "train"] == [
        train(2, 1.5, 4.0), train(4, 3.5, 4.0), train(6, 5.5, 4.0)
    ]  # fmt: skip
    assert [row for row in short if row["split"] == "train"] == [
        train(1, 1.0, 2.0), train(2, 2.0, 2.0)
    ]  # fmt: skip
    looks = [[r["step"] for r in rows if r["split"] == "validation"]
             for rows in (short, long)]  # fmt: skip
    assert looks == [[1, 2], [4, 6]]
    for rows in (short, long):
        assert [row["step"] for row in rows] == sorted(row["step"] for row in rows)


def test_a_line_of_records_knows_the_time(tmp_path):
    Sitting(tmp_path, [3]).run()
    lines = (tmp_path / "m0" / "metrics.jsonl").read_text().splitlines()
    times = [json.loads(line)["time_seconds"] for line in lines]
    assert times == sorted(times) and times[0] >= 0


def test_the_bar_hears_of_all_members_and_of_the_loss_so_far(tmp_path):
    sitting = Sitting(tmp_path, [4], stride=1)
    sitting.run()
    # at step 4 the loss of step 4 is still on the device; 3's was of a round before
    assert sitting.progress.seen[0] == 4 and sitting.progress.seen[2] == 40.0


def test_the_best_parameters_are_those_of_the_lowest_validation(tmp_path):
    places = []
    for name, choose in (("best", "best"), ("last", "last")):
        losses = [iter([1.0, 2.0]), iter([2.0, 1.0])]
        bits, _ = Sitting(tmp_path / name, [3, 3], losses=losses, choose=choose).run()
        places.append(np.frombuffer(bits, np.float32))
    best, last = places
    after_two = np.float32([0, 1]) + np.float32(np.sin(0)) + np.float32(np.sin(1))
    np.testing.assert_allclose(best[0], after_two[0], rtol=1e-6)
    np.testing.assert_array_equal(best[1], last[1])
    np.testing.assert_allclose(last, after_two + np.sin(2), rtol=1e-6)


@pytest.mark.parametrize("name", ["nats", "gradient_norm"])
def test_a_loss_that_is_not_finite_stops_the_run_at_its_step(tmp_path, name):
    job = {"steps": [6], "stride": 1, "poison": {4: name}}
    for _ in range(2):  # resumed, it stops again
        with pytest.raises(
            InputError, match="loss of m0 or its gradient is not finite by step 4"
        ) as e:
            Sitting(tmp_path, **job).run()
        assert "the last checkpoint is kept" in str(e.value)
        assert "\n" not in str(e.value)
        checkpoints = checkpoint.Checkpoints(tmp_path / "checkpoints", kept=1)
        assert checkpoints.steps() == [3]
        checkpoints.close()
    assert [row["step"] for row in metrics(tmp_path, 1)[0]] == [2]


def falling(count):
    return iter(np.linspace(2.0, 1.0, count))


@pytest.mark.parametrize("choose", ["best", "last"])
def test_a_member_ends_where_validations_no_longer_get_better(tmp_path, choose):
    losses = [iter([3.0, 2.0, 2.5, 2.0]), falling(6)]
    job = {"looks": (6, 6), "patience": 2, "choose": choose}
    sitting = Sitting(tmp_path / "both", [12, 12], losses=losses, **job)
    bits, (short, long) = sitting.run()
    # best at the second validation, step 4; neither the third nor the fourth is better
    stop = {"step": 8, "of_steps": 12, "reason": "patience"}
    assert sitting.ended == {"steps": [8, 12], "stopped": [stop, None]}
    assert [row["step"] for row in short if row["split"] == "train"] == [2, 4, 6, 8]
    kept = 4 if choose == "best" else 8
    ended_at = [sum(np.sin(range(kept))), 1 + sum(np.sin(range(12)))]
    np.testing.assert_allclose(np.frombuffer(bits, np.float32), ended_at, rtol=1e-5)
    # beside others as alone; and who goes on is as if nobody had stopped
    losses = [iter([3.0, 2.0, 2.5, 2.0])]
    alone, (rows,) = Sitting(tmp_path / "alone", [12], losses=losses, **job).run()
    assert (alone, rows) == (bits[:4], short)
    losses = [falling(6), falling(6)]
    whole, (_, rows) = Sitting(tmp_path / "whole", [12, 12], losses=losses, **job).run()
    assert (whole[4:], rows) == (bits[4:], long)


def test_patience_at_the_last_validation_stops_nothing(tmp_path):
    losses = [iter([1.0, 2.0, 2.0])]
    sitting = Sitting(tmp_path, [3], losses=losses, looks=(3, 3), patience=2)
    sitting.run()
    assert sitting.ended == {"steps": [3], "stopped": [None]}


def test_members_that_are_named_end_and_the_others_do_not_notice(tmp_path):
    """Walks differ in where they begin, 0 1 2 3: half way the last two end."""
    job = {"looks": (4, 3)}
    sitting = Sitting(tmp_path / "a", [8] * 4, **job, pruned=by_loss)
    bits, rows = sitting.run()
    stop = {"step": 4, "of_steps": 8, "reason": "pruned"}
    expected = {"steps": [8, 8, 4, 4], "stopped": [None, None, stop, stop]}
    assert sitting.ended == expected
    assert [row["step"] for row in rows[3]] == [2, 4, 4]
    ended_at = 3 + sum(np.sin(range(4)))
    np.testing.assert_allclose(np.frombuffer(bits, np.float32)[3], ended_at, rtol=1e-5)
    whole, whole_rows = Sitting(tmp_path / "b", [8] * 4, **job).run()
    assert (whole[:8], whole_rows[:2]) == (bits[:8], rows[:2])
    said = record.early_end({"stopped": stop})
    assert said == "ended after 4 of 8 steps: others were better by then"


def test_a_member_at_its_end_is_not_pruned(tmp_path):
    def everyone(folder):
        return lambda looks, ended: {folder / "m0", folder / "m1"}

    sitting = Sitting(tmp_path, [4, 6], looks=(3, 1), pruned=everyone)
    sitting.run()
    assert sitting.ended == {"steps": [4, 6], "stopped": [None, None]}


@pytest.mark.parametrize("every", [0.0, 1e6])
@pytest.mark.parametrize("stride", [1, None])
def test_among_others_only_the_member_that_is_not_finite_ends(tmp_path, every, stride):
    job = {"stride": stride, "every": every, "others": True}
    sitting = Sitting(tmp_path / "a", [3, 6], poison={4: "gradient_norm"}, **job)
    bits, (well, ill) = sitting.run()
    stop = {"step": 4, "of_steps": 6, "reason": "not finite"}
    assert sitting.ended == {"steps": [3, 4], "stopped": [None, stop]}
    assert [row["step"] for row in ill if row["split"] == "train"] == [2]
    whole = Sitting(tmp_path / "b", [3, 6], **job)
    expected, (rows, _) = whole.run()
    assert (bits[:4], well) == (expected[:4], rows)


def test_a_loss_that_is_not_finite_before_any_checkpoint(tmp_path):
    with pytest.raises(InputError, match="by step 2; none was kept yet"):
        Sitting(tmp_path, [6], stride=1, poison={2: "nats"}, every=1e6).run()


def test_the_first_step_is_told_of_before_the_second(tmp_path):
    sitting = Sitting(tmp_path, [6], stride=1, fail_at=1, started=0.0)
    with pytest.raises(Killed):
        sitting.run()
    assert sitting.progress.said.startswith("first step after")


def test_control_c_ends_the_step_keeps_it_and_goes_on_later(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    unbroken = Sitting(tmp_path / "whole", [6], stride=1, every=1e6).run()
    assert signal.getsignal(signal.SIGINT) is before
    stopped = Sitting(tmp_path / "stopped", [6], stride=1, every=1e6)
    stopped.interrupt_at = 2  # in the third step
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    assert signal.getsignal(signal.SIGINT) is before
    assert [p.name for p in (tmp_path / "stopped" / "checkpoints").iterdir()] == ["3"]
    assert Sitting(tmp_path / "stopped", [6], stride=1, every=1e6).run() == unbroken


@pytest.fixture
def heard():
    """SIGINT as a terminal's programs hear it: what runs behind a shell's & is deaf."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_control_c_twice_ends_at_once(tmp_path, heard):
    stopped = Sitting(tmp_path, [6], stride=1, every=1e6)
    stopped.interrupt_at, stopped.interrupts = 2, 2
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    assert not list((tmp_path / "checkpoints").iterdir())
