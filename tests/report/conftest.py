"""A synthetic experiment folder: the records of runs that never took place."""

import json
import types
from pathlib import Path

import numpy as np
import pytest

# Skill of an arm at n labels: the mean margin of its answers.
SKILL = {
    "scratch": {50: 0.03, 100: 0.08, 500: 0.22},
    "transfer": {50: 0.13, 100: 0.25, 500: 0.38},
    "tfidf": {50: 0.14, 100: 0.21, 500: 0.45},
}
TEXTS = (
    "a film of quiet <b>force</b> & rare wit , whose last hour is worth the wait .",
    "the plot creaks , the jokes are older than the cast , and nobody seems to mind .",
    "neither as funny nor as sharp as it thinks it is , but the two leads are a joy .",
    "an earnest , good-looking bore that mistakes slowness for depth and length for"
    " seriousness , until one no longer cares who did it , or to whom , or why .",
)


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def data_facts(train: str, validation: str, test: str, *, file: str) -> dict:
    return {
        "train": train * 32,
        "validation": validation * 32,
        "test": test * 32,
        "licence": "package MIT; texts: <none> stated",
        "sha256": file * 32,
    }


def manifest(seed: int, *, flops: float, tokens: int, seconds: float) -> dict:
    return {
        "versions": {"python": "3.13.1", "jax": "0.12.0", "tljax": "0.1.0"},
        "data": {"pkg:rotten_tomatoes": data_facts("a1", "b2", "c3", file="d4")},
        "config_sha256": "e5" * 32,
        "code_sha256": "f6" * 32,
        "devices": [{"platform": "cpu", "kind": "cpu"}],
        "dtype": "bfloat16",
        "parameters": 2_600_000,
        "flops": flops,
        "tokens": tokens,
        "time_seconds": seconds,
        "padding_share": 0.031,
        "seed": seed,
    }


def training_metrics(arm: str, n: int, seed: int, rng: np.random.Generator) -> list:
    """A run that over-fits: training loss falls on, validation loss turns."""
    records, steps = [], 40 + seed  # seeds pack differently
    for step in range(0, steps + 1, 4):
        share = step / steps
        train = 0.69 * np.exp(-(2.5 if arm == "transfer" else 1.8) * share)
        train += rng.normal(0, 0.02)
        accuracy = 0.5 + 0.48 * (1 - np.exp(-3 * share))
        records.append(
            {
                "step": step,
                "split": "train",
                "loss_nats": max(float(train), 0.01),
                "accuracy": float(accuracy),
            }
        )
        if step % 8 == 0:
            skill = SKILL[arm][n]
            loss = 0.69 - skill * share * 0.8 + 0.35 * share**2 * (1 - skill)
            records.append(
                {
                    "step": step,
                    "split": "validation",
                    "loss_nats": float(loss + rng.normal(0, 0.015)),
                    "accuracy": float(0.5 + 0.4 * skill * (1 - np.exp(-4 * share))),
                }
            )
    records.append({"final": True, "step": steps, "params_sha256": "1a" * 32})
    return records


def predictions(
    arm: str, n: int, items: int, difficulty_I: np.ndarray, rng: np.random.Generator
) -> list:
    rows = []
    luck = 0.07 * rng.normal()  # of the subset and the start
    margin_I = SKILL[arm][n] + luck + 0.8 * difficulty_I + 0.6 * rng.normal(size=items)
    slope = {"scratch": 3.0, "transfer": 1.8, "tfidf": 0.5}[arm]
    for i in range(items):
        label = ("negative", "positive")[i % 2]
        other = ("positive", "negative")[i % 2]
        p = float(1 / (1 + np.exp(-slope * margin_I[i])))
        row = {
            "id": f"{i:016x}",
            "label": label,
            "prediction": label if p > 0.5 else other,
            "probabilities": {label: p, other: 1 - p},
        }
        if arm != "tfidf":
            row["text"] = TEXTS[i % len(TEXTS)]
        rows.append(row)
    return rows


def write_pretraining(folder: Path, rng: np.random.Generator) -> None:
    records = []
    for step in range(0, 401, 10):
        loss = 8.3 * np.exp(-step / 40) + 3.6 + 0.9 * np.exp(-step / 200)
        noise = float(rng.normal(0, 0.04))
        records.append({"step": step, "split": "train", "loss_nats": loss + noise})
        if step % 100 == 0:
            record = {"step": step, "split": "validation", "loss_nats": loss + 0.1}
            records.append(record)
    final = {"final": True, "step": 400, "params_sha256": "2b" * 32}
    bits = {"value": 1.7, "se": 0.01, "documents": 200, "bytes": 260_000}
    records.append(final | {"bits_per_byte": bits})
    write_lines(folder / "metrics.jsonl", records)
    config = {"kind": "pretrain", "seed": 0, "steps": 400, "optim": {"lr_peak": 0.003}}
    write_json(folder / "config.json", config)
    of_text = manifest(0, flops=4.1e13, tokens=3_276_800, seconds=301.0)
    of_text["data"] = {"pkg:imdb_reviews": data_facts("09", "87", "65", file="d4")}
    write_json(folder / "manifest.json", of_text)


