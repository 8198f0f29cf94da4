"""Working through a study when populations fail, are split, or are stopped."""

import itertools

import pytest

from tljax.sweep.launch import LaunchError, Outcome, work_through
from tljax.sweep.space import parse_space
from tljax.sweep.study import Study

SPACE = parse_space(["x=uniform(0,10)"], read=lambda _, text: float(text))


class Training:
    """Stands for runs: what was launched together, and what came of it."""

    def __init__(self, study, fails=lambda trials: None):
        self.study, self.fails = study, fails
        self.launched, self.ended, self.said = [], set(), []

    def launch(self, trials):
        self.launched.append([one.number for one in trials])
        for one in trials:
            if error := self.fails(trials):
                raise error
            self.ended.add(one.number)
            yield

    def outcome(self, trial):
        return Outcome((trial.point["x"],)) if trial.number in self.ended else None

    def work(self):
        work_through(
            self.study, launch=self.launch, outcome=self.outcome, say=self.said.append
        )


@pytest.fixture
def study(tmp_path):
    """Six trials, four of them in one population."""
    plan = {"direction": "minimize"}
    made = Study(str(tmp_path / "journal.log"), "study", "a", plan)
    points = [{"x": float(i)} for i in range(6)]
    made.plan_trials(SPACE, points, groups=[0, 1, 0, 0, 1, 0])
    return made


def states(study):
    return [one.state for one in study.trials()]


def test_trials_of_one_group_train_together_and_in_order(study):
    training = Training(study)
    training.work()
    assert training.launched == [[0, 2, 3, 5], [1, 4]]
    assert [one.value for one in study.trials()] == [0, 1, 2, 3, 4, 5]
    assert [one.order for one in study.trials()] == [0, 4, 1, 2, 5, 3]


def test_trials_that_end_while_they_are_looked_at_are_recorded_in_order(study):
    ends, ended = iter([0, 2, 3, 5, 1, 4]), set()

    def launch(trials):
        for _ in trials:
            yield

    def outcome(trial):  # behind every look the next two end
        found = Outcome((1.0,)) if trial.number in ended else None
        ended.update(itertools.islice(ends, 2))
        return found

    work_through(study, launch=launch, outcome=outcome)
    assert [one.order for one in study.trials()] == [0, 4, 1, 2, 5, 3]


def test_a_population_too_large_for_memory_is_split_until_it_fits(study):
    def fails(trials):
        return LaunchError("memory was out") if len(trials) > 1 else None

    training = Training(study, fails)
    training.work()
    assert training.launched == [
        [0, 2, 3, 5], [0, 2], [0], [2], [3, 5], [3], [5], [1, 4], [1], [4],
    ]  # fmt: skip
    assert set(states(study)) == {"complete"}
    assert "4 trials together: memory was out" in training.said[0]


def test_one_that_breaks_its_process_fails_alone(study):
    def fails(trials):
        if any(one.number == 3 for one in trials):
            return LaunchError("its process broke off")
        return None

    Training(study, fails).work()
    assert states(study) == ["complete"] * 3 + ["failed"] + ["complete"] * 2
    assert study.trials()[3].reason == "its process broke off"


def test_what_is_killed_from_outside_is_trained_once_more_then_in_halves(study):
    def fails(trials):
        killed = LaunchError("it was killed", killed=True)
        return killed if trials[0].number == 0 or len(training.launched) == 8 else None

    training = Training(study, fails)
    training.work()
    assert training.launched == [
        [0, 2, 3, 5], [0, 2, 3, 5], [0, 2], [0, 2], [0], [0], [2], [3, 5], [3, 5],
        [1, 4],
    ]  # fmt: skip
    assert states(study) == ["failed"] + ["complete"] * 5
    assert "4 trials together: it was killed; once more" in training.said
    assert "trial 0: it was killed; once more" in training.said


def test_what_had_been_split_when_it_was_stopped_goes_on_so(study):
    training = Training(study)
    work_through(
        study, launch=training.launch, outcome=training.outcome,
        parts=lambda trials: [trials[:1], trials[1:]],
    )  # fmt: skip
    assert training.launched == [[0], [2, 3, 5], [1], [4]]


def test_after_a_stop_the_populations_keep_their_order(study):
    """The first waiting trial is of the second, but the first has not ended."""
    ticks = iter(range(100))

    def fails(trials):
        return KeyboardInterrupt() if next(ticks) == 1 else None

    with pytest.raises(KeyboardInterrupt):
        Training(study, fails).work()
    training = Training(study)
    training.work()
    assert training.launched == [[2, 3, 5], [1, 4]]
    assert [one.order for one in study.trials()] == [0, 4, 1, 2, 5, 3]


def test_stopped_it_goes_on_with_what_is_left_only(study):
    ticks = iter(range(100))

    def fails(trials):
        return KeyboardInterrupt() if next(ticks) == 2 else None

    stopped = Training(study, fails)
    with pytest.raises(KeyboardInterrupt):
        stopped.work()
    assert states(study)[0] == "complete"
    assert states(study).count("waiting") >= 4
    training = Training(study)
    training.work()
    assert 0 not in sum(training.launched, [])
    assert set(states(study)) == {"complete"}
