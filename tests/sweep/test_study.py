"""A study: no trial is lost, none is given to two workers, in every storage."""

import collections
import concurrent.futures
import contextlib
import pathlib
import signal
import subprocess
import sys
import time

import optuna
import pytest

from tljax.settings import InputError
from tljax.sweep.space import parse_space
from tljax.sweep.study import (
    LOST_SECONDS,
    UNSIGNED_SECONDS,
    Study,
    hidden,
    lost_in_one_line,
    mend_journal,
)

SPACE = parse_space(
    ["lr=log(0.001,0.1)", "method=full,lora", "rank=log(1,8) if method=lora"],
    read=lambda key, text: {"method": str, "rank": int}.get(key, float)(text),
)
PLAN = {"direction": "maximize", "search": "qmc"}
POINTS = [
    {"lr": 0.01, "method": "full"},
    {"lr": 0.02, "method": "lora", "rank": 4},
    {"lr": 0.03, "method": "full"},
]
WORKER = """
import pathlib, sys, time
from tljax.sweep.launch import Outcome, work_through
from tljax.sweep.study import Study

storage, name, worker, folder = sys.argv[1:]
study = Study(storage, name, worker, {"direction": "maximize"})

def launch(trials):
    with open(pathlib.Path(folder) / worker, "a") as log:
        for one in trials:
            log.write(f"{one.number}\\n")
            log.flush()
            while not pathlib.Path(folder, "go").exists():
                time.sleep(0.01)
            yield

def outcome(trial):
    return Outcome(values=(trial.point["lr"],))

work_through(study, launch=launch, outcome=outcome)
"""


@pytest.fixture
def opened(storage, request):
    """opened(worker) -> the test's own study, seen by a worker."""
    name = request.node.name
    with contextlib.ExitStack() as stack:
        yield lambda worker="a", plan=PLAN: stack.enter_context(
            Study(storage, name, worker, plan)
        )


def test_what_is_planned_and_found_is_read_back(opened):
    study = opened()
    study.plan_trials(SPACE, POINTS, groups=[0, 1, 0])
    assert [one.number for one in study.claim([0, 2])] == [0, 2]
    study.finish(0, values=[0.5, 0.7], seconds=2.0)
    study.finish(2, reason="memory was out")
    again = opened().trials()
    assert [one.point for one in again] == POINTS
    assert [one.state for one in again] == ["complete", "waiting", "failed"]
    assert (again[0].values, again[0].value) == ((0.5, 0.7), 0.6)
    assert [one.order for one in again] == [0, None, 1]
    assert again[2].reason == "memory was out"
    assert again[1].group == 1


def test_a_trial_is_granted_to_one_worker(opened):
    first, second = opened("a"), opened("b")
    first.plan_trials(SPACE, POINTS, groups=[0, 0, 0])
    second.plan_trials(SPACE, POINTS, groups=[0, 0, 0])
    assert len(second.trials()) == 3
    assert [one.number for one in first.claim([0, 1])] == [0, 1]
    assert second.claim([0, 1, 2]) == []  # the first of them is taken: not torn apart
    assert [one.number for one in second.claim([2])] == [2]


def test_of_workers_that_claim_at_once_each_trial_goes_to_one(opened):
    trials, names = 30, "abc"
    points = [{"lr": 0.001 * (i + 1), "method": "full"} for i in range(trials)]
    workers = [opened(name) for name in names]
    workers[0].plan_trials(SPACE, points, groups=[0] * trials)

    def claim_all(worker):
        granted = []
        for number in range(trials):
            granted += [one.number for one in worker.claim([number])]
        return granted

    with concurrent.futures.ThreadPoolExecutor(len(names)) as pool:
        granted = list(pool.map(claim_all, workers))
    assert sorted(sum(granted, [])) == list(range(trials))


