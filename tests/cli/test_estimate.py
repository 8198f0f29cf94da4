"""Estimates: tokens as they will be, FLOPs by hand, and nothing written or loaded."""

import dataclasses
import pathlib

import numpy as np
import pytest

from tljax.cli.crew_data import CrewData
from tljax.cli.members import Member
from tljax.cli.sweep import estimate as sweep_estimate
from tljax.cli.sweep.estimate import SHARE, STEP_SECONDS, estimate
from tljax.settings import (
    FinetuneSettings,
    PretrainSettings,
    TransferSettings,
    from_config,
)
from tljax.train import memory, population

RATE = 1e9


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine of a known rate and much memory."""
    monkeypatch.setattr(sweep_estimate.ceiling, "rate", lambda side, dtype: RATE)
    monkeypatch.setattr(memory, "free_bytes", lambda devices=1: 1e12)


@pytest.fixture
def members(finetune_config, tmp_path):
    """members(count, **settings) -> runs on 200 items that have not begun."""
    random = np.random.default_rng(0)
    rows = [
        f"{' '.join(['word'] * random.integers(1, 9))} {i},{'ny'[i % 2]}"
        for i in range(200)
    ]
    (tmp_path / "items.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    source = f"csv:{tmp_path}/items.csv?text=text&label=label"
    finetune_config["task"] |= {"source": source, "n": 96}
    settings = from_config(FinetuneSettings, finetune_config)

    def members(count, **changes):
        return [
            Member(
                dataclasses.replace(settings, seed=seed, **changes),
                tmp_path / "runs" / f"s{seed}",
            )
            for seed in range(count)
        ]

    return members


def test_tokens_are_nearly_those_of_the_plans(members, tmp_path):
    three = members(3)
    found = estimate(three)
    assert not (tmp_path / "runs").exists()  # nor a tokenizer.json, or another file
    three[0].folder.mkdir(parents=True)  # where the tokenizer is kept
    plans = CrewData(three).plans.values()
    computed = sum(plan.segments_TBL.size for plan in plans)
    assert found.runs == 3 and found.tokens == pytest.approx(computed, rel=0.15)


def test_seconds_are_the_flops_of_the_tokens(members):
    """Twice the epochs: 6 FLOPs more a matrix parameter and token, and the steps."""
    model = members(1)[0].settings.model
    heads_width = model.width // model.heads * (2 * model.heads + 2 * model.kv_heads)
    matrices = {"swiglu": 3}.get(model.mlp, 2)
    layer = model.width * (heads_width + matrices * model.mlp_width)
    short, long = (estimate(members(2, epochs=epochs)) for epochs in (10.0, 20.0))
    tokens = long.tokens - short.tokens
    batch, length = members(1)[0].settings.optim.batch, 32
    steps = [2 * int(np.ceil(96 * e / (0.95 * batch))) for e in (10, 20)]
    rows = short.tokens // (steps[0] * length)
    assert tokens == (steps[1] - steps[0]) * rows * length
    seconds = 6 * model.depth * layer * tokens / (SHARE * RATE)
    seconds += (steps[1] - steps[0]) * STEP_SECONDS
    assert long.seconds - short.seconds == pytest.approx(seconds)


def test_what_does_not_move_costs_less(members):
    full = estimate(members(2))
    head = estimate(members(2, transfer=TransferSettings("head")))
    lora = estimate(members(2, transfer=TransferSettings("lora", rank=2)))
    assert head.seconds < lora.seconds < full.seconds
    assert head.bytes < lora.bytes < full.bytes


def test_memory_is_of_the_members_that_train_at_a_time(members, monkeypatch):
    one = estimate(members(1)).bytes
    assert estimate(members(5)).bytes == one  # in turn
    needed = one - sweep_estimate.PROCESS_BYTES
    side_by_side = estimate(members(5), together=True).bytes
    assert side_by_side == pytest.approx(one + 4 * needed)
    monkeypatch.setattr(
        memory, "free_bytes", lambda devices=1: 2.5 * needed / memory.USED
    )
    fit = estimate(members(5), together=True).bytes
    assert fit == pytest.approx(one + 1.5 * needed)
    monkeypatch.setattr(memory, "free_bytes", lambda devices=1: 1e12)
    monkeypatch.setattr(population, "choose_mode", lambda members: "vmap")
    assert estimate(members(5)).bytes > side_by_side  # and their activations


def test_a_pretraining_run(pretrain_config, tmp_path):
    (tmp_path / "text").mkdir()
    for i in range(20):
        (tmp_path / "text" / f"{i}.txt").write_text(f"story {i} of two friends " * 4)
    pretrain_config["corpus"]["source"] = f"text:{tmp_path / 'text'}"
    settings = from_config(PretrainSettings, pretrain_config)
    longer = dataclasses.replace(settings, steps=100 * settings.steps)
    folder = pathlib.Path(tmp_path / "run")
    short, long = (estimate([Member(one, folder)]) for one in (settings, longer))
    batch, length = settings.optim.batch, settings.corpus.length
    assert short.tokens == settings.steps * batch * length and short.runs == 1
    assert long.tokens == 100 * short.tokens and long.seconds > short.seconds
    assert long.bytes == short.bytes and not folder.exists()
