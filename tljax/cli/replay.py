"""tljax replay: a run, and all that trained side by side with it, once more.

run folder -> manifest: who trained with it, how, what its judge had seen
           -> the same population elsewhere -> are the parameters the same, to the bit?
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tljax.cli.command import Flag, read_only_flags, work_folder
from tljax.settings import InputError
from tljax.train.files import read_json, write_json
from tljax.train.record import (
    code_sha256,
    differing_keys,
    final_record,
    read_record,
)

DESCRIPTION = """
Trains a run once more in another folder and says whether it ends with the same
parameters, to the bit. Where it trained side by side with others (on an accelerator, or
compared with them by --prune=asha) its result hangs on them, so all of them are trained
again, in the same order, as many at a time, with the same values known before.

  tljax replay --run=runs/sweep/trials/0017 --workdir=runs/again

Exit status 0: the same; 1: not, and what is different of versions, devices, code, data
and start. Stopped (Ctrl-C, or killed) and called again, it goes on.
"""
FLAGS = (
    Flag("run", "DIR", "folder of a run that has ended", required=True),
    Flag("workdir", "DIR", "where the repeated runs are written", required=True),
)
_MADE_OF = ("versions", "code_sha256", "devices", "data", "init")
_MARK = "replay.json"  # in the work folder: what is repeated there, by which code


def run(argv: Sequence[str]) -> int | None:
    """Trains what trained together once more; returns 1 if the given run differs."""
    flags = read_only_flags(
        argv, FLAGS, program="tljax replay", description=DESCRIPTION
    )
    if flags is None:
        return None
    asked, folder = (
        Path(os.path.expanduser(flags[name])).resolve() for name in ("run", "workdir")
    )
    if not (asked / "config.json").exists():
        raise InputError(f"--run={asked} is no run folder; it has no config.json")
    final_record(asked)
    facts = _facts(asked)
    if facts is None:
        raise InputError(
            f"{asked / 'manifest.json'} does not say what the run trained with (a run"
            f" of an older version, or none that was trained); `tljax train"
            f" --config={asked / 'config.json'} --workdir=...` trains it alone"
        )
    sources = _together(asked, facts)
    shared = Path(os.path.commonpath([one.parent for one in sources]))
    targets = [folder / one.relative_to(shared) for one in sources]
    others = len(sources) - 1
    with work_folder(folder):
        _mark(folder, sources)
        print(
            f"{asked.name} trained {f'with {others} others' if others else 'by itself'}"
            f" ({facts['mode']}, {min(facts['together'], len(sources))} at a time)"
        )
        _train(facts, sources, targets, folder)
    return _compare(asked, sources, targets)


def _facts(run: Path) -> dict[str, Any] | None:
    """What a run's manifest says of its population; None if nothing."""
    path = run / "manifest.json"
    facts = read_record(path).get("population") if path.exists() else None
    return facts if isinstance(facts, dict) else None


def _together(run: Path, facts: Mapping[str, Any]) -> list[Path]:
    """The folders of all that trained together, in order."""
    return [(run / name).resolve() for name in facts["members"]]


def _mark(folder: Path, sources: Sequence[Path]) -> None:
    """Takes a folder for this replay. Raises: InputError: it holds something else.

    Else runs that have ended, here or copied, would be compared, and none be trained.
    """
    asked = {"of": [str(one) for one in sources], "code_sha256": code_sha256()}
    path = folder / _MARK
    if path.exists():
        differ = next(iter(differing_keys(read_json(path), asked, "replay")), None)
    else:
        there = sorted(one.name for one in folder.iterdir())
        differ = f"it has {there[0]}" if there else None
    if differ:
        raise InputError(
            f"--workdir={folder} holds something else ({differ}); give a folder that is"
            " not there yet"
        )
    write_json(path, asked)


def _train(facts: Mapping[str, Any], sources, targets, folder: Path) -> None:
    """The same population, divided as it was."""
    from tljax.cli.finetune import finetune  # late: imports JAX
    from tljax.cli.members import Division, member_of, read_division, write_division
    from tljax.cli.pretrain import pretrain

    members = [
        member_of(read_record(source / "config.json", "kind"), target)
        for source, target in zip(sources, targets, strict=True)
    ]
    prune = _prune(facts["prune"], targets)
    if members[0].settings.kind == "pretrain":
        pretrain(members[0].settings, targets[0], prune=prune)
        return
    populations = folder / "populations"
    if not read_division(populations, members):
        division = Division(facts["mode"], facts["together"])
        write_division(populations, members, division)
    # a loss that was not finite then will not be now
    finetune(members, populations=populations, prune=prune, others=True)


def _prune(compared: Mapping[str, Any] | None, targets: Sequence[Path]):
    """Who compared the runs, with what it knew before they began."""
    from tljax.sweep.prune import Asha, Prune

    if compared is None:
        return None
    trials: dict[int, list[Path]] = {}
    for trial, target in zip(compared["trials"], targets, strict=True):
        trials.setdefault(trial, []).append(target)
    asha = Asha(compared["direction"], seen=compared["seen"])
    return Prune(asha, trials, compared["metric"])


def _compare(asked: Path, sources: Sequence[Path], targets: Sequence[Path]) -> int:
    """Says which runs are the same; 1 if the one that was asked for is not.

    Left out are those that in the end trained otherwise, memory being out.
    """
    same = {}
    for source, target in zip(sources, targets, strict=True):
        facts = _facts(source)
        if facts and _together(source, facts) == sources:
            hashes = [final_record(one)["params_sha256"] for one in (source, target)]
            same[source] = hashes[0] == hashes[1]
    print(
        f"{sum(same.values())} of {len(same)} runs end with the same parameters, to the"
        " bit"
    )
    if not all(same.values()):
        other = [one.name for one, is_same in same.items() if not is_same]
        print(f"not the same: {', '.join(other)}")
        there, here = (
            read_record(one / "manifest.json")
            for one in (asked, targets[sources.index(asked)])
        )
        for name in _MADE_OF:
            for line in differing_keys(there.get(name), here.get(name), name):
                print(line)
    return 0 if same[asked] else 1