def test_what_others_have_now_is_not_given_back(opened):
    first, second = opened("a"), opened("b")
    first.plan_trials(SPACE, POINTS, groups=[0, 0, 0])
    first.claim([0, 1])
    opened("a").reclaim()
    second.claim([0])
    first.give_back([0, 1])  # it slept, and wakes
    assert [one.state for one in second.trials()] == ["running", "waiting", "waiting"]


def test_a_study_whose_maker_was_killed_before_it_said_its_plan_goes_on(
    storage, request, monkeypatch
):
    name = request.node.name
    with monkeypatch.context() as patched:
        patched.setattr(optuna.storages._CachedStorage, "set_study_user_attr", _killed)
        patched.setattr(optuna.storages.JournalStorage, "set_study_user_attr", _killed)
        with pytest.raises(KeyboardInterrupt):
            Study(storage, name, "a", PLAN)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with Study(storage, name, "a", PLAN), Study(storage, name, "b", PLAN):
        pass
    with pytest.raises(InputError, match="of another sweep"):
        Study(storage, name, "b", {**PLAN, "search": "grid"})


def _killed(*given):
    raise KeyboardInterrupt


def test_a_trial_of_a_learning_search_is_whole_or_none(opened, monkeypatch):
    """Whatever its worker had said of it when it was killed."""
    study, said, say = opened(), [], optuna.Trial.set_user_attr

    def killed(trial, name, value):
        if len(said) == 2:
            raise KeyboardInterrupt
        said.append(name)
        say(trial, name, value)

    with monkeypatch.context() as patched:
        patched.setattr(optuna.Trial, "set_user_attr", killed)
        with pytest.raises(KeyboardInterrupt):
            study.ask(SPACE, seed=0, group=lambda point: 0)
    assert len(said) == 2 and study.trials() == []
    study.reclaim()
    study.ask(SPACE, seed=0, group=lambda point: 0)
    assert len(study.trials()) == 1


def test_what_a_gone_worker_held_waits_again(opened):
    first, second = opened("a"), opened("b")
    first.plan_trials(SPACE, POINTS, groups=[0, 0, 0])
    first.claim([0, 1])
    first.say_alive()
    second.reclaim()
    assert [one.state for one in second.trials()] == ["running", "running", "waiting"]
    opened("a").reclaim()  # it has been started again
    assert {one.state for one in second.trials()} == {"waiting"}


def test_who_claims_what_a_restarted_worker_let_go_keeps_it(opened, monkeypatch):
    """Between its claim and its name on the trial, the last owner looks for its own."""
    first, second = opened("a"), opened("b")
    first.plan_trials(SPACE, POINTS, groups=[0, 0, 0])
    first.claim([0])
    first.reclaim()  # started again
    name = type(second._storage).set_trial_user_attr

    def sign(storage, trial_id, key, value):
        first.reclaim()
        name(storage, trial_id, key, value)

    with monkeypatch.context() as patched:
        patched.setattr(second._storage, "set_trial_user_attr",
                        lambda *given: sign(second._storage, *given))  # fmt: skip
        assert [one.number for one in second.claim([0])] == [0]
    first.reclaim()
    assert second.trials()[0].state == "running"
    assert first.claim([0]) == []


@pytest.fixture
def clock(monkeypatch):
    """clock(SECONDS): so much has passed, while clocks of day stand still."""
    now = time.monotonic()

    def clock(seconds):
        monkeypatch.setattr(time, "monotonic", lambda: now + seconds)

    return clock


def test_what_a_silent_worker_held_waits_again(opened, clock):
    first, second = opened("a"), opened("b")
    first.plan_trials(SPACE, POINTS, groups=[0, 0, 0])
    first.claim([0])
    first.say_alive()
    for seconds in (0, LOST_SECONDS - 1):
        clock(seconds)
        second.reclaim()
        assert second.trials()[0].state == "running"
    first.say_alive()
    for seconds in (LOST_SECONDS + 1, 2 * LOST_SECONDS):
        clock(seconds)
        second.reclaim()
        assert second.claim([0]) == []
    clock(2 * LOST_SECONDS + 2)
    second.reclaim()
    assert [one.number for one in second.claim([0])] == [0]
    second.finish(0, values=[1.0])
    first.finish(0, values=[2.0])  # it was only slow: the first word counts
    assert first.trials()[0].value == 1.0


