"""Many runs as one population against the same runs one after another.

work                                                           to reach
6 decoders of 2.5 M from scratch, 500 labels                   never slower
the same, 10 epochs, against the peer's fine_tune.py           4 x
16 probes of SmolLM2: features, then a ridge fit each          5 x
16 heads trained on the frozen SmolLM2                         5 x
16 of LoRA in its upper 10 of 30 layers, on the same labels    2 x
16 of LoRA in all layers: memory, against one's                about one's

'Together' is one call of `finetune` with all members, 'one after another' a process a
member, as `tljax train` is (the probes: one process). Every way begins with an empty
cache of compiled programs; processes are timed from outside, imports included, but for
the peer's work, which its script times from inside.
"""

import dataclasses
import functools
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

from tljax.cli.bench.peer import Peer
from tljax.cli.bench.turns import Work
from tljax.cli.config import load_config
from tljax.data.sources import open_source
from tljax.settings import FinetuneSettings, InputError

CONFIG = pathlib.Path("configs") / "finetune.py"
TEXTS = "pkg:rotten_tomatoes"
DECODER = {"init.source": "", "model.width": 192, "model.depth": 4, "model.heads": 3,
           "model.kv_heads": 3, "model.mlp": "swiglu", "model.mlp_width": 512,
           "optim.layer_decay": 1.0}  # fmt: skip
TRAINED_ONLY = {"task.score_test": False, "task.validation_items": 100}
PEER_ITEMS = 1500  # scored; a CSV's test split is a fifth of it


@dataclasses.dataclass(frozen=True)
class Section:
    """Members of a config, which differ in their seeds."""

    name: str
    preset: str
    changes: dict
    members: int
    target: float
    probes: bool = False  # closed-form fits, not `finetune`
    unit: str = "s"


SECTIONS = (
    Section("6 decoders from scratch", "default", DECODER, 6, 1.0),
    Section("16 probes, SmolLM2", "smollm2", {"task.n": 100}, 16, 5.0, probes=True),
    Section(
        "16 heads, SmolLM2", "smollm2",
        {**TRAINED_ONLY, "task.n": 100, "epochs": 10.0, "transfer.method": "head",
         "transfer.frozen_layers": 0}, 16, 5.0,
    ),
    Section(
        "16 of LoRA above 20 layers", "smollm2",
        # of the same labels, so that the frozen layers are computed once for all
        {**TRAINED_ONLY, "task.n": 100, "epochs": 10.0, "transfer.frozen_layers": 20,
         "seeds.subset": 0}, 16, 2.0,
    ),
    Section(
        "16 of LoRA, peak memory", "smollm2",
        {**TRAINED_ONLY, "task.n": 16, "epochs": 1.0, "task.validation_items": 8,
         "transfer.frozen_layers": 0}, 16, 0.8, unit="MiB",
    ),
)  # fmt: skip
ARM = Section(
    "arm of low_shot: 6 x 500 labels x 10 epochs", "default",
    # the peer reads the last token and validates nothing; a run here must a little
    {**DECODER, "head.pooling": "last", "epochs": 10.0, "task.validation_items": 8,
     "record.validations": 1}, 6, 4.0,
)  # fmt: skip
SMALL = Section(
    "2 small decoders", "tiny",
    {**TRAINED_ONLY, "task.n": 8, "epochs": 1.0, "task.validation_items": 8}, 2, 1.0,
)  # fmt: skip


def works(peer: Peer | None, *, small: bool) -> list[Work]:
    """A work a section, and with a peer the arm of the main experiment.

    Args:
      peer: for the arm; None = it is left out.
      small: only to see that it works.

    Raises:
      InputError: called outside of a checkout, which has the members' config.
    """
    if not CONFIG.exists():
        raise InputError(
            f"there is no {CONFIG} here; call `tljax bench populations` in a checkout"
        )
    folder = pathlib.Path(tempfile.mkdtemp())
    sections = (SMALL,) if small else SECTIONS
    found = [_work(section, folder / str(i)) for i, section in enumerate(sections)]
    return [*found, _arm(peer, folder / "arm")] if peer and not small else found


