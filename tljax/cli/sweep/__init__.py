"""tljax sweep: tries many settings of a run, resumably, and says which are best.

plan (config, space, search) -> trials -> populations -> runs -> study -> report
"""

import dataclasses
import os
import pathlib
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from tljax.cli.command import (
    Flag,
    Given,
    check_file,
    help_text,
    no_words,
    read_flags,
)
from tljax.cli.config import CONFIG, WORKDIR, load_config, load_sweep
from tljax.cli.keys import keys_text, kind_of, read_as
from tljax.data.folders import alone_in
from tljax.settings import LAST_SEED, SETTINGS_OF_KIND, InputError, suggestion
from tljax.train.files import read_json
from tljax.train.record import differing_keys

PROGRAM = "tljax sweep"
USAGE = f"{PROGRAM} --config=FILE.py[:PRESET] --over=KEY=... --workdir=DIR"
DESCRIPTION = """
Tries many settings of one kind of run and says which are best, how sure that is, and
which settings matter. Trials whose program is the same train together as a population,
the rest one after another, each in a process of its own. Stopped (Ctrl-C, or killed)
and called again, it goes on and repeats nothing.

  tljax sweep --config=configs/finetune.py --workdir=runs/sweep \\
      --over='optim.lr_peak=log(1e-5,1e-2)' --over='optim.weight_decay=0,0.01,0.1' \\
      --over='transfer.method=full,lora' \\
      --over='transfer.rank=4,16 if transfer.method=lora' \\
      --trials=40 --seeds=3 --dry_run
  tljax sweep --workdir=runs/sweep --final      # goes on; the best sees the test set

A sweep() in the config file may say the same, e.g. return {"over": [...], "seeds": 3}.
A trial is a run folder, WORKDIR/trials/0017: tljax replay --run=WORKDIR/trials/0017
--workdir=... repeats it. The test split is read by --final only, once, for the winner.
Several machines share the work with one --storage=postgresql://... and one --study.
"""
_DEFAULTS = {
    "search": "qmc", "prune": "none", "seeds": "1", "trials": "20", "seed": "0",
}  # fmt: skip
_LOOKED_AT = ("accuracy", "bits_per_byte")  # what validations on the way hold
FLAGS = (
    CONFIG,
    WORKDIR,
    Flag("over", "KEY=...", "a key and what it may be: log(LOW,HIGH), uniform(LOW,HIGH)"
         " or values A,B,C; behind it perhaps ' if KEY=VALUE'; as often as needed",
         many=True),
    Flag("trials", "N", f"points that are tried; {_DEFAULTS['trials']} if left, of a"
         " grid all"),
    Flag("seeds", "N", f"runs a trial; {_DEFAULTS['seeds']} if left"),
    Flag("search", "NAME", "qmc (the space evenly), random, grid, or tpe (learns from"
         f" what was found); {_DEFAULTS['search']} if left"),
    Flag("prune", "NAME", f"none, or asha; {_DEFAULTS['prune']} if left"),
    Flag("metric", "NAME", "what is best, e.g. validation/accuracy (fine-tuning) or"
         " bits_per_byte (pre-training)"),
    Flag("seed", "N", "of the draws"),
    Flag("storage", "URL", "sqlite:///FILE or postgresql://..., which workers share; a"
         " journal in the work folder if left"),
    Flag("study", "NAME", "of the study in a shared storage; the folder's if left"),
    Flag("export", "FILE", "where the trials go beside, .csv or .parquet"),
    Flag("dry_run", "", "shows what would train together and what it takes, and stops"),
    Flag("final", "", "at the end the best trial is scored on the test split, once"),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Plan:
    """A whole sweep: what sweep.json holds.

    Attributes:
      config: of a run, plain nested dicts; the points are laid over it.
      overridden: its keys that the command line set.
      space: as `tljax.sweep.space.to_rows` writes it.
      search, prune, seeds, trials, seed, metric: as the flags say.
      direction: 'maximize' or 'minimize'.
      storage, study: where the trials are kept; '' = a journal in the folder.
    """

    config: dict[str, Any]
    overridden: list[str]
    space: list[dict[str, Any]]
    search: str
    prune: str
    seeds: int
    trials: int
    seed: int
    metric: str
    direction: str
    storage: str
    study: str

    def shared(self) -> dict[str, Any]:
        """What all workers of a study must agree on."""
        own = {"storage", "study", "trials", "overridden"}
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in own}


