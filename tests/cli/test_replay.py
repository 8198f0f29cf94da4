"""tljax replay: what trained together ends the same when it is trained once more."""

import dataclasses
import json
import shutil

import pytest

from tljax.cli import finetune
from tljax.cli.main import main
from tljax.sweep.prune import Asha, Prune
from tljax.train import population
from tljax.train.record import RunRecord, final_record, is_finished


def replay(run, folder):
    return main(["replay", f"--run={run}", f"--workdir={folder}"])


def test_what_trained_side_by_side_is_trained_so_again(
    members, tmp_path, monkeypatch, capsys
):
    """Under vmap, as on accelerators; the replay does not choose anew."""
    mine = members(tmp_path / "mine")[2:]
    with monkeypatch.context() as patched:
        patched.setattr(population, "choose_mode", lambda members: "vmap")
        finetune.finetune(mine, populations=tmp_path / "populations")
    capsys.readouterr()
    assert replay(mine[0].folder, tmp_path / "again") == 0
    said = capsys.readouterr().out
    assert "1-s0 trained with 1 others (vmap, 2 at a time)" in said
    assert "2 of 2 runs end with the same parameters, to the bit" in said
    there = {path.name for path in (tmp_path / "again").iterdir()}
    assert there == {"1-s0", "1-s1", "replay.json"}


def test_who_was_compared_is_compared_with_the_same_again(members, tmp_path, capsys):
    """The first trial is ended by what was seen before, not by its neighbour."""
    mine = members(tmp_path / "mine")
    trials = {k: [one.folder for one in mine[2 * k : 2 * k + 2]] for k in range(2)}
    asha = Asha("minimize", seen={"2": {"7": 0.0, "8": 0.0}, "1": {"7": 0.0}})
    prune = Prune(asha, trials, "validation/loss_nats")
    finetune.finetune(mine, populations=tmp_path / "populations", prune=prune)
    assert final_record(mine[0].folder)["stopped"]["reason"] == "pruned"
    assert replay(mine[3].folder, tmp_path / "again") == 0
    said = capsys.readouterr().out
    assert "4 of 4 runs end with the same parameters" in said
    for one in mine:
        again = final_record(tmp_path / "again" / one.folder.name)
        assert again == final_record(one.folder)


def test_a_difference_is_told_with_what_else_differs(
    labelled_run, copy_of, tmp_path, capsys
):
    run = copy_of(labelled_run)
    assert replay(run, tmp_path / "again") == 0
    *rows, last = (run / "metrics.jsonl").read_text().splitlines()
    other = json.dumps(json.loads(last) | {"params_sha256": "0"})
    (run / "metrics.jsonl").write_text("\n".join([*rows, other]) + "\n")
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["versions"]["jax"] = "0.1"
    (run / "manifest.json").write_text(json.dumps(manifest))
    capsys.readouterr()
    assert replay(run, tmp_path / "other") == 1
    said = capsys.readouterr().out
    assert "0 of 1 runs" in said and f"not the same: {run.name}" in said
    assert 'versions.jax is "0.1" there' in said


def test_a_pretraining_run_is_repeated(language_run, tmp_path):
    assert replay(language_run, tmp_path / "again") == 0


def test_what_cannot_be_repeated_is_refused(labelled_run, copy_of, tmp_path, refused):
    folder = tmp_path / "again"
    said = refused("replay", f"--run={tmp_path}", f"--workdir={folder}")
    assert "is no run folder" in said
    said = refused(
        "replay", f"--run={labelled_run}", f"--workdir={labelled_run.parent}"
    )
    assert "give a folder that is not there yet" in said
    run = copy_of(labelled_run)
    manifest = json.loads((run / "manifest.json").read_text())
    del manifest["population"]
    (run / "manifest.json").write_text(json.dumps(manifest))
    said = refused("replay", f"--run={run}", f"--workdir={folder}")
    assert "does not say what the run trained with" in said
    assert not folder.exists()


def test_runs_that_were_there_are_not_taken_for_a_replay(
    labelled_run, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "again"
    shutil.copytree(labelled_run, folder / labelled_run.name)
    assert replay(labelled_run, folder) == 2
    assert "holds something else (it has reviews)" in capsys.readouterr().err
    assert replay(labelled_run, labelled_run) == 2  # its own folder
    assert not (labelled_run / "replay.json").exists()
    shutil.rmtree(folder)
    assert replay(labelled_run, folder) == 0
    assert replay(labelled_run, folder) == 0  # it has ended: compared once more
    monkeypatch.setattr("tljax.cli.replay.code_sha256", lambda: "of a later version")
    assert replay(labelled_run, folder) == 2
    assert "replay.code_sha256 is" in capsys.readouterr().err


def test_one_that_was_no_number_is_repeated(members, tmp_path):
    (mine, *_) = members(tmp_path / "mine")
    optim = dataclasses.replace(mine.settings.optim, lr_peak=1e38)
    mine = dataclasses.replace(
        mine, settings=dataclasses.replace(mine.settings, optim=optim)
    )
    finetune.finetune([mine], populations=tmp_path / "populations", others=True)
    assert final_record(mine.folder)["stopped"]["reason"] == "not finite"
    assert replay(mine.folder, tmp_path / "again") == 0


def test_a_kill_between_last_records_trains_nobody_again(
    members, tmp_path, monkeypatch
):
    """The second had no last record yet, but half a line of it."""
    mine, finish = members(tmp_path / "mine")[:2], RunRecord.finish
    whole = members(tmp_path / "whole")[:2]
    monkeypatch.setattr(population, "choose_mode", lambda members: "vmap")
    finetune.finetune(whole, populations=tmp_path / "populations")

    def killed(record, *args, **given):
        if record.folder == mine[1].folder:
            with open(record.folder / "metrics.jsonl", "a") as file:
                file.write('{"final": tr')
            raise KeyboardInterrupt
        finish(record, *args, **given)

    with monkeypatch.context() as patched:
        patched.setattr(RunRecord, "finish", killed)
        with pytest.raises(KeyboardInterrupt):
            finetune.finetune(mine, populations=tmp_path / "populations")
    assert [is_finished(one.folder) for one in mine] == [True, False]
    monkeypatch.setattr(finetune, "_train_group", None)
    finetune.finetune(mine, populations=tmp_path / "populations")
    assert not (tmp_path / "populations").exists()
    for one, other in zip(mine, whole, strict=True):
        assert final_record(one.folder) == final_record(other.folder)
