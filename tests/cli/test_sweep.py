"""tljax sweep: trials, populations, killed and gone on with, the winner, refusals."""

import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import time

import pytest

import tljax
from tljax.cli import contradictions
from tljax.cli.config import load_config
from tljax.cli.main import main
from tljax.cli.sweep import group, tune, work
from tljax.cli.sweep.runs import Runs
from tljax.settings import (
    SETTINGS_OF_KIND,
    FinetuneSettings,
    InputError,
    from_config,
)
from tljax.sweep.launch import Outcome
from tljax.sweep.study import Trial
from tljax.train.record import final_record, is_finished

OVERS = ["--over=optim.lr_peak=log(1e-3,1e-1)", "--over=transfer.method=full,head"]
SWEEP = [*OVERS, "--trials=4", "--seeds=2"]
ROOT = pathlib.Path(tljax.__file__).parents[1]


@pytest.fixture
def arguments(finetune_arguments, language_run):
    """Of a sweep of tiny runs that start from a language model, without --workdir."""
    return [*finetune_arguments, f"--config.init.source={language_run}", *SWEEP]


def start(arguments, folder):
    """The command in a process of its own, on one device."""
    flags = {"PYTHONPATH": str(ROOT), "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    program = "import sys; from tljax.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "sweep", *arguments]
    command.append(f"--workdir={folder}")
    with open(folder.with_suffix(".err"), "wb") as err:
        return subprocess.Popen(command, env=os.environ | flags, stderr=err)


def rows(folder):
    """What is kept of every trial, without what a clock says."""
    found = json.loads((folder / "trials.json").read_text())
    return [{k: v for k, v in one.items() if k != "seconds"} for one in found]


def hashes(folder):
    return {
        path.name: final_record(path)["params_sha256"]
        for path in sorted((folder / "trials").iterdir())
    }


def test_killed_and_called_again_it_ends_as_if_never_killed(
    arguments, finetune_arguments, tmp_path, capsys
):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    arguments.remove("--over=transfer.method=full,head")  # one population is enough
    assert start(arguments, whole).wait(120) == 0
    assert {one["state"] for one in rows(whole)} == {"complete"}
    assert sorted(hashes(whole)) == [
        f"{i:04d}{seed}" for i in range(4) for seed in ("", "-s1")
    ]
    process = start(arguments, broken)
    while len(list(broken.glob("trials/*/params"))) < 3:
        assert process.poll() is None, broken.with_suffix(".err").read_text()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    ended = [path for path in broken.glob("trials/*") if is_finished(path)]
    kept = {path: (path / "metrics.jsonl").stat().st_mtime for path in ended}
    assert kept
    assert start(arguments, broken).wait(120) == 0
    assert rows(broken) == rows(whole)
    assert hashes(broken) == hashes(whole)
    for path, then in kept.items():
        assert (path / "metrics.jsonl").stat().st_mtime == then
    # a trial is a run folder: train repeats it bit for bit
    again = ["train", f"--config={whole / 'trials' / '0001-s1'}"]
    assert main([*again, f"--workdir={tmp_path / 'again'}"]) == 0
    repeated = final_record(tmp_path / "again")["params_sha256"]
    assert repeated == hashes(whole)["0001-s1"]
    # the winner sees the test items once
    for _ in range(2):
        assert main(["sweep", f"--workdir={whole}", "--final"]) == 0
    final = json.loads((whole / "final.json").read_text())
    best = max(rows(whole), key=lambda one: (one["value"], -one["number"]))
    assert final["trial"] == best["number"]
    assert final["repeated_exactly"] is True
    assert len(final["test"]["values"]) == 2
    assert not list(whole.glob("trials/*/predictions/test.jsonl"))
    # the folder alone names the sweep; to change it takes the whole command
    assert main(["sweep", f"--workdir={whole}", "--trials=9"]) == 2
    assert "--trials is read with --config" in capsys.readouterr().err
    # more trials are welcome, another space is not
    capsys.readouterr()
    other = [one.replace("log(1e-3,1e-1)", "log(1e-3,1)") for one in arguments]
    assert main(["sweep", *other, f"--workdir={whole}"]) == 2
    said = capsys.readouterr().err
    assert (
        'sweep.over.optim.lr_peak is "log(0.001,0.1)" there, "log(0.001,1.0)" asked'
        in said
    )


