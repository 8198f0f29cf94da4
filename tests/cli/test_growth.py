"""How cost grows: sizes, memory and what is refused. Nothing here depends on time."""

import dataclasses
import json
import subprocess
import sys

import pytest

from tljax.cli.bench import corpus, growth, run, training
from tljax.cli.bench.resident import peak_bytes
from tljax.cli.bench.training import SIZES, Size
from tljax.settings import InputError

TINY = SIZES["tiny"]


@pytest.mark.parametrize("name", sorted(growth.GRIDS))
def test_every_size_of_every_axis_can_be_built(name):
    base = SIZES[name]
    for axis, grid in growth.GRIDS[name].items():
        sizes = [growth.moved(base, axis, at) for at in grid if axis != "megabytes"]
        for size in sizes:
            assert size.width % size.heads == 0 and size.batch >= 1
        if axis == "length":
            assert {size.tokens for size in sizes} == {base.tokens}
        if axis == "width":
            assert len({size.width / size.heads for size in sizes}) == 1


def test_one_size_moves_at_a_time():
    assert growth.moved(TINY, "depth", 7) == dataclasses.replace(TINY, depth=7)
    assert growth.moved(TINY, "length", 8) == dataclasses.replace(
        TINY, length=8, batch=4
    )


def test_least_bytes_by_hand():
    """One layer of width 2 and inner width 3, 5 words: 4*4 + 3*6 + 10 = 44 parameters;
    7 tokens read 8*2 + 3*3 + 2 = 27 numbers each."""
    size = Size(width=2, depth=1, heads=1, mlp=3, vocab=5, batch=1, length=7)
    assert growth.least_bytes(size) == 16 * 44 + 2 * 7 * 27
    assert growth.least_bytes(size, members=3) == (12 * 3 + 4) * 44 + 2 * 7 * 27


def test_a_step_is_planned_with_its_state_once_and_runs_again():
    """What is donated is not counted twice; every member has a state of its own."""
    state = 12 * (2 * (4 * 32**2 + 3 * 32 * 64 + 2 * 32) + 256 * 32 + 32)
    take = growth.step_cost(TINY)
    seconds, needed = take()
    assert seconds > 0 and take()[1] == needed
    assert state < needed < 2 * state + growth.least_bytes(TINY)
    assert growth.step_cost(TINY, members=2)()[1] > 2 * state


def test_medians_and_growth_of_what_was_taken():
    values = {1: iter([9.0, 1.0, 1.0]), 2: iter([4.0, 4.0, 0.0]), 4: iter([16.0] * 3)}
    points = [
        growth.Point(at, (at, 1.0), lambda at=at: (next(values[at]), 10 * at))
        for at in values
    ]
    found = growth.measure(points, turns=3)
    assert [one["seconds"] for one in found["points"]] == [1.0, 4.0, 16.0]
    assert [one["bytes"] for one in found["points"]] == [10, 20, 40]
    assert found["growth"]["seconds"]["exponent"] == pytest.approx(2.0)
    assert found["growth"]["bytes"]["theory"] == pytest.approx(0.0, abs=1e-9)


def test_made_text_is_the_same_every_time_and_no_document_twice():
    documents = corpus.made_documents(20_000, seed=0)
    assert documents == corpus.made_documents(20_000, seed=0)
    assert 20_000 <= sum(map(len, documents)) < 22_000
    assert len(set(documents)) == len(documents)


def test_a_process_does_not_inherit_the_peak_of_the_one_that_started_it():
    """What getrusage tells begins with the parent's."""
    child = "from tljax.cli.bench.resident import peak_bytes; print(peak_bytes())"
    parent = (
        "import subprocess, sys; whole = bytearray(b'1') * 300_000_000;"
        f" subprocess.run([sys.executable, '-c', {child!r}])"
    )
    done = subprocess.run([sys.executable, "-c", parent], capture_output=True)
    assert 1e6 < int(done.stdout) < 200e6
    assert peak_bytes() > 50e6  # this one has JAX


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["growth", "train"], "measured alone"),
        (["growth", "--peer=DIR"], "without a peer"),
        (["growth", "--sizes=wide"], "around 'small'"),
    ],
)
def test_what_cannot_be_measured_is_refused(argv, told):
    with pytest.raises(InputError, match=told):
        run(argv)


def test_a_small_growth_writes_figures_and_page(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tljax.cli.bench.ceiling.SIDE", {"cpu": 64})
    grid = {"vocab": (8, 16, 32), "megabytes": (0.01, 0.02, 0.03)}
    monkeypatch.setitem(training.SIZES, "tiny", dataclasses.replace(TINY, depth=1))
    monkeypatch.setitem(growth.GRIDS, "tiny", grid)
    out = tmp_path / "found.json"
    run(["growth", "--sizes=tiny", "--turns=1", f"--out={out}"])
    found = json.loads(out.read_text())
    assert [one["name"] for one in found["axes"]] == ["vocab", "megabytes"]
    points = found["axes"][0]["points"]
    assert [one["at"] for one in points] == [8, 16, 32]
    assert points[0]["bytes"] < points[1]["bytes"] < points[2]["bytes"]
    assert out.with_suffix(".html").read_text().count("<svg ") == 4
    assert "words" in capsys.readouterr().out