def run(argv: Sequence[str]) -> None:
    """Plans, shows, trains what is left, reports."""
    given = read_flags(argv, FLAGS, program=PROGRAM)
    if "help" in given.flags:
        print(help_text(USAGE, DESCRIPTION, FLAGS))
        print(f"\n{keys_text(SETTINGS_OF_KIND, None)}")
        return
    no_words(given, PROGRAM)
    if "workdir" not in given.flags:
        raise InputError(f"{PROGRAM} needs {WORKDIR}; `{PROGRAM} --help` tells more")
    folder = pathlib.Path(os.path.expanduser(given.flags["workdir"])).resolve()
    there = _read_plan(folder)
    if "config" in given.flags:
        plan = _plan(given, folder)
    else:
        plan = _plan_there(given, folder, there)
    if there:
        _compare(folder, there, plan)
    export = _export(given)
    from tljax.cli.sweep.work import runs_of, show, work  # late: imports JAX

    if "dry_run" in given.flags:
        show(plan, runs_of(plan, folder))
        return
    with alone_in(folder):
        work(plan, folder, worker=f"{socket.gethostname()}:{folder}",
             final="final" in given.flags, export=export)  # fmt: skip


def _plan_there(given: Given, folder: pathlib.Path, there: Plan | None) -> Plan:
    """The plan of the folder, gone on with by --workdir alone. Raises: InputError."""
    from tljax.sweep.study import HIDDEN

    if there is None:
        raise InputError(
            f"{PROGRAM} needs {CONFIG}; without it --workdir must hold a sweep, which"
            f" {folder} does not"
        )
    allowed = ("workdir", "storage", "export", "final", "dry_run")
    changed = [one for one in (*given.flags, *given.lists) if one not in allowed]
    changed += [f"config.{one}" for one in given.overrides]
    if changed:
        raise InputError(
            f"--{changed[0]} is read with {CONFIG} only; without it the sweep in"
            f" {folder} goes on as it is: leave the flag out, or give the whole command"
        )
    storage = _storage(given.flags.get("storage", there.storage))
    if HIDDEN in storage:
        raise InputError(
            f"the password of {storage} is not kept; give --storage=URL once more"
        )
    return dataclasses.replace(there, storage=storage)


def _export(given: Given) -> pathlib.Path | None:
    """Where --export says, checked before any work."""
    if "export" not in given.flags:
        return None
    out = pathlib.Path(os.path.expanduser(given.flags["export"]))
    check_file(out, ".csv", ".parquet", flag="export")
    if out.suffix.lower() == ".parquet":
        from tljax.report.export_trials import parquet_library

        parquet_library()
    return out


def _read_plan(folder: pathlib.Path) -> Plan | None:
    path = folder / "sweep.json"
    if not path.exists():
        return None
    try:
        return Plan(**read_json(path))
    except TypeError as error:
        raise InputError(
            f"{path} is not what a sweep wrote ({error}); bring it back"
        ) from error


def _compare(folder: pathlib.Path, there: Plan, asked: Plan) -> None:
    """Refuses to go on with another plan; more trials are welcome."""
    from tljax.sweep.space import from_rows
    from tljax.sweep.study import hidden

    old, new = dataclasses.asdict(there), dataclasses.asdict(asked)
    new["storage"] = hidden(asked.storage)
    if new["trials"] >= old["trials"]:
        del old["trials"], new["trials"]
    for plan in (old, new):
        del plan["overridden"]
        dimensions = from_rows(plan["space"]).dimensions
        plan["over"] = {one.key: str(one) for one in dimensions}
        del plan["space"]
    differ = list(differing_keys(old, new, "sweep"))
    if differ:
        more = f" and {len(differ) - 5} more" if len(differ) > 5 else ""
        raise InputError(
            f"{folder} holds another sweep ({'; '.join(differ[:5])}{more}); give those"
            " values, or another --workdir"
        )


