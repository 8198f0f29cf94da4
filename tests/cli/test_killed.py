"""kill -9 at any moment, then the same command: the job ends as if never killed."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

import tljax
from tljax.train.record import is_finished, read_metrics

JOB = """
import json, pathlib, sys
from tljax.cli.finetune import Member, finetune
from tljax.cli.pretrain import pretrain
from tljax.settings import FinetuneSettings, PretrainSettings, from_config

first, *others = json.loads(sys.argv[1])
pretrain(from_config(PretrainSettings, first), pathlib.Path("lm"))
members = [
    Member(from_config(FinetuneSettings, one), pathlib.Path(f"run{i}"))
    for i, one in enumerate(others)
]
finetune(members, populations=pathlib.Path("populations"))
"""
RUNS = ("lm", "run0", "run1")
STEPS = 10


@pytest.fixture
def configs(pretrain_config, finetune_config, tmp_path):
    """A language model, and two labelled subsets that are learnt on top of it.

    These average their parameters and may end early: both go on where they were.
    """
    text, labelled = tmp_path / "text", tmp_path / "labelled.csv"
    text.mkdir()
    words = "the film was a very good bad long dull bright story of two old friends"
    draw = random.Random(0)
    for i in range(30):
        sentence = " ".join(draw.choices(words.split(), k=40))
        (text / f"{i}.txt").write_text(sentence)
    rows = [
        f"{' '.join(draw.choices(words.split(), k=6))} {i},{'ny'[i % 2]}\n"
        for i in range(60)
    ]
    labelled.write_text("review,liked\n" + "".join(rows))
    often = {"checkpoint_seconds": 0.0, "rounds": 4, "choose": "best"}
    pretrain_config["corpus"] |= {"source": f"text:{text}"}
    pretrain_config["record"] |= often
    for config in (pretrain_config, finetune_config):
        config["model"]["depth"] = 1
    finetune_config["task"] |= {
        "source": f"csv:{labelled}?text=review&label=liked",
        "length": 64,
    }
    finetune_config["init"] |= {"source": "lm"}
    finetune_config["record"] |= often | {"rounds": 8, "validations": 8, "patience": 2}
    finetune_config["regularize"] = {"ema": 0.5}
    small = finetune_config | {"task": finetune_config["task"] | {"n": 16}, "seed": 6}
    return [pretrain_config | {"steps": STEPS}, finetune_config, small]


@pytest.fixture
def start(configs):
    """start(folder) -> the job in a process of its own, on one device."""
    started = []
    root = str(pathlib.Path(tljax.__file__).parents[1])
    flags = {"PYTHONPATH": root, "XLA_FLAGS": "--xla_backend_optimization_level=0"}

    def start(folder: pathlib.Path) -> subprocess.Popen:
        folder.mkdir(exist_ok=True)
        command = [sys.executable, "-c", JOB, json.dumps(configs)]
        started.append(
            subprocess.Popen(
                command,
                cwd=folder,
                env=os.environ | flags,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield start
    for job in started:
        job.kill()
        job.wait()
        job.stderr.close()


def steps_kept(folder: pathlib.Path) -> int:
    """The newest checkpoint of a run that is going on, 0 if there is none."""
    names = [path.name for path in folder.glob("checkpoints/*")]
    return max((int(name) for name in names if name.isdigit()), default=0)


def members_begun(folder: pathlib.Path) -> int:
    return sum(bool(read_metrics(folder / name)) for name in RUNS[1:])


# (name, whether it has come, most seconds to wait then)
MOMENTS = [
    ("in pre-training", lambda folder: steps_kept(folder / "lm") >= 2, 0.6),
    ("in the first fine-tuning", lambda folder: members_begun(folder) == 1, 0.1),
    ("in the second fine-tuning", lambda folder: members_begun(folder) == 2, 0.1),
]


def result(folder: pathlib.Path) -> dict:
    """Everything that must not depend on when: records without times, predictions."""
    found = {}
    for name in RUNS:
        found[name] = [
            {key: value for key, value in row.items() if not key.startswith("time_")}
            for row in read_metrics(folder / name)
        ]
        assert found[name][-1]["final"] and found[name][-1]["params_sha256"]
        for path in sorted((folder / name).glob("predictions/*")):
            found[f"{name}/{path.name}"] = path.read_text()
    return found


def test_a_killed_job_ends_as_if_it_had_never_been(tmp_path, start):
    whole = start(tmp_path / "whole")  # meanwhile, on the other core:
    seed = random.randrange(2**32)
    print(f"delays drawn from seed {seed}")  # shown if the test fails
    broken, draw = tmp_path / "broken", random.Random(seed)
    for name, has_come, most in MOMENTS:
        job = start(broken)
        while not has_come(broken) and job.poll() is None:
            time.sleep(0.002)
        time.sleep(draw.uniform(0, most))
        job.kill()
        _, said = job.communicate()
        assert job.returncode == -signal.SIGKILL, f"{name}: {said}"
        assert not is_finished(broken / RUNS[-1]), name
    for job in (whole, start(broken)):
        _, said = job.communicate(timeout=300)
        assert job.returncode == 0, said
    expected = result(tmp_path / "whole")
    assert expected["run0"][-1]["stopped"]["reason"] == "patience"
    assert len(expected) == len(RUNS) + 4  # validation and test of two runs
    assert result(broken) == expected
    left = {path.name for path in broken.iterdir()}
    assert left == set(RUNS) and not list(broken.glob("*/checkpoints"))