def _work(section: Section, folder: pathlib.Path) -> Work:
    members = _members(section, TEXTS)
    alone = [[one] for one in members]
    if section.unit == "MiB":
        others = [[members[:1]]]  # the peak of one
    else:
        others = [alone] if section.probes else [[one] for one in alone]

    def measure(way: str, processes: list) -> float:
        return _run(section, folder / way, processes)

    return Work(
        name=section.name,
        unit=section.unit,
        prepare=lambda: functools.partial(measure, "together", [[members]]),
        theirs=functools.partial(measure, "in_turn", others),
        target=section.target,
    )


def _members(section: Section, source: str, mesh_run: int = 1) -> list[dict]:
    changes = {**section.changes, "task.source": source, "mesh.run": mesh_run}
    texts = {key: str(value) for key, value in changes.items()}
    config = load_config(f"{CONFIG}:{section.preset}", texts, kinds=FinetuneSettings)
    return [{**config, "seed": seed} for seed in range(section.members)]


def _run(section: Section, folder: pathlib.Path, processes: list) -> float:
    """Seconds of all processes, or the largest peak among them.

    Args:
      section: what is measured.
      folder: emptied; compiled programs and runs go there.
      processes: for each the calls that it makes, each a list of members' configs.
    """
    started = time.perf_counter()
    reports = _reports(section, folder, processes)
    if section.unit == "MiB":
        return max(one["peak_mib"] for one in reports)
    return time.perf_counter() - started


def _reports(section: Section, folder: pathlib.Path, processes: list) -> list[dict]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    flags = {"JAX_COMPILATION_CACHE_DIR": str(folder / "xla")}
    reports = []
    for i, calls in enumerate(processes):
        path = folder / f"work{i}.json"
        path.write_text(json.dumps({"probes": section.probes, "calls": calls}))
        command = [sys.executable, "-m", "tljax.cli.bench.members", str(path)]
        done = subprocess.run(
            command, env=os.environ | flags, capture_output=True, text=True
        )
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
            raise InputError(f"{section.name}: a member's process failed: {said}")
        reports.append(json.loads(done.stdout.splitlines()[-1]))
    return reports


def _arm(peer: Peer, folder: pathlib.Path) -> Work:
    """The members on as many CPU devices as there are cores, against the peer's runs.

    The peer takes our tokenizer, which the first of our turns has trained.
    """
    folder.mkdir(parents=True)
    table = folder / "sentences.csv"
    source = _sentences(table)
    cores = min(os.cpu_count() or 1, ARM.members)
    members = _members(ARM, source, mesh_run=cores)

    def ours() -> float:
        return _reports(ARM, folder / "ours", [[members]])[0]["seconds"]

    def theirs() -> float:
        task = members[0]["task"]
        return peer.run(
            "fine_tune.py", "seconds", f"--data={table.with_suffix('.tsv')}",
            f"--tokenizer={folder}/ours/work0/0/tokenizer.json",
            f"--labels={task['n']}", f"--test={PEER_ITEMS}", f"--runs={len(members)}",
            f"--epochs={ARM.changes['epochs']:.0f}",
        )  # fmt: skip

    return Work(ARM.name, "s", lambda: ours, theirs, target=ARM.target)


def _sentences(path: pathlib.Path) -> str:
    """A CSV of 7,500 short reviews, beside it a TSV for the peer; returns its URI."""
    texts = {}
    for split in ("train", "validation", "test"):
        for one in open_source(TEXTS).examples(split):
            texts[" ".join(one.text.split())] = one.label
    pairs = [(label, text) for text, label in texts.items()]
    pairs = random.Random(0).sample(pairs, 5 * PEER_ITEMS)
    with path.open("w", encoding="utf-8") as file:
        file.write("label,text\n")
        for label, text in pairs:
            quoted = text.replace('"', '""')
            file.write(f'{label},"{quoted}"\n')
    lines = "\n".join("\t".join(pair) for pair in pairs)
    path.with_suffix(".tsv").write_text(lines + "\n", encoding="utf-8")
    return f"csv:{path}?text=text&label=label"
