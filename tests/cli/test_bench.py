"""Benchmarks: turns, ratios, FLOPs, a peer that fails. Nothing here depends on time."""

import json
import resource
import sys
import types

import pytest

from tljax.cli.bench import populations, run, training, turns
from tljax.cli.bench.ceiling import ceilings, of_peak
from tljax.cli.bench.peer import Peer
from tljax.cli.bench.report import table
from tljax.data.formats import open_table
from tljax.data.splits import Example
from tljax.settings import InputError


def work_of(values, theirs=None, **more):
    ours = iter(values)
    other = iter(theirs or [])
    return turns.Work(
        name="made",
        prepare=lambda: lambda: next(ours),
        theirs=(lambda: next(other)) if theirs else None,
        **{"unit": "tokens/s", **more},
    )


def test_turns_alternate_and_the_ratio_is_of_medians():
    order = []
    work = turns.Work(
        name="made",
        unit="tokens/s",
        prepare=lambda: lambda: order.append("ours") or 3.0,
        theirs=lambda: order.append("theirs") or 2.0,
    )
    row = turns.measure(work, turns=2, ceilings={})
    assert order == ["ours", "theirs", "ours", "theirs"]
    assert row.ratio == 1.5 and row.share_of_ceiling is None


@pytest.mark.parametrize(("unit", "ratio"), [("tokens/s", 0.5), ("s", 2.0)])
def test_above_one_is_better_whatever_the_unit(unit, ratio):
    work = work_of([1.0, 9.0, 2.0], [4.0, 4.0, 4.0], unit=unit)
    assert turns.measure(work, turns=3, ceilings={}).ratio == ratio


def test_the_share_is_of_the_ceiling_of_its_own_dtype():
    work = work_of([10.0], flops=5.0, dtype="float32")
    row = turns.measure(work, turns=1, ceilings={"float32": 100.0, "bfloat16": 1.0})
    assert row.share_of_ceiling == 0.5


def test_a_ratio_below_its_target_is_marked_as_missed():
    rows = [
        turns.measure(work_of([1.0], [2.0], target=target), turns=1, ceilings={})
        for target in (0.4, 0.6)
    ]
    cells = list(table(rows).columns[3].cells)
    assert cells == ["0.50", "0.50 (missed)"]


def test_flops_by_shapes_agree_with_the_compilers():
    size = training.Size(64, 2, 2, 128, 512, 4, 32)
    counted = training.xla_flops(size, "float32")
    assert counted == pytest.approx(size.flops, rel=0.25)


def test_ceilings_are_rates_of_both_types():
    assert set(ceilings(64)) == {"bfloat16", "float32"}
    assert all(rate > 0 for rate in ceilings(64).values())


def test_shares_are_of_a_chips_peak_where_it_is_known():
    found = {"bfloat16": 5.0, "float32": 3.0}
    assert of_peak(found, "cpu") == found
    for kind, promised in (("NVIDIA H200", 989e12), ("TPU v5 lite", 197e12)):
        assert of_peak(found, kind) == {"bfloat16": promised, "float32": 3.0}


def fake_peer(folder, script):
    environment, scripts = folder / "venv" / "bin", folder / "scripts"
    environment.mkdir(parents=True)
    scripts.mkdir()
    (environment / "python").symlink_to(sys.executable)
    (scripts / "train_step.py").write_text(script)
    return Peer(folder / "venv", scripts)


def test_the_peer_is_asked_for_a_key_of_its_last_line(tmp_path):
    script = "import sys\nprint('warming')\nprint('{\"rate\": %s}' % sys.argv[1])"
    assert fake_peer(tmp_path, script).run("train_step.py", "rate", 7) == 7


def test_a_peer_does_not_begin_with_our_peak(tmp_path):
    script = (
        "import json, resource\n"
        "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(json.dumps({'kib': peak}))"
    )
    ours = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert fake_peer(tmp_path, script).run("train_step.py", "kib") < ours / 2


def test_a_peer_that_fails_is_told_by_its_last_line(tmp_path):
    peer = fake_peer(tmp_path, "raise SystemExit('no torch here')")
    with pytest.raises(InputError, match=r"train_step.py failed: no torch here"):
        peer.run("train_step.py", "rate")


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["trian"], "did you mean 'train'"),
        (["train", "--turns=0"], "at least 1"),
        (["train", "--sizes=bass"], "did you mean 'base'"),
        (["train", "--out=a.txt"], ".json"),
        (["train", "--sizes=tiny", "--peer=nowhere"], "has no bin/python"),
    ],
)
def test_what_cannot_be_measured_is_refused(argv, told):
    with pytest.raises(InputError, match=told.replace("(", r"\(")):
        run(argv)


@pytest.mark.parametrize(
    ("best", "asked"),
    [
        ("bfloat16", [("bfloat16", 1.15), ("bfloat16", 1.15), ("float32", 1.3)]),
        ("float32", [("float32", 1.3), ("float32", 1.15)]),
    ],
)
def test_both_sides_take_the_precision_that_the_machine_is_best_at(
    best, asked, tmp_path, monkeypatch
):
    monkeypatch.setattr(training, "best_dtype", lambda: best)
    keys = ("tokens_per_s", "peak_rss_mib")
    script = f"import json, sys\nprint(json.dumps(dict.fromkeys({keys}, sys.argv)))"
    peer = fake_peer(tmp_path, script)
    works = training.works(["tiny", "small"], peer)
    assert [(work.dtype, work.target) for work in works] == asked
    for work in (works[0], *training.memory_works("tiny", peer)):
        assert f"--dtype={best}" in work.theirs()


def test_a_small_bench_writes_what_it_found(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tljax.cli.bench.ceiling.SIDE", {"cpu": 64})
    monkeypatch.setattr(training, "best_dtype", lambda: "bfloat16")
    out = tmp_path / "found.json"
    run(["train", "--sizes=tiny", "--turns=1", f"--out={out}"])
    rows = json.loads(out.read_text())["rows"]
    assert [row["name"] for row in rows] == [
        "train tiny, bfloat16",
        "train tiny, float32",
    ]
    assert all(row["ours"]["median"] > 0 and row["ratio"] is None for row in rows)
    assert "train tiny" in capsys.readouterr().out


def test_the_peer_reads_the_rows_that_our_runs_read(tmp_path, monkeypatch):
    made = [Example(str(i), f'say "{i}",\nthen go', "ab"[i % 2]) for i in range(9)]
    source = types.SimpleNamespace(examples=lambda split: made)
    monkeypatch.setattr(populations, "open_source", lambda uri: source)
    monkeypatch.setattr(populations, "PEER_ITEMS", 1)
    populations._sentences(tmp_path / "a.csv")
    theirs = (tmp_path / "a.tsv").read_text().splitlines()
    ours = list(open_table(tmp_path / "a.csv", text="text", label="label"))
    pairs = [(one.label, one.text) for one in ours]
    assert [tuple(line.split("\t")) for line in theirs] == pairs
    assert len(ours) == 5


def test_members_of_a_section_differ_in_their_seeds_alone():
    for section in (*populations.SECTIONS, populations.ARM, populations.SMALL):
        members = populations._members(section, "csv:a.csv?label=y")
        assert [one.pop("seed") for one in members] == list(range(section.members))
        assert all(one == members[0] for one in members)


def test_populations_are_measured_in_a_checkout_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="in a checkout"):
        populations.works(None, small=True)