def write_experiment(
    folder: Path,
    *,
    sizes: tuple[int, ...] = (50, 100, 500),
    seeds: int = 8,
    items: int = 48,
) -> Path:
    """Writes a whole work folder as the experiment low_shot would leave it."""
    rng = np.random.default_rng(np.random.PCG64(0))
    difficulty_I = rng.normal(size=items)
    for arm in SKILL:
        for n in sizes:
            for seed in range(seeds):
                run = folder / "runs" / f"{arm}-n{n}-s{seed}"
                rows = predictions(arm, n, items, difficulty_I, rng)
                write_lines(run / "predictions" / "test.jsonl", rows)
                kind = "tfidf" if arm == "tfidf" else "finetune"
                config = {"kind": kind, "seed": seed, "epochs": 20.0}
                source = "lm" if arm == "transfer" else ""
                config |= {"task": {"n": n}, "init": {"source": source}}
                config["optim"] = {"lr_peak": 0.003, "layer_decay": 1.0}
                write_json(run / "config.json", config)
                if arm == "tfidf":
                    continue
                write_lines(run / "metrics.jsonl", training_metrics(arm, n, seed, rng))
                cost = manifest(seed, flops=2e11 * n, tokens=n * 600, seconds=n / 20)
                write_json(run / "manifest.json", cost)
    write_pretraining(folder / "lm", rng)
    claims = [
        {"name": "transfer beats scratch", "arm": "transfer", "against": "scratch"}
        | {"n": n}
        for n in sizes
    ]
    plan = {"sizes": list(sizes), "seeds": seeds, "alpha": 0.05, "claims": claims}
    task = {"source": "csv:<own>.csv?text=review&label=stars"}
    write_json(folder / "config.json", {"plan": plan, "task": task})
    contaminated = [f"{i:016x}" for i in range(2)]
    write_json(
        folder / "contamination.json",
        {
            "ngram": 8,
            "share": 2 / items,
            "test_items": items,
            "contaminated_ids": contaminated,
        },
    )
    phases = {"tokenizer": 9.1, "pretrain": 301.0, "finetune": 131.0, "tfidf": 4.2}
    write_json(folder / "phases.json", phases)
    return folder


@pytest.fixture(scope="session")
def experiment_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared by many tests: read it, or copy it before changing anything."""
    return write_experiment(tmp_path_factory.mktemp("work") / "low_shot")


SPACE = [
    {"key": "optim.lr_peak", "kind": "float", "low": 1e-5, "high": 1e-2, "log": True,
     "choices": [], "only": None},
    {"key": "optim.weight_decay", "kind": "choice", "low": None, "high": None,
     "log": False, "choices": [0, 0.01, 0.1], "only": None},
    {"key": "transfer.method", "kind": "choice", "low": None, "high": None,
     "log": False, "choices": ["full", "lora"], "only": None},
    {"key": "transfer.rank", "kind": "int", "low": 1, "high": 16, "log": False,
     "choices": [], "only": {"key": "transfer.method", "values": ["lora"]}},
]  # fmt: skip


def sweep_rows(trials: int, seeds: int) -> list[dict]:
    """Trials whose score peaks at a rate of 1e-3, LoRA a bit better; 2 has failed."""
    rng, rows = np.random.default_rng(0), []
    for number in range(trials):
        lora = number % 2 == 1
        params = {
            "optim.lr_peak": float(10 ** rng.uniform(-5, -2)),
            "optim.weight_decay": (0, 0.01, 0.1)[number % 3],
            "transfer.method": "lora" if lora else "full",
        }
        if lora:
            params["transfer.rank"] = 1 + number % 16
        away = abs(np.log10(params["optim.lr_peak"]) + 3)
        score = 0.8 + 0.02 * lora - 0.1 * away + 0.01 * rng.normal(size=seeds)
        row = {"number": number, "state": "complete", "params": params}
        row |= {"values": score.tolist(), "value": float(score.mean()), "reason": ""}
        if number == 2:
            row |= {"state": "failed", "values": [], "value": None}
            row["reason"] = "loss was <not> finite"
        rows.append(row | {"group": 0, "seconds": 2.0, "order": trials - number})
    return rows


def write_sweep(folder: Path, rows: list[dict], *, seeds: int = 3, **plan) -> Path:
    """Writes a sweep's work folder around rows of trials.json, runs with curves too."""
    whole = {"config": {"kind": "finetune"}, "space": SPACE, "search": "qmc"}
    whole |= {"prune": "none", "seeds": seeds, "trials": len(rows), "seed": 0}
    whole |= {"metric": "validation/accuracy", "direction": "maximize"}
    write_json(folder / "sweep.json", whole | plan)
    write_json(folder / "trials.json", rows)
    for row in rows:
        for seed, value in enumerate(row["values"]):
            name = f"{row['number']:04d}" + (f"-s{seed}" if seed else "")
            lines = [
                {"step": step, "split": "validation", "loss_nats": 1 / step,
                 "accuracy": value - 1 / step}
                for step in (10, 20, 30)
            ]  # fmt: skip
            write_lines(folder / "trials" / name / "metrics.jsonl", lines)
    return folder


@pytest.fixture
def sweep():
    """The makings of a sweep's work folder: rows(), write(), space."""
    return types.SimpleNamespace(rows=sweep_rows, write=write_sweep, space=SPACE)
