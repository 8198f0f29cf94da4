"""What a sweep found, in sentences of plain text for the page's head and the terminal.

The best and how sure it is, whom it cannot be told apart from, whether it lies on an
edge, what the test split said. Words follow from the numbers alone.
"""

from collections.abc import Mapping
from typing import Any

from tljax.report.markup import HARD, MINUS, listing, percent
from tljax.report.statistics import Interval
from tljax.report.sweep_best import Ranking, edges
from tljax.report.sweep_records import Sweep, is_share

IN_FULL = 8  # trials named one by one
_WORDS = ("", "", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def sentences(sweep: Sweep, ranking: Ranking) -> list[str]:
    """All that is to be said, the answer first.

    Args:
      sweep: the whole work folder.
      ranking: `best_trials` of its rows.
    """
    waiting = sum(row["state"] in ("running", "waiting") for row in sweep.trials)
    verb = "has" if waiting == 1 else "have"
    unfinished = [f"{waiting} of {len(sweep.trials)} trials {verb} not ended yet."]
    if ranking.best is None:
        return [_nothing(sweep), *unfinished * bool(waiting)]
    params = best_params(sweep, ranking)
    return [
        _best(sweep, ranking, params),
        _alike(ranking),
        *_edges(sweep, params),
        *_test(sweep, ranking),
        *_chosen(sweep),
        *unfinished * bool(waiting),
    ]


def best_params(sweep: Sweep, ranking: Ranking) -> dict[str, Any]:
    """What the best trial set."""
    rows = {row["number"]: row for row in sweep.trials}
    return rows[ranking.best]["params"]


def score(value: float, metric: str) -> str:
    """0.8431 of an accuracy -> '84.3 %', of a loss -> '0.8431'."""
    text = percent(value) if is_share(metric) else f"{value:.4g}"
    return text.replace("-", MINUS)


def score_range(interval: Interval | Mapping[str, float], metric: str) -> str:
    """'83.1 % to 85.5 %'; a share's interval ends where shares do, at 0 and 100 %."""
    if isinstance(interval, Interval):
        low, high = interval.low, interval.high
    else:
        low, high = interval["low"], interval["high"]
    if is_share(metric):
        low, high = max(low, 0.0), min(high, 1.0)
    return f"{score(low, metric)} to {score(high, metric)}"


def setting(value: Any) -> str:
    """A parameter's value as a person would write it: 0.001, lora, 1e-05."""
    return f"{value:.3g}" if type(value) is float else str(value) or "(empty)"


def _nothing(sweep: Sweep) -> str:
    reasons = [row.get("reason") for row in sweep.trials if row.get("reason")]
    said = f"; the first: {reasons[0]}" if reasons else ""
    failed = sum(row["state"] == "failed" for row in sweep.trials)
    told = f" {failed} failed{said}." if failed else ""
    return f"No trial has a score yet, so there is no best one.{told}"


def _best(sweep: Sweep, ranking: Ranking, params: Mapping[str, Any]) -> str:
    metric = sweep.plan["metric"]
    found = score(ranking.means[ranking.best], metric)
    if ranking.interval is None:
        sure = "one seed, so without an interval"
    else:
        sure = (
            f"mean over {ranking.seeds} seeds, 95{HARD}% interval"
            f" {score_range(ranking.interval, metric)}"
        )
    chosen = listing([f"{key} = {setting(value)}" for key, value in params.items()])
    return f"Trial {ranking.best} is best: {metric} {found} ({sure}), with {chosen}."


def _alike(ranking: Ranking) -> str:
    alike, others = ranking.alike, ranking.order[1:]
    if not others:
        return "No other trial has a score to compare it with."
    if ranking.interval is None:
        return (
            "With one seed a trial nothing can be told about the difference between"
            " trials: sweep again with --seeds=3 or more."
        )
    lone = len(others) == 1
    if not alike:
        worse = "The one other is" if lone else f"All {len(others)} others are"
        return (
            f"{worse} worse by more than chance: the 95{HARD}% interval of the"
            " difference, paired by seed, leaves out 0."
        )
    rule = f"95{HARD}% interval of the difference, paired by seed, covers 0"
    if any(not gap.low <= 0 <= gap.high for gap in map(ranking.differences.get, alike)):
        rule += " or, of two seeds, has no width"
    named = listing([str(number) for number in alike[:IN_FULL]])
    if len(alike) > IN_FULL:
        named = (
            f"{', '.join(map(str, alike[:IN_FULL]))} and {len(alike) - IN_FULL} more"
        )
    if alike == others:
        none = (
            "The one other cannot" if lone else f"None of the {len(others)} others can"
        )
        return f"{none} be told apart from it ({rule})."
    if alike == others[: len(alike)]:
        group = 1 + len(alike)
        word = _WORDS[group] if group < len(_WORDS) else str(group)
        return (
            f"The best {word} cannot be told apart: {ranking.best} and then {named}"
            f" ({rule})."
        )
    trials = "trials" if len(alike) > 1 else "trial"
    return f"It cannot be told apart from {trials} {named} ({rule})."


def _edges(sweep: Sweep, params: Mapping[str, Any]) -> list[str]:
    told = []
    for key, end in edges(sweep.plan["space"], params).items():
        one, value = sweep.space[key], setting(params[key])
        if one["kind"] == "choice":
            of = f"the last of the choices at that end ({_among(one['choices'])})"
        else:
            of = f"at the edge of its range {setting(one['low'])} to"
            of += f" {setting(one['high'])}"
        told.append(
            f"Warning: its {key} = {value} is {of}; the optimum may lie"
            f" {'below' if end == 'lower' else 'above'}: widen the space there."
        )
    return told


def _among(choices: list[Any]) -> str:
    return ", ".join(map(setting, choices))


def _test(sweep: Sweep, ranking: Ranking) -> list[str]:
    if sweep.final is None:
        return []
    final, metric = sweep.final, sweep.plan["metric"]
    test, trial = final["test"], final["trial"]
    told = f"On the test split, scored once, trial {trial} has"
    told += f" {score(test['mean'], metric)}"
    low, high = test.get("low"), test.get("high")
    if len(test["values"]) > 1 and low == high:
        told += " with every seed"  # an interval of no width would claim too much
    elif None not in (low, high):
        told += f" (95{HARD}% interval {score_range(test, metric)})"
    notes = []
    if trial != ranking.best:
        notes.append(f"Warning: that is not the best of now, trial {ranking.best}.")
    if final.get("repeated_exactly") is False:
        notes.append("Warning: its runs, repeated for the test, were not the same.")
    return [f"{told}.", *notes]


def _chosen(sweep: Sweep) -> list[str]:
    # who was pruned was compared too
    compared = sum(row["state"] in ("complete", "pruned") for row in sweep.trials)
    if compared < 2:
        return []
    return [
        f"The best of {compared} was chosen by these very scores, which"
        " flatters it (winner’s curse): expect less of it on other data. The test"
        " split, scored once for the winner, is free of that."
    ]