def test_one_that_diverges_fails_alone(finetune_arguments, language_run, tmp_path):
    """The others go on, on two devices, which a process has to ask for by itself."""
    folder = tmp_path / "sweep"
    adapted = [f"--config.init.source={language_run}", "--config.transfer.method=lora"]
    overs = ["--over=optim.lr_peak=1e-3,1e-2,1e38", "--search=grid"]
    files = [f"--export={tmp_path / 'trials.parquet'}", "--config.epochs=4"]
    given = [*finetune_arguments, *adapted, "--config.mesh.run=2", *overs, *files]
    assert start(given, folder).wait(120) == 0
    found = rows(folder)
    assert [one["state"] for one in found] == ["complete", "complete", "failed"]
    assert "not finite" in found[2]["reason"]
    assert (tmp_path / "trials.parquet").stat().st_size
    assert "not finite" in (folder / "report.html").read_text()


def test_memory_out_halves_a_population_and_fails_those_that_do_not_fit_alone(
    finetune_arguments, tmp_path
):
    """Processes that may have 4 GiB; a wide model wants 6 to train."""
    folder, gib = tmp_path / "sweep", 2**30
    overs = ["--over=model.width=4096,16", "--over=optim.lr_peak=1e-3,1e-2"]
    sizes = ["--config.model.depth=2", "--config.model.mlp_width=16384"]
    sweep = start([*finetune_arguments, *sizes, *overs, "--search=grid"], folder)
    resource.prlimit(sweep.pid, resource.RLIMIT_AS, (4 * gib, 4 * gib))
    assert sweep.wait(120) == 0
    assert [one["state"] for one in rows(folder)] == ["failed"] * 2 + ["complete"] * 2
    assert {one["reason"] for one in rows(folder)[:2]} == {"memory was out"}
    assert "two halves" in folder.with_suffix(".err").read_text()


def test_a_population_of_which_another_worker_took_trials_is_forgotten(tmp_path):
    runs = Runs(tmp_path, {}, seeds=1, metric="validation/accuracy", overridden=())
    stopped = tmp_path / "groups" / "0000x3.json"
    stopped.parent.mkdir()
    stopped.write_text(json.dumps({"trials": [[0, {}], [1, {}], [2, {}]]}))
    assert runs._started_as([0, 1, 2]) == "0000x3"
    assert runs._started_as([0, 2]) == "0000x2"
    assert not stopped.exists()


def test_a_population_that_had_been_split_goes_on_in_its_parts(tmp_path):
    runs = Runs(tmp_path, {}, seeds=1, metric="validation/accuracy", overridden=())
    trials = [Trial(i, {}, "running", 0) for i in range(4)]
    assert runs.parts(trials) == [trials]
    (tmp_path / "groups").mkdir()
    half = tmp_path / "groups" / "0002x2.json"
    half.write_text(json.dumps({"trials": [[2, {}], [3, {}]]}))
    assert runs.parts(trials) == [trials[2:], trials[:2]]
    assert runs.parts(trials[:3]) == [trials[:3]]  # another worker has taken the last


def test_a_population_goes_on_from_what_earlier_ones_have_reached(
    finetune_arguments, tmp_path
):
    """Asha had seen trials that were right everywhere: of these none goes on."""
    flags = dict(one[2:].split("=", 1) for one in finetune_arguments)
    flags |= {"config.record.rounds": "4", "config.record.validations": "4"}
    path = flags.pop("config")
    overrides = {name.removeprefix("config."): text for name, text in flags.items()}
    config = load_config(path, overrides, kinds=SETTINGS_OF_KIND)
    config["task"]["score_test"] = False
    config["optim"]["lr_peak"] = 0.0  # learns nothing
    folder = tmp_path / "trials" / "0003"
    rung = {str(number): 1.0 for number in range(3)}
    group_file = tmp_path / "group.json"
    prune = {"direction": "maximize", "metric": "validation/accuracy"}
    prune |= {"seen": {"1": rung, "2": rung}, "trials": {"3": [str(folder)]}}
    members = [{"folder": str(folder), "config": config}]
    populations = str(tmp_path / "populations")
    job = {"members": members, "populations": populations, "prune": prune}
    group_file.write_text(json.dumps(job))
    assert group.main([str(group_file)]) == 0
    assert final_record(folder)["stopped"]["reason"] == "pruned"
    # what it has reached, later ones are told from its records
    asked = {"seeds": 1, "metric": "validation/accuracy", "overridden": ()}
    found = Runs(tmp_path, config, **asked, prune=True)._seen(())
    assert found and {number for one in found.values() for number in one} == {"3"}
    assert Runs(tmp_path, config, **asked, prune=True)._seen([3]) == {}


