"""How much of the score's variance does each key make? fANOVA over the trials.

    importance of a key = share of a random forest's variance that it explains alone

Source: Hutter, Hoos and Leyton-Brown 2014, by optuna.importance.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tljax.report.sweep_records import Sweep, Trial

LEAST = 10  # trials; a forest of fewer sees nothing


@dataclass(frozen=True)
class Importance:
    """Shares that sum to 1, largest first; `note` says what is not in them, or why."""

    shares: dict[str, float]
    note: str


def importance(sweep: Sweep) -> Importance:
    """The importance of every key that applies to all trials that have a score.

    A key that applies to some only (LoRA's rank) cannot be weighed against the others;
    the note names it. Seeded: the same trials give the same shares.
    """
    rows = sweep.complete
    if len(rows) < LEAST:
        return Importance({}, f"{len(rows)} trials have a score; fANOVA needs {LEAST}.")
    if len({_mean(row) for row in rows}) == 1:
        return Importance({}, "All trials have the same score: nothing to explain.")
    everywhere = [key for key in sweep.space if all(key in r["params"] for r in rows)]
    varied = [
        key for key in everywhere if len({repr(r["params"][key]) for r in rows}) > 1
    ]
    note = _left_out(sweep.space, everywhere, varied)
    if not varied:
        return Importance({}, note)
    return Importance(_fanova(sweep.space, rows, varied), note)


def _mean(row: Trial) -> float:
    return sum(row["values"]) / len(row["values"])


def _left_out(space: Mapping[str, Any], everywhere: list, varied: list) -> str:
    some = [key for key in space if key not in everywhere]
    still = [key for key in everywhere if key not in varied]
    notes = []
    if some:
        notes.append(f"Not weighed, as they do not apply to all: {', '.join(some)}.")
    if still:
        notes.append(f"Not weighed, as they never varied: {', '.join(still)}.")
    return " ".join(notes)


def _fanova(
    space: Mapping[str, Mapping[str, Any]], rows: Sequence[Trial], keys: Sequence[str]
) -> dict[str, float]:
    import optuna  # here: half a second that other reports need not wait

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()  # in memory
    distributions = {key: _distribution(space[key]) for key in keys}
    for row in rows:
        params = {key: _plain(row["params"][key]) for key in keys}
        study.add_trial(
            optuna.trial.create_trial(
                params=params, distributions=distributions, value=_mean(row)
            )
        )
    shares = optuna.importance.get_param_importances(
        study,
        evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0),
        params=list(keys),
    )
    return {key: float(share) for key, share in shares.items()}


def _distribution(one: Mapping[str, Any]) -> Any:
    from optuna import distributions

    if one["kind"] == "choice":
        return distributions.CategoricalDistribution(list(map(_plain, one["choices"])))
    kinds = {
        "float": distributions.FloatDistribution,
        "int": distributions.IntDistribution,
    }
    return kinds[one["kind"]](one["low"], one["high"], log=bool(one.get("log")))


def _plain(value: Any) -> Any:
    """A choice as Optuna takes it: what is no number or text, by its name."""
    return value if isinstance(value, bool | int | float | str | None) else str(value)
