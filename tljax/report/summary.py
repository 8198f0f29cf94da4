"""All the answers of an experiment as one JSON object: records in, summary.json out.

Everything is recomputed from the records, so the same records give the same summary;
a run that the plan asks for and the folder lacks is an error, never a gap in a mean.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tljax.report import label_efficiency, records, statistics
from tljax.report.claims import Claim, Plan, read_plan, verdict
from tljax.settings import InputError
from tljax.train.record import read_metrics

# Fixed, so that the same records always give the same summary.
RESAMPLES = 2_000
SEED = 20_181_106
REFERENCE_LABELS = 100  # where the label multiplier is read (ULMFiT, figure 3)

# correct[arm, n]: [S, I], 1 where the seed's prediction is the item's label.
Correct = Mapping[tuple[str, int], np.ndarray]


def build_summary(experiment: records.Experiment) -> dict[str, Any]:
    """Computes summary.json's object from the records of a finished experiment.

    Accuracies are shares of the test items (0 to 1), differences likewise; ci95 is the
    hierarchical bootstrap's over seeds and test items; p the exact sign-flip test's
    over paired seeds; smallest_detectable is at level alpha / claims (Holm's first
    step) and power 0.8.

    Raises:
      InputError: a record is missing or broken, or the runs are not those of the plan.
    """
    plan = read_plan(experiment.config, str(experiment.folder / "config.json"))
    runs = _planned_runs(experiment, plan)
    predictions = records.load_aligned([r for rs in runs.values() for r in rs], "test")
    ids = next(iter(predictions.values())).ids
    if len(ids) < 2:
        raise InputError(f"{experiment.folder}: one test item; intervals need two")
    correct = {
        key: np.stack([predictions[run].correct_I for run in found])
        for key, found in runs.items()
    }
    arms: dict[str, dict[str, Any]] = {}
    for (arm, n), found in runs.items():
        arms.setdefault(arm, {})[str(n)] = {
            **_arm(correct[arm, n]),
            "values": correct[arm, n].mean(1).tolist(),
            "runs": [
                run.folder.relative_to(experiment.folder).as_posix() for run in found
            ],
        }
    lost = _lost_runs(runs)
    return {
        "arms": arms,
        **({"lost_runs": lost} if lost else {}),
        "claims": _claims(plan, correct),
        "label_multiplier": _label_multiplier(plan, correct),
        "bits_per_byte": _bits_per_byte(experiment),
        "padding_share": _padding_share(experiment, runs),
        "phases_seconds": records.load_json(experiment.folder / "phases.json"),
        "contamination": _contamination(experiment, plan, correct, ids),
        "time_ended": records.ended(experiment.runs),
        "seeds": plan.seeds,
        "alpha": plan.alpha,
        "test_items": len(ids),
    }


def _planned_runs(
    experiment: records.Experiment, plan: Plan
) -> dict[tuple[str, int], tuple[records.Run, ...]]:
    """The runs of every arm and n, smallest n first, by seed: complete and paired."""
    arms = {run.arm for run in experiment.runs}
    arms |= {arm for claim in plan.claims for arm in (claim.arm, claim.against)}
    arms |= {"scratch", "transfer"}  # the label multiplier compares these
    sizes = {run.n for run in experiment.runs} | set(plan.sizes)
    sizes |= {claim.n for claim in plan.claims}
    seeds = sorted({run.seed for run in experiment.runs})
    if len(seeds) != plan.seeds:
        raise InputError(
            f"{experiment.folder / 'runs'} holds {len(seeds)} seeds, the plan in"
            f" config.json {plan.seeds}; start the experiment again to finish it"
        )
    runs = {}
    for arm in sorted(arms):
        for n in sorted(sizes):
            found = experiment.select(arm=arm, n=n)
            missing = sorted(set(seeds) - {run.seed for run in found})
            if missing:
                name = experiment.folder / "runs" / f"{arm}-n{n}-s{missing[0]}"
                raise InputError(
                    f"{name} is missing ({len(missing)} of {plan.seeds} seeds): start"
                    " the experiment again to finish it"
                )
            runs[arm, n] = found
    return runs


def _lost_runs(runs: Mapping[tuple[str, int], tuple[records.Run, ...]]) -> list[str]:
    """Names of runs whose loss was not finite; their predictions know nothing."""
    return [
        run.folder.name
        for found in runs.values()
        for run in found
        if run.trained
        for record in read_metrics(run.folder)[-1:]
        if record.get("stopped", {}).get("reason") == "not finite"
    ]


def _arm(correct_SI: np.ndarray) -> dict[str, Any]:
    found = statistics.hierarchical_bootstrap(
        correct_SI, resamples=RESAMPLES, seed=SEED
    )
    return {"mean": found.mean, "ci95": [found.low, found.high]}


def _difference(claim: Claim, correct: Correct) -> dict[str, Any]:
    """Estimate and interval of one claim's paired difference of accuracies."""
    found = _arm(correct[claim.arm, claim.n] - correct[claim.against, claim.n])
    return {
        "name": claim.name,
        "n": claim.n,
        "estimate": found["mean"],
        "ci95": found["ci95"],
    }


