"""Runs that end because others are better: neither others nor a resume notice."""

import json
import signal

import pytest

from tljax.cli import finetune
from tljax.cli.pretrain import pretrain
from tljax.settings import PretrainSettings, from_config
from tljax.sweep.prune import Asha, Prune
from tljax.train import loop, memory
from tljax.train.record import final_record

SEEDS, METRIC = 2, "validation/loss_nats"  # seeds a trial of `members`


def trials_of(members):
    """What a sweep would hand over: half of the trials go on."""
    folders = [one.folder for one in members]
    trials = {i: folders[i * SEEDS : (i + 1) * SEEDS] for i in range(2)}
    return Prune(Asha("minimize", eta=2), trials, METRIC)


def train(members, prune=True):
    """Trains, or goes on, as a process of its own would; the finals, what was seen."""
    pruned = trials_of(members) if prune else None
    populations = members[0].folder.parent / "populations"
    finetune.finetune(members, populations=populations, prune=pruned)
    assert not populations.exists()
    finals = [final_record(one.folder) for one in members]
    return finals, pruned.asha.state if pruned else None


def stop_at(monkeypatch, dispatch):
    """Ctrl-C comes in that dispatch, counted over all groups."""
    calls, whole = [], loop.train

    def interrupted(work, **given):
        advance = work.advance

        def counted(*args):
            calls.append(1)
            if len(calls) == dispatch:
                signal.raise_signal(signal.SIGINT)
            return advance(*args)

        work.advance = counted
        return whole(work, **given)

    monkeypatch.setattr(loop, "train", interrupted)


def test_others_do_not_notice_that_a_trial_ends(members, tmp_path, monkeypatch):
    """Its folder is whole; stopped with Ctrl-C and resumed, all is the same."""
    (alone,), _ = train(members(tmp_path / "alone")[1:SEEDS], prune=False)
    mine = members(tmp_path / "mine")
    finals, seen = train(mine)
    assert finals[1] == alone and not any("stopped" in one for one in finals[:SEEDS])
    for one, final in zip(mine[SEEDS:], finals[SEEDS:], strict=True):
        assert final["stopped"]["reason"] == "pruned"
        assert final["step"] == final["stopped"]["step"] < final["stopped"]["of_steps"]
        assert final["params_sha256"] and (one.folder / "params").exists()
        assert (one.folder / "predictions" / "validation.jsonl").exists()
        assert (one.folder / "manifest.json").exists()
    assert {rung: len(values) for rung, values in seen.items()} == {"2": 2, "1": 1}
    assert train(mine) == (finals, seen)  # all have ended: what was seen is told again
    # one trial at a time, and stopped in the second: it hears of the first's values
    monkeypatch.setattr(memory, "member_bytes", lambda *_, **__: 100)
    monkeypatch.setattr(memory, "free_bytes", lambda devices=1: 350 / memory.USED)
    broken = members(tmp_path / "broken")
    with monkeypatch.context() as patched:
        stop_at(patched, 5)
        with pytest.raises(KeyboardInterrupt):
            train(broken)
    (division,) = (tmp_path / "broken" / "populations").glob("*.json")
    assert json.loads(division.read_text()) == {"mode": "turn", "together": SEEDS}
    assert train(broken) == (finals, seen)


def test_a_pretraining_run_is_ended_by_what_others_reached(pretrain_config, tmp_path):
    (tmp_path / "text").mkdir()
    for i in range(20):
        (tmp_path / "text" / f"{i}.txt").write_text(f"story {i} of two friends " * 4)
    pretrain_config["corpus"]["source"] = f"text:{tmp_path / 'text'}"
    pretrain_config["model"]["depth"] = 1
    pretrain_config["record"] |= {"rounds": 4, "validations": 4}
    settings = from_config(PretrainSettings, pretrain_config)
    folder = tmp_path / "run"

    def prune():
        asha = Asha("minimize", seen={"2": {"0": 0.1, "1": 0.1}})
        return Prune(asha, {2: [folder]}, "bits_per_byte")

    first, again = prune(), prune()
    pretrain(settings, folder, prune=first)
    stop = {"step": 2, "of_steps": 8, "reason": "pruned"}
    assert final_record(folder)["stopped"] == stop and (folder / "params").exists()
    pretrain(settings, folder, prune=again)  # it has ended
    assert again.asha.state == first.asha.state and len(first.asha.state["2"]) == 3