def test_an_arm_for_which_memory_is_out_is_tuned_in_halves(
    finetune_arguments, tmp_path, monkeypatch
):
    flags = dict(one[2:].split("=", 1) for one in finetune_arguments)
    path = flags.pop("config")
    overrides = {name.removeprefix("config."): text for name, text in flags.items()}
    config = load_config(path, overrides, kinds=SETTINGS_OF_KIND)
    trained, train = [], tune.finetune

    def finetune(members, **given):
        trained.append(len(members))
        if len(members) > 1:
            raise MemoryError
        train(members, **given)

    monkeypatch.setattr(tune, "finetune", finetune)
    found = tune.tune(
        from_config(FinetuneSettings, config),
        [{"optim.lr_peak": 0.01}, {"optim.lr_peak": 0.1}],
        seeds=1, folder=tmp_path / "tuning", populations=tmp_path / "populations",
        title="tune",
    )  # fmt: skip
    assert trained == [2, 1, 1]
    assert {one.state for one in found} == {"complete"}


def test_a_dry_run_shows_what_trains_together_and_writes_nothing(
    arguments, tmp_path, capsys
):
    folder = tmp_path / "sweep"
    bad = ["--over=transfer.rank=4,16"]  # read with lora only
    assert main(["sweep", *arguments, *bad, f"--workdir={folder}", "--dry_run"]) == 2
    assert "no point of the space can be trained" in capsys.readouterr().err
    assert main(["sweep", *arguments, f"--workdir={folder}", "--dry_run"]) == 0
    said = capsys.readouterr().out
    assert "4 trials of 2 seeds = 8 runs, in 2 processes" in said
    assert "transfer.method=head" in said
    assert not folder.exists()
    # a learning search shows what it may come to
    learning = ["--search=tpe", "--trials=6", f"--workdir={folder}", "--dry_run"]
    ours = [one for one in arguments if not one.startswith("--trials")]
    assert main(["sweep", *ours, *learning]) == 0
    said = capsys.readouterr().out
    assert "6 trials of 2 seeds = 12 runs, chosen as results come, 4 trials at" in said
    assert said.count("a population transfer.method=") == 2 and "in all about" in said
    assert not folder.exists()
    # refused without --dry_run, it leaves nothing that the mended one would meet
    assert main(["sweep", *arguments, *bad, f"--workdir={folder}"]) == 2
    assert not folder.exists()


def test_more_labels_than_there_are_fail_a_trial_or_refuse_the_sweep(
    arguments, tmp_path, capsys
):
    swept = [*arguments, "--search=grid", f"--workdir={tmp_path / 'sweep'}"]
    swept = [one for one in swept if not one.startswith(("--trials", "--over"))]
    some = "--over=task.n=8,1000000"
    assert main(["sweep", *swept, some, "--dry_run"]) == 0
    said = capsys.readouterr().out
    assert "trial 1 cannot be trained: config.task.n is 1000000, but csv:" in said
    assert "28 labelled training items; allowed: 1 to 28" in said
    swept += ["--over=optim.lr_peak=0.1,0.2", "--config.task.n=1000000"]
    assert main(["sweep", *swept]) == 2
    assert not (tmp_path / "sweep").exists()


def test_a_sweep_leaves_an_accelerators_memory_to_its_runs(
    arguments, tmp_path, monkeypatch
):
    name, made = "XLA_PYTHON_CLIENT_PREALLOCATE", []
    monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(work, "show", lambda plan, runs: made.append(runs))
    flags = ["sweep", *arguments, f"--workdir={tmp_path / 'sweep'}", "--dry_run"]
    assert main(flags) == 0
    assert os.environ[name] == "false" and name not in made[0].environment
    monkeypatch.setenv(name, "true")  # who says something is listened to
    assert main(flags) == 0
    assert os.environ[name] == made[1].environment[name] == "true"


