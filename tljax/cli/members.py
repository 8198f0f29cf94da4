"""Members of a population: what they may differ in, which of them train together.

members -> groups, one after another     turn: one member; vmap: as many as fit
    populations/ID.json                  how they were divided: resumed, so again
    populations/ID/STEP                  checkpoints of the group that is training
    populations/ID/ends.json             last records of a group that has trained: all
                                         of them are written, whatever is killed then
"""

import dataclasses
import itertools
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tljax.settings import (
    SETTINGS_OF_KIND,
    FinetuneSettings,
    InputError,
    MeshSettings,
    from_config,
    to_dict,
)
from tljax.sweep.prune import Prune
from tljax.train.files import read_json, sha256_of, write_json
from tljax.train.record import RunRecord, is_finished

# numbers that are traced where they are above 0; 0 is another program
SWITCHES = ("model.dropout", "regularize.label_smoothing", "regularize.l2_start",
            "regularize.mixout", "regularize.rdrop", "regularize.neftune",
            "regularize.lm_weight", "regularize.ema", "regularize.replay",
            "regularize.ewc", "transfer.dropout")  # fmt: skip
MEMBER_KEYS = ("seed", "seeds.subset", "seeds.init", "seeds.order", "epochs",
               "task.n", "optim.lr_peak", "optim.lr_muon", "optim.warmup",
               "optim.cooldown", "optim.weight_decay", "optim.layer_decay",
               "optim.lora_plus", "regularize.wise", "transfer.alpha",
               *SWITCHES)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Member:
    """One run of a population."""

    settings: FinetuneSettings
    folder: pathlib.Path


def member_of(config: Mapping[str, Any], folder: pathlib.Path | str) -> Member:
    """A run as its config.json has it. Raises: InputError: a value is bad."""
    kind = SETTINGS_OF_KIND[config["kind"]]
    return Member(from_config(kind, config), pathlib.Path(folder))


def mesh_of(members: Sequence[Member]) -> MeshSettings:
    """Of a population: no more devices than there are members for."""
    mesh = members[0].settings.mesh
    return dataclasses.replace(mesh, run=min(mesh.run, len(members)))


@dataclasses.dataclass(frozen=True)
class Division:
    """How members train: mode of `population.lift`, how many at a time."""

    mode: str
    together: int

    def groups(self, members: Sequence[Member]) -> list[tuple[Member, ...]]:
        """The members in order, so many at a time."""
        return list(itertools.batched(members, self.together))


@dataclasses.dataclass(frozen=True)
class Population:
    """Members that train by one division, and what it takes to train them again.

    Attributes:
      members: all of them, in order.
      division: how they train.
      prune: that compares them; None = nobody does.
      seen: `Asha.state` of prune before they began; None without it.
      others: whether one whose loss is not finite ends while others go on.
    """

    members: Sequence[Member]
    division: Division
    prune: Prune | None
    seen: Mapping[str, Any] | None
    others: bool

    def facts(self, one: Member, group: Sequence[Member]) -> dict[str, Any]:
        """What the manifest says of those that a run trained with.

        Args:
          one: the run.
          group: that it trained side by side with. Where members are compared, the
            answers hang on all of them, so that all are named.

        Returns:
          "mode" and "together" of the division; "members": their folders, from the
          run's own ("."); "prune": None, or "direction", "metric", "seen" and
          "trials", one of each member's.
        """
        beside, compared = group, None
        if self.prune:
            beside = self.members
            runs = self.prune.trials.items()
            trial_of = {folder: trial for trial, mine in runs for folder in mine}
            compared = {
                "direction": self.prune.asha.direction,
                "metric": self.prune.metric,
                "seen": self.seen,
                "trials": [trial_of[other.folder] for other in beside],
            }
        names = [_from(other.folder, one.folder) for other in beside]
        division = dataclasses.asdict(self.division)
        return {**division, "members": names, "prune": compared}


