"""Does bfloat16 end where float32 ends? Pre-training, then fine-tuning, seed by seed.

    python -m scripts.compare_precision       some minutes; runs/precision/results.json

Rule, set before any run. Let d be the held-out loss of bfloat16 less that of float32,
a seed's first weights, order and labels being the same in both, and SD the standard
deviation of float32's losses over seeds. PASS: |mean of d| < SD, by TOST, p < .05.
FAIL: the 95 % interval of d's mean lies above SD. Else INCONCLUSIVE.

A fine-tuning run starts from the pre-training run of its own seed and precision.
"""

import argparse
import pathlib

import numpy as np
from rich.console import Console
from rich.table import Table

from experiments.ablation.claims import interval
from tljax.cli.main import main as tljax
from tljax.metrics.classification import negative_log_likelihood
from tljax.report.records import load_final, load_predictions
from tljax.report.statistics import equivalence_test
from tljax.train.files import write_json

DTYPES = ("float32", "bfloat16")
STAGES = {
    "pre-training": "configs/pretrain.py:tiny",
    "fine-tuning": "configs/finetune.py:tiny",
}
UNITS = {
    "pre-training": "nats a token of held-out text",
    "fine-tuning": "nats an item of the test split",
}
CHANGES = {
    "pre-training": {"steps": 200, "corpus.heldout_documents": 400},
    "fine-tuning": {"epochs": 5.0, "task.n": 500},
}
ALPHA = 0.05
HEAD = ("stage", "seed", *DTYPES, "difference")


def train(stage: str, dtype: str, seed: int, workdir: pathlib.Path) -> float:
    """The held-out loss of one run, trained by the product where it has not ended."""
    folders = {one: workdir / f"{one}-{dtype}-{seed}" for one in STAGES}
    changes = {"seed": seed, "model.dtype": dtype, **CHANGES[stage]}
    if stage == "fine-tuning":
        changes["init.source"] = folders["pre-training"]
    status = tljax(
        [
            "train",
            f"--config={STAGES[stage]}",
            f"--workdir={folders[stage]}",
            *(f"--config.{key}={value}" for key, value in changes.items()),
        ]
    )
    if status:
        raise SystemExit(status)
    return held_out_loss(stage, folders[stage])


def held_out_loss(stage: str, folder: pathlib.Path) -> float:
    """In UNITS, from the run's records."""
    if stage == "pre-training":
        found = load_final(folder)["bits_per_byte"]
        return found["value"] * np.log(2) * found["bytes"] / found["tokens"]
    found = load_predictions(folder, "test")
    return negative_log_likelihood(found.labels_I, found.probabilities_IC).value


def judge(float32_S: np.ndarray, bfloat16_S: np.ndarray) -> dict:
    """The rule above, on losses paired by seed."""
    differences_S = bfloat16_S - float32_S
    deviation = float(float32_S.std(ddof=1))
    low, high = interval(differences_S[:, None])
    p = equivalence_test(differences_S, margin=deviation, seed=0)
    fails = low > deviation
    verdict = "PASS" if p < ALPHA else "FAIL" if fails else "INCONCLUSIVE"
    return {
        "mean_difference": float(differences_S.mean()),
        "interval": [low, high],
        "seeds_deviation": deviation,
        "p": p,
        "verdict": verdict,
    }


def compare(seeds: int, workdir: pathlib.Path) -> dict:
    """Trains what is missing and judges both stages."""
    stages = {}
    for stage in STAGES:
        losses = {dtype: [] for dtype in DTYPES}
        for seed in range(seeds):
            for dtype in DTYPES:
                losses[dtype].append(train(stage, dtype, seed, workdir))
        judged = judge(*(np.array(losses[dtype]) for dtype in DTYPES))
        stages[stage] = {
            "config": STAGES[stage],
            "changes": CHANGES[stage],
            "unit": UNITS[stage],
            "losses": losses,
            **judged,
        }
    return {"seeds": seeds, "rule": __doc__.split("\n\n")[2], "stages": stages}


def _tell(found: dict) -> None:
    table, console = Table(*HEAD), Console()
    for stage, one in found["stages"].items():
        for seed, pair in enumerate(zip(*one["losses"].values(), strict=True)):
            cells = [f"{value:.4f}" for value in (*pair, pair[1] - pair[0])]
            table.add_row(stage, str(seed), *cells)
    console.print(table)
    for stage, one in found["stages"].items():
        low, high = one["interval"]
        console.print(
            f"{stage}: {one['verdict']} (p = {one['p']:.3g}): mean difference"
            f" {one['mean_difference']:+.4f} ({low:+.4f} to {high:+.4f}) {one['unit']},"
            f" seeds' standard deviation {one['seeds_deviation']:.4f}"
        )


def main() -> None:
    """Trains, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=8, help="5 at least, for p < .05")
    parser.add_argument("--workdir", type=pathlib.Path, default="runs/precision")
    given = parser.parse_args()
    found = compare(given.seeds, given.workdir)
    write_json(given.workdir / "results.json", found)
    _tell(found)


if __name__ == "__main__":
    main()