def test_what_nobody_has_signed_waits_again_and_is_not_lost_the_next_time(
    opened, clock, monkeypatch
):
    first, second = opened("a"), opened("b")
    first.plan_trials(SPACE, POINTS, groups=[0, 0, 0])
    monkeypatch.setattr(
        first._storage, "set_trial_user_attr", lambda *given: None
    )  # killed in between
    for begun in (0, 100):
        first.claim([0])
        clock(begun)
        second.reclaim()
        assert second.trials()[0].state == "running"
        clock(begun + UNSIGNED_SECONDS + 1)
        second.reclaim()
        assert second.trials()[0].state == "waiting"


def test_of_two_who_find_a_worker_lost_the_second_leaves_the_firsts_trial(
    opened, clock, monkeypatch
):
    """Between the second's look and its letting go, the first has claimed the trial."""
    gone, first, second = opened("gone"), opened("a"), opened("b")
    gone.plan_trials(SPACE, POINTS, groups=[0, 0, 0])
    gone.claim([0])
    gone.say_alive()
    clock(0)  # the one that runs would have gone on since the fixture's
    for one in (first, second):
        one.reclaim()
    clock(LOST_SECONDS + 1)
    seen = second._numbered()
    first.reclaim()
    assert [one.number for one in first.claim([0])] == [0]
    monkeypatch.setattr(second, "_numbered", lambda: seen)
    second.reclaim()
    assert first.trials()[0].state == "running"


def test_the_first_worker_that_asks_reads_the_test_split(opened):
    first, second = opened("a"), opened("b")
    assert [second.scorer(), first.scorer(), opened("a").scorer()] == ["b"] * 3
    assert first.trials() == []


def test_of_workers_that_ask_at_once_for_the_test_split_one_reads_it(opened):
    workers = [opened(name) for name in "abcd"]
    with concurrent.futures.ThreadPoolExecutor(len(workers)) as pool:
        told = [pool.submit(one.scorer) for one in workers]
    assert len({one.result() for one in told}) == 1


