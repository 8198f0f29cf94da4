"""Which test items a reader is shown: those where two arms disagree most steadily.

The rule is fixed before anything is seen: at the middle n, items that arm A answers
right and arm B wrong with the same seed; most such seeds first, then the largest mean
gap of the true label's probability, then the id. No item is chosen by hand.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tljax.report import records


@dataclass(frozen=True)
class Disagreement:
    """One test item; `seeds` of `of` seeds have `right` right and the other wrong."""

    id: str
    text: str
    label: str
    right: str
    seeds: int
    of: int
    probability: dict[str, float]  # arm -> mean probability of the true label


def middle_n(sizes: Sequence[int]) -> int:
    """The middle of the ascending sizes (the lower one of two): needs no result."""
    sizes = sorted(set(sizes))
    return sizes[(len(sizes) - 1) // 2]


def find_disagreements(
    answers: Mapping[records.Run, records.Predictions],
    *,
    n: int,
    arms: tuple[str, str] = ("transfer", "scratch"),
    each: int = 5,
) -> list[Disagreement]:
    """Up to `each` items that arms[0] has right and arms[1] wrong, then the reverse.

    Args:
      answers: aligned test predictions of an experiment's runs; only seeds that both
        arms have at this n are compared.
      n: number of labels.
      arms: the two to compare.
      each: items a direction; fewer where fewer disagree.
    """
    runs = {(r.arm, r.seed): r for r in answers if r.n == n and r.arm in arms}
    seeds = [s for arm, s in sorted(runs) if arm == arms[0] and (arms[1], s) in runs]
    if not seeds:
        return []
    a_run = runs[arms[0], seeds[0]]
    first = answers[a_run]
    items = np.arange(len(first.ids))
    correct, true = {}, {}
    for arm in arms:
        found = [answers[runs[arm, seed]] for seed in seeds]
        correct[arm] = np.stack([one.correct_I for one in found]) > 0
        true[arm] = np.stack([f.probabilities_IC[items, f.labels_I] for f in found])
    chosen = []
    for right, wrong in (arms, arms[::-1]):
        count_I = (correct[right] & ~correct[wrong]).sum(0)
        gap_I = true[right].mean(0) - true[wrong].mean(0)
        ranked = sorted(items, key=lambda i: (-count_I[i], -gap_I[i], first.ids[i]))
        chosen += [
            (int(i), right, int(count_I[i])) for i in ranked[:each] if count_I[i]
        ]
    texts = _texts(a_run)
    return [
        Disagreement(
            id=first.ids[i],
            text=texts.get(first.ids[i], ""),
            label=first.classes[first.labels_I[i]],
            right=right,
            seeds=count,
            of=len(seeds),
            probability={arm: float(true[arm][:, i].mean()) for arm in arms},
        )
        for i, right, count in chosen
    ]


def _texts(run: records.Run) -> dict[str, str]:
    """Texts by id, from the optional key "text" of a run's test predictions."""
    path = run.folder / "predictions" / "test.jsonl"
    # Checked line by line when the predictions were loaded.
    lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    rows = [json.loads(line) for line in lines]
    return {row["id"]: row["text"] for row in rows if "text" in row}