def _plan(given: Given, folder: pathlib.Path) -> Plan:
    """What the flags and the config's sweep() say. Raises: InputError."""
    from tljax.sweep.search import SEARCHES
    from tljax.sweep.search import points as draw
    from tljax.sweep.space import parse_space, to_rows

    argument = given.flags["config"]
    config = load_config(argument, given.overrides, kinds=SETTINGS_OF_KIND)
    kind = kind_of(config, SETTINGS_OF_KIND)
    said = _said(argument, given)
    space = parse_space(
        said.pop("over", []), read=lambda key, text: read_as(kind, key, text)
    )
    seeds = _count(said, "seeds", 1)
    if seeds > 1 and any(one.key == "seed" for one in space.dimensions):
        raise InputError(
            f"--seeds={seeds} sets config.seed, which is swept too; leave one of them"
            " out"
        )
    search = _choose(said, "search", SEARCHES)
    trials = _count(said, "trials", 1)
    if "trials" not in said:  # no more than there are; of a grid all
        points = len(space.grid()) if search == "grid" else min(trials, space.size)
        trials = int(points)
    metric, direction = _metric(said, config["kind"])
    prune = _choose(said, "prune", ("none", "asha"))
    if prune == "asha" and metric.rpartition("/")[2] not in _LOOKED_AT:
        raise InputError(
            f"--prune=asha ends runs by their validations on the way, which hold no"
            f" {metric}; take --metric=validation/accuracy, or --prune=none"
        )
    if prune == "asha" and config["kind"] == "pretrain" and seeds > 1:
        raise InputError(
            f"--seeds={seeds} with --prune=asha: pre-training runs train one after"
            " another, so that the seeds of a trial cannot be judged together; take"
            " --seeds=1, or --prune=none"
        )
    plan = Plan(
        config=config,
        overridden=list(given.overrides),
        space=to_rows(space),
        search=search,
        prune=prune,
        seeds=seeds,
        trials=trials,
        seed=_count(said, "seed", 0),
        metric=metric,
        direction=direction,
        storage=_storage(said.get("storage", "")),
        study=said.get("study", folder.name),
    )
    if search != "tpe":
        draw(space, search=search, seed=plan.seed, trials=trials)
    return plan


def _storage(text: str) -> str:
    """A URL; the journal in the work folder has none."""
    from tljax.sweep.study import SCHEMES

    if text and "://" not in text:
        raise InputError(
            f"--storage={text} is no URL of a kind that keeps a study; allowed:"
            f" {', '.join(SCHEMES)}; left out, a journal in the work folder does"
        )
    return text


def _said(argument: str, given: Given) -> dict[str, Any]:
    """The sweep's own flags: the command line's, then those of the config's sweep()."""
    own = {
        flag.name: flag for flag in FLAGS[2:] if flag.value and flag.name != "export"
    }
    said = load_sweep(argument)
    for name in said:
        if name not in own:
            raise InputError(
                f"--config: sweep() says {name!r}, which is no flag"
                f"{suggestion(str(name), own)}; allowed: {', '.join(own)}"
            )
    if "over" in said:
        said["over"] = [str(one) for one in said["over"]]
    texts = {key: value if key == "over" else str(value) for key, value in said.items()}
    texts |= {key: value for key, value in given.flags.items() if key in own}
    return texts | given.lists


def _count(said: Mapping[str, str], name: str, low: int) -> int:
    text = said.get(name, _DEFAULTS[name])
    if not text.isdecimal() or not low <= int(text) <= LAST_SEED:
        raise InputError(f"--{name}={text} must be a whole number of at least {low}")
    return int(text)


def _choose(said: Mapping[str, str], name: str, allowed: tuple[str, ...]) -> str:
    text = said.get(name, _DEFAULTS[name])
    if text not in allowed:
        raise InputError(
            f"--{name}={text}{suggestion(text, allowed)}; allowed: {', '.join(allowed)}"
        )
    return text


def _metric(said: Mapping[str, str], kind: str) -> tuple[str, str]:
    from tljax.cli.sweep.runs import direction_of, metrics_of

    allowed = metrics_of(kind)
    metric = said.get("metric", allowed[0])
    if metric not in allowed:
        test = "; the test split is for --final" if metric.startswith("test") else ""
        raise InputError(
            f"--metric={metric} never appears{suggestion(metric, allowed)}; there are:"
            f" {', '.join(allowed)}{test}"
        )
    return metric, direction_of(metric)