def test_a_journal_that_was_torn_goes_on(tmp_path):
    journal = tmp_path / "journal.log"
    with Study(str(journal), "s", "a", PLAN) as study:
        study.plan_trials(SPACE, POINTS, groups=[0, 0, 0])
    whole = journal.read_bytes()
    journal.write_bytes(whole + whole[: len(whole) // 3].rpartition(b"\n")[2])
    (tmp_path / "journal.log.lock").symlink_to("nowhere")
    mend_journal(journal)
    assert journal.read_bytes() == whole
    with Study(str(journal), "s", "a", PLAN) as study:
        assert len(study.claim([0, 1, 2])) == 3
    mend_journal(tmp_path / "none.log")


def test_a_storage_that_goes_away_is_one_line():
    said = r"^--storage=postgresql://me:\*\*\*@host/db was lost: gone; call the sweep"
    url = "postgresql://me:secret@host/db"
    with pytest.raises(InputError, match=said), lost_in_one_line(url):
        raise optuna.exceptions.StorageInternalError("gone")


def test_another_sweep_of_that_name_is_refused(opened):
    opened()
    with pytest.raises(InputError, match="of another sweep"):
        opened(plan={**PLAN, "search": "grid"})


def test_a_storage_is_named_without_its_password():
    url = "postgresql://me:s3cret@host:5432/db"
    assert hidden(url) == "postgresql://me:***@host:5432/db"
    url = "postgresql://host/db?user=me&password=s3cret&sslmode=require"
    assert "s3cret" not in hidden(url) and hidden(url).endswith("&sslmode=require")
    assert hidden("sqlite:////a/b@c.db") == "sqlite:////a/b@c.db"


def test_a_learning_search_asks_for_points_of_the_space(opened):
    study = opened()
    for number in range(4):
        one = study.ask(SPACE, seed=0, group=lambda point: len(point))
        assert one.number == number
        assert one.state == "running"
        assert one.group == len(one.point) == (3 if "rank" in one.point else 2)
        study.finish(number, values=[one.point["lr"]])
    assert {one.state for one in study.trials()} == {"complete"}


@pytest.mark.parametrize(
    "url", ["postgresql://nobody:secret@127.0.0.1:1/none", "sqlite:////no/such/a.db"]
)
def test_a_storage_out_of_reach_is_refused_without_its_password(url):
    pytest.importorskip("psycopg")
    with pytest.raises(InputError, match="cannot be reached") as refused:
        Study(url, "study", "a", PLAN)
    assert "secret" not in str(refused.value)


OPENS = """
import pathlib, sys, time
from tljax.sweep.study import Study

storage, worker, folder = sys.argv[1:]
pathlib.Path(folder, worker).touch()
while not pathlib.Path(folder, "go").exists():
    time.sleep(0.001)
Study(storage, "study", worker, {"direction": "maximize"}).close()
"""


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_workers_may_come_at_once_to_an_empty_database(kind, tmp_path, request):
    url = f"sqlite:///{tmp_path}/study.db"
    if kind == "postgres":
        import psycopg

        server = request.getfixturevalue("postgres")
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute("CREATE DATABASE empty")
        url = server.removesuffix("postgres") + "empty"
    names = ["a", "b", "c", "d"]
    workers = [
        subprocess.Popen([sys.executable, "-c", OPENS, url, name, str(tmp_path)])
        for name in names
    ]
    while not all((tmp_path / name).exists() for name in names):
        assert not any(one.poll() for one in workers)
        time.sleep(0.01)
    (tmp_path / "go").touch()
    assert [one.wait(60) for one in workers] == [0, 0, 0, 0]


@pytest.mark.parametrize("storage", ["journal", "postgres"], indirect=True)
def test_four_workers_one_killed_train_every_trial_once(
    opened, storage, tmp_path, request
):
    trials, name = 24, request.node.name
    study = opened("planner", {"direction": "maximize"})
    points = [{"lr": 0.001 * (i + 1), "method": "full"} for i in range(trials)]
    study.plan_trials(SPACE, points, groups=[i // 4 for i in range(trials)])

    def start(worker):
        return subprocess.Popen(
            [sys.executable, "-c", WORKER, storage, name, worker, str(tmp_path)]
        )

    workers = {f"w{i}": start(f"w{i}") for i in range(4)}
    logs = [tmp_path / worker for worker in workers]
    while not all(one.exists() and one.read_text() for one in logs):  # all train
        assert not any(one.poll() for one in workers.values())
        time.sleep(0.01)
    workers["w2"].send_signal(signal.SIGKILL)
    assert workers["w2"].wait() == -signal.SIGKILL
    held = {one.number for one in study.trials() if one.state == "running"}
    (tmp_path / "go").touch()
    workers["w2"] = start("w2")
    assert [one.wait(120) for one in workers.values()] == [0, 0, 0, 0]
    found = study.trials()
    assert [one.number for one in found] == list(range(trials))
    assert {one.state for one in found} == {"complete"}
    assert [one.value for one in found] == [one.point["lr"] for one in found]
    began = collections.Counter(
        int(line)
        for path in pathlib.Path(tmp_path).glob("w*")
        for line in path.read_text().split()
    )
    assert began.keys() == set(range(trials))
    twice = {number for number, times in began.items() if times > 1}
    assert twice and twice <= held
