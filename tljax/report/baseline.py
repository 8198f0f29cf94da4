"""Transfer against the cheap opponent, at every n, by the same statistics as a claim.

Not declared beforehand, so no verdict; but a reader must see when TF-IDF wins.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tljax.report import records, statistics
from tljax.report.summary import RESAMPLES, SEED

ARM, OPPONENT = "transfer", "tfidf"


def compare_baseline(
    answers: Mapping[records.Run, records.Predictions],
) -> list[dict[str, Any]]:
    """Paired differences transfer − TF-IDF in test accuracy, one entry an n.

    Args:
      answers: aligned test predictions of an experiment's runs.

    Returns:
      [{"n", "estimate", "ci95", "p", "p_holm"}], ascending n, Holm over the sizes;
      empty if the experiment has no such two arms with two seeds in common.
    """
    correct: dict[tuple[str, int], dict[int, np.ndarray]] = {}
    for run, found in answers.items():
        correct.setdefault((run.arm, run.n), {})[run.seed] = found.correct_I
    entries, differences = [], []
    for n in sorted({n for _, n in correct}):
        ours, theirs = correct.get((ARM, n), {}), correct.get((OPPONENT, n), {})
        seeds = sorted(set(ours) & set(theirs))
        if len(seeds) < 2:
            continue
        difference_SI = np.stack([ours[seed] - theirs[seed] for seed in seeds])
        interval = statistics.hierarchical_bootstrap(
            difference_SI, resamples=RESAMPLES, seed=SEED
        )
        differences.append(difference_SI.mean(1))
        ci95 = [interval.low, interval.high]
        entries.append({"n": n, "estimate": interval.mean, "ci95": ci95})
    ps = [statistics.sign_flip_test(d_S, seed=SEED) for d_S in differences]
    for entry, p, p_holm in zip(entries, ps, statistics.holm(ps), strict=True):
        entry |= {"p": p, "p_holm": p_holm}
    return entries