def _claims(plan: Plan, correct: Correct) -> list[dict[str, Any]]:
    differences = [
        correct[c.arm, c.n].mean(1) - correct[c.against, c.n].mean(1)
        for c in plan.claims
    ]
    ps = [statistics.sign_flip_test(d_S, seed=SEED) for d_S in differences]
    entries = []
    for claim, difference_S, p, p_holm in zip(
        plan.claims, differences, ps, statistics.holm(ps), strict=True
    ):
        entry = _difference(claim, correct)
        entry |= {
            "p": p,
            "p_holm": p_holm,
            "verdict": verdict(
                estimate=entry["estimate"],
                ci95=tuple(entry["ci95"]),
                p_holm=p_holm,
                alpha=plan.alpha,
                at_least=claim.at_least,
            ),
            "smallest_detectable": statistics.smallest_detectable(
                difference_S, alpha=plan.alpha / len(plan.claims)
            ),
            "arm": claim.arm,
            "against": claim.against,
            "at_least": claim.at_least,
        }
        entries.append(entry)
    return entries


def _label_multiplier(plan: Plan, correct: Correct) -> dict[str, Any]:
    """At 100 labels or, if the plan has no such arm, the size nearest to it."""
    n = min(plan.sizes, key=lambda size: abs(math.log(size / REFERENCE_LABELS)))
    scratch = {z: c.mean(1) for (arm, z), c in correct.items() if arm == "scratch"}
    found = label_efficiency.label_multiplier(
        scratch, correct["transfer", n].mean(1), n=n, resamples=RESAMPLES, seed=SEED
    )
    return {
        "value": found.value,
        "ci95": list(found.ci95),
        "censored": found.censored,
        "n": n,
        "bound": found.bound,
        "ci95_bounds": list(found.ci95_bounds),
    }


def _bits_per_byte(experiment: records.Experiment) -> dict[str, Any]:
    found = records.load_final(experiment.lm).get("bits_per_byte")
    wanted = {"value", "se", "documents", "bytes"}
    if not isinstance(found, dict) or not wanted <= set(found):
        raise InputError(
            f"{experiment.lm / 'metrics.jsonl'}: the final record's bits_per_byte is"
            f" {found!r}; it must hold {', '.join(sorted(wanted))}"
        )
    return found


def _padding_share(
    experiment: records.Experiment,
    runs: Mapping[tuple[str, int], tuple[records.Run, ...]],
) -> float:
    """Padding among all tokens computed, each run weighted by its tokens."""
    folders = list(experiment.language_runs)
    for found in runs.values():
        folders += [run.folder for run in found if run.trained]
    padded = tokens = 0.0
    for folder in folders:
        manifest = records.load_manifest(folder)
        try:
            padded += manifest["padding_share"] * manifest["tokens"]
            tokens += manifest["tokens"]
        except (KeyError, TypeError) as error:
            raise InputError(
                f"{folder / 'manifest.json'}: padding_share and tokens must be numbers"
                f" ({error!r}); run it again"
            ) from None
    if not tokens:
        raise InputError(f"{experiment.folder}: no manifest counts any tokens")
    return padded / tokens


def _contamination(
    experiment: records.Experiment, plan: Plan, correct: Correct, ids: tuple[str, ...]
) -> dict[str, Any]:
    """Share of test items seen in pre-training, and the results on the clean rest."""
    path = experiment.folder / "contamination.json"
    record = records.load_json(path)
    try:
        seen = set(record["contaminated_ids"])
        ngram, items = record["ngram"], record["test_items"]
    except (KeyError, TypeError) as error:
        raise InputError(f"{path} lacks {error}; start the experiment again") from None
    unknown = len(seen - set(ids))
    if unknown or items != len(ids):
        raise InputError(
            f"{path} is not about these {len(ids)} test items, but about {items}, with"
            f" {unknown} unknown ids; start the experiment again"
        )
    clean_I = np.array([item not in seen for item in ids])
    clean = {key: correct_SI[:, clean_I] for key, correct_SI in correct.items()}
    arms: dict[str, dict[str, Any]] = {}
    measurable = clean_I.sum() >= 2  # an interval needs two items
    for (arm, n), correct_SI in clean.items() if measurable else ():
        arms.setdefault(arm, {})[str(n)] = _arm(correct_SI)
    return {
        "ngram": ngram,
        "share": len(seen) / len(ids),
        "test_items": len(ids),
        "clean_items": int(clean_I.sum()),
        "arms": arms,
        "differences": [_difference(c, clean) for c in plan.claims]
        if measurable
        else [],
    }