def _from(other: pathlib.Path, folder: pathlib.Path) -> str:
    """A run's folder as seen from another's."""
    if other.parent == folder.parent:  # of hundreds, each of each: without the disk
        return "." if other == folder else f"../{other.name}"
    return os.path.relpath(other, folder)


def check_shared(members: Sequence[Member]) -> None:
    """Members may differ in MEMBER_KEYS only: another shape is another population.

    What one of SWITCHES switches on, all members have, or none.

    Raises:
      InputError: names the key, two members and what each of them has.
    """
    first, *others = members
    shared = program_of(first.settings)
    for one in others:
        own = program_of(one.settings)
        for key in shared | own:
            if shared.get(key) == own.get(key):
                continue
            here, there = (
                dict(_leaves(dataclasses.asdict(member.settings))).get(key)
                for member in (first, one)
            )
            wanted = "0 in all or in none" if key in SWITCHES else "the same in all"
            raise InputError(
                f"config.{key} is {here!r} in {first.folder.name}, {there!r} in"
                f" {one.folder.name}: members of a population share their program; it"
                f" must be {wanted}, or they are trained apart"
            )


def program_of(settings: FinetuneSettings) -> dict[str, Any]:
    """Key -> value of what members share; of SWITCHES, whether they are on."""
    leaves = dict(_leaves(dataclasses.asdict(settings)))
    shared = {key: value for key, value in leaves.items() if key not in MEMBER_KEYS}
    return {**shared, **{key: bool(leaves[key]) for key in SWITCHES}}


def _leaves(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """('optim.lr_peak', .1) of {"optim": {"lr_peak": .1}}."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def identity(group: Sequence[Member]) -> str:
    """Names a group's checkpoints: runs of one name but another config share none."""
    return sha256_of([[one.folder.name, to_dict(one.settings)] for one in group])[:16]


def read_division(
    populations: pathlib.Path, members: Sequence[Member]
) -> Division | None:
    """How these members were divided; None if they have not begun, or have ended."""
    path = _division_path(populations, members)
    return Division(**read_json(path)) if path.exists() else None


def write_division(
    populations: pathlib.Path, members: Sequence[Member], division: Division
) -> None:
    """Keeps how the members are divided until all have ended."""
    path = _division_path(populations, members)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, dataclasses.asdict(division))


def keep_ends(
    populations: pathlib.Path,
    group: Sequence[Member],
    ends: Sequence[Mapping[str, Any]],
) -> None:
    """Keeps what the members of a group end with, then writes it into each one's run.

    Args:
      populations: folder of the checkpoints.
      group: whose folders hold everything but their last record.
      ends: arguments of `RunRecord.finish`, a member each.
    """
    write_json(_ends_path(populations, group), ends)
    write_ends(populations, group)


def write_ends(populations: pathlib.Path, group: Sequence[Member]) -> bool:
    """Writes last records that are kept and not written yet; whether any are kept."""
    path = _ends_path(populations, group)
    if not path.exists():
        return False
    for one, end in zip(group, read_json(path), strict=True):
        if not is_finished(one.folder):
            with RunRecord(one.folder) as record:
                record.cut_back(end["step"])  # half a line that a kill left
                record.finish(**end)
    return True


def forget_checkpoints(populations: pathlib.Path, group: Sequence[Member]) -> None:
    """Removes those of a group that has ended."""
    shutil.rmtree(populations / identity(group), ignore_errors=True)


def forget_population(
    populations: pathlib.Path, members: Sequence[Member], division: Division | None
) -> None:
    """Removes what is kept of members that have all ended; others' stays."""
    for group in division.groups(members) if division else ():
        forget_checkpoints(populations, group)
    _division_path(populations, members).unlink(missing_ok=True)
    if populations.exists() and not any(populations.iterdir()):
        populations.rmdir()


def _division_path(populations, members) -> pathlib.Path:
    return populations / f"{identity(members)}.json"


def _ends_path(populations, group) -> pathlib.Path:
    return populations / identity(group) / "ends.json"