def test_a_learning_search_goes_on_where_no_run_can_have_a_point(
    arguments, tmp_path, monkeypatch
):
    """Of methods head and full, head is made to contradict itself: 5 trials all end."""
    checked = contradictions.check

    def check(settings):
        if settings.transfer.method == "head":
            raise InputError("head is refused here")
        checked(settings)

    def launch(self, trials):
        launched.extend(one.point["transfer.method"] for one in trials)
        yield

    launched = []
    monkeypatch.setattr(contradictions, "check", check)
    monkeypatch.setattr(Runs, "launch", launch)
    monkeypatch.setattr(Runs, "outcome", lambda self, trial: Outcome((0.5, 0.5)))
    folder = tmp_path / "sweep"
    ours = [one for one in arguments if not one.startswith("--trials")]
    assert (
        main(["sweep", *ours, "--search=tpe", "--trials=5", f"--workdir={folder}"]) == 0
    )
    found = rows(folder)
    assert len(found) == 5
    assert {"failed", "complete"} == {one["state"] for one in found}
    for one in found:
        head = one["params"]["transfer.method"] == "head"
        assert one["reason"] == ("head is refused here" if head else "")
    assert set(launched) == {"full"}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--over=optim.lr_pek=1,2"], "did you mean 'lr_peak'"),
        (["--over=optim.lr_peak=log(0,1)"], "no logarithm"),
        (["--over=optim.lr_peak=log(1,0.1)"], "reversed"),
        (["--over=optim.lr_peak=a,b"], "is not a number"),
        (["--over=optim.lr_peak=-1,1"], "lr_peak is -1"),
        (["--over=transfer.method=full,lroa"], "did you mean 'lora'"),
        (["--over=task.others=a,b"], "which no sweep can set"),
        ([], "needs --over"),
        (["--over=seed=1,2", "--seeds=2"], "leave one of them out"),
        ([*OVERS, "--metric=validation/acuracy"], "did you mean 'validation/accuracy'"),
        ([*OVERS, "--metric=test/accuracy"], "test split is for --final"),
        ([*OVERS, "--search=qcm"], "did you mean 'qmc'"),
        ([*OVERS, "--trials=0"], "at least 1"),
        ([*OVERS, "--search=grid"], "is a range"),
        ([*OVERS, "--storage=sqlite:////no/such/place.db"], "cannot be reached"),
        ([*OVERS, "--storage=mysql://here"], "allowed: sqlite://, postgresql://"),
    ],
)
def test_what_is_no_sweep_is_refused_in_one_line(
    flags, said, finetune_arguments, tmp_path, capsys
):
    folder = tmp_path / "sweep"
    assert main(["sweep", *finetune_arguments, *flags, f"--workdir={folder}"]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert not folder.exists()


def test_two_sweeps_on_one_folder_are_refused(arguments, tmp_path, capsys):
    from tljax.data.folders import alone_in

    with alone_in(tmp_path / "sweep"):
        assert main(["sweep", *arguments, f"--workdir={tmp_path / 'sweep'}"]) == 2
    assert "another command works in" in capsys.readouterr().err


def test_the_config_file_may_say_what_is_swept(finetune_arguments, tmp_path, capsys):
    config = tmp_path / "mine.py"
    text = (ROOT / "configs" / "finetune.py").read_text()
    said = '{"over": ["optim.lr_peak=log(1e-4,1e-2)"], "trials": 3, "seeds": 2}'
    config.write_text(f"{text}\n\ndef sweep():\n    return {said}\n")
    ours = [f"--config={config}:tiny", *finetune_arguments[1:]]
    dry = [f"--workdir={tmp_path / 'sweep'}", "--dry_run"]
    assert main(["sweep", *ours, *dry]) == 0
    assert "3 trials of 2 seeds = 6 runs" in capsys.readouterr().out
    few = ["--over=optim.lr_peak=1e-3,1e-2"]
    assert main(["sweep", *finetune_arguments, *few, *dry]) == 0
    assert "2 trials of 1 seed = 2 runs, in a process" in capsys.readouterr().out
    assert main(["sweep", *ours, "--trials=5", *dry]) == 0
    assert "5 trials of 2 seeds" in capsys.readouterr().out
    config.write_text(f"{text}\n\ndef sweep():\n    return {{'ovr': []}}\n")
    assert main(["sweep", *ours, *dry]) == 2
    assert "did you mean 'over'" in capsys.readouterr().err
