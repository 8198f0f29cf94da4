"""A population against the same members one after another, in turns in one run.

    python scripts/bench_populations.py [--only=decoder,head] [--turns=3] \\
        [--peers=DIR --python=PEERS_ENV/bin/python] [--small]

section   members                                                  to reach
decoder   a 2.5 M-parameter decoder from scratch                   never slower
probe     SmolLM2's features, then a ridge fit each                5 x
head      SmolLM2 frozen, a trained head each                      5 x
lora_top  SmolLM2, LoRA in the upper 10 of 30 layers               2 x
lora      SmolLM2, LoRA in all layers: loads, compilations, peak   as one member
peer      the decoder on 500 labels against peers/fine_tune.py     3 x

'together' is one call of `finetune` with all members, 'calls' one call a member in one
process, 'processes' a process a member, as `tljax train` would be. Every way begins
with an empty cache of compiled programs, and is timed from outside, imports included;
'peer' is timed from inside, imports left out, since its script does so too. Prints a
table of medians, and writes WORKDIR/results.json. `--small` only shows that it works.
"""

import argparse
import dataclasses
import itertools
import json
import os
import pathlib
import random
import resource
import shutil
import statistics
import subprocess
import sys
import time

from rich.console import Console
from rich.table import Table

from configs.finetune import get_config
from tljax.data.sources import open_source

URI, TASK = "pkg:smollm2-135m", "pkg:rotten_tomatoes"
LAYER, POOLING = 18, "last"  # of the probe
DECODER = {
    "width": 192, "depth": 4, "heads": 3, "kv_heads": 3, "mlp": "swiglu",
    "mlp_width": 512,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Section:
    """What is measured: members of a config, the ways to train them, the aim."""

    preset: str
    changes: dict
    members: int
    labels: int
    epochs: float
    ways: tuple[str, ...] = ("together", "calls", "processes")


SECTIONS = {
    "decoder": Section("default", {"init.source": "", "model": DECODER}, 6, 500, 5.0),
    "probe": Section("smollm2", {}, 16, 100, 1.0, ("together", "calls")),
    "head": Section(
        "smollm2", {"transfer": {"method": "head"}}, 16, 100, 10.0
    ),
    "lora_top": Section("smollm2", {"transfer.frozen_layers": 20}, 16, 100, 10.0),
    "lora": Section(
        "smollm2", {"transfer.frozen_layers": 0, "task.score_test": False}, 16, 16,
        1.0, ("together", "one"),
    ),
    "peer": Section(
        "default", {"init.source": "", "model": DECODER}, 6, 500, 10.0, ("together",)
    ),
}  # fmt: skip


def member_configs(section: Section, source: str, small: bool) -> list[dict]:
    """The members' configs: they differ in their seeds."""
    config = get_config(section.preset)
    config.task.source = source
    config.task.n, config.epochs = section.labels, section.epochs
    config.optim.layer_decay = 1.0
    if small:
        config.task.n, config.epochs = 8, 1.0
        config.task.validation_items, config.task.score_test = 8, False
    for key, value in section.changes.items():
        if isinstance(value, dict):
            config[key].update(value)
        else:
            config.update_from_flattened_dict({key: value})
    if config.transfer.method == "head":
        config.transfer.frozen_layers = 0
    members = 2 if small else section.members
    return [{**config.to_dict(), "seed": seed} for seed in range(members)]


def processes_of(way: str, configs: list[dict]) -> list[list[list[dict]]]:
    """The processes of a way, each a list of calls, each a list of members."""
    alone = [[one] for one in configs]
    return {
        "together": [[configs]],
        "calls": [alone],
        "processes": [[one] for one in alone],
        "one": [alone[:1]],
    }[way]


def measure(kind: str, way: str, configs: list[dict], folder: pathlib.Path) -> dict:
    """Runs a way in processes of its own; what they report, added up."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    flags = {"JAX_COMPILATION_CACHE_DIR": str(folder / "xla")}
    started, reports = time.perf_counter(), []
    for i, calls in enumerate(processes_of(way, configs)):
        work = folder / f"work{i}.json"
        work.write_text(json.dumps({"kind": kind, "calls": calls}))
        command = [sys.executable, __file__, f"--work={work}"]
        done = subprocess.run(command, env=os.environ | flags, capture_output=True)
        if done.returncode:
            raise SystemExit(done.stderr.decode())
        reports.append(json.loads(done.stdout.splitlines()[-1]))
    found = {name: sum(one[name] for one in reports) for name in reports[0]}
    found["peak_mb"] = max(one["peak_mb"] for one in reports)
    return {**found, "wall_seconds": time.perf_counter() - started}


def work(path: pathlib.Path) -> None:
    """Does what a work file says and prints a report: one process of a way."""
    import jax

    from tljax.cli import crew_start
    from tljax.cli.finetune import Member, finetune
    from tljax.cli.models import adopt_architecture
    from tljax.settings import FinetuneSettings, from_config

    counts = {"compilations": 0, "loads": 0}

    def listen(event: str, seconds: float, **facts) -> None:
        counts["compilations"] += event == "/jax/core/compile/backend_compile_duration"

    def load(*args):
        counts["loads"] += 1
        return load_source_params(*args)

    jax.monitoring.register_event_duration_secs_listener(listen)
    load_source_params = crew_start.load_source_params
    crew_start.load_source_params = load
    job, before = json.loads(path.read_text()), _resident_mb()
    started, numbers = time.perf_counter(), itertools.count()
    for configs in job["calls"]:
        if job["kind"] == "probe":
            _probe(configs)
            continue
        runs = [from_config(FinetuneSettings, one) for one in configs]
        members = [
            Member(adopt_architecture(one, ()), path.with_suffix("") / str(number))
            for one, number in zip(runs, numbers, strict=False)
        ]
        finetune(members, populations=path.with_suffix("") / "populations")
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print()
    print(json.dumps({"seconds": seconds, "peak_mb": peak - before, **counts}))


def _resident_mb() -> float:
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def _probe(configs: list[dict]) -> None:
    """Features of all members' items and of the test split once, then the fits."""
    import numpy as np

    from tljax.cli.embed import tokens_of
    from tljax.cli.models import open_model
    from tljax.data.labelled import nested_subset
    from tljax.evaluate.features import pooled_features
    from tljax.evaluate.probe import fit_probe

    task = configs[0]["task"]
    model, source = open_model(URI), open_source(task["source"])
    items = list(source.examples("train"))
    classes = sorted({one.label for one in items})
    labels = np.array([classes.index(one.label) for one in items])
    subsets = [
        nested_subset(labels, task["n"], one["seed"], classes) for one in configs
    ]
    used = np.unique(np.concatenate(subsets))
    test = list(source.examples("test")) if task["score_test"] else items[:8]
    texts = [items[i].text for i in used] + [one.text for one in test]
    features = pooled_features(
        model.settings, model.params, tokens_of(model, texts), poolings=[POOLING],
        layers=[LAYER],
    )[:, 0, 0]  # fmt: skip
    for subset in subsets:
        places = np.searchsorted(used, subset)
        fitted = fit_probe(features[places], labels[subset], len(classes))
        fitted.probabilities(features[len(used) :])


def sentences(path: pathlib.Path) -> str:
    """A CSV of 7,500 short reviews, beside it a TSV for the peer; returns its URI.

    A file's test split is a fifth of it: 1,500.
    """
    parts = ("train", "validation", "test")
    rows = [one for part in parts for one in open_source(TASK).examples(part)]
    texts = {" ".join(one.text.split()): one.label for one in rows}
    pairs = [(label, text) for text, label in texts.items()]
    pairs = random.Random(0).sample(pairs, 7500)
    with path.open("w", encoding="utf-8") as file:
        file.write("label,text\n")
        for label, text in pairs:
            quoted = text.replace('"', '""')
            file.write(f'{label},"{quoted}"\n')
    lines = "\n".join("\t".join(pair) for pair in pairs)
    path.with_suffix(".tsv").write_text(lines + "\n", encoding="utf-8")
    return f"csv:{path}?text=text&label=label"


def peer_seconds(given, folder: pathlib.Path, section: Section) -> dict:
    """Of the peer's runs, on the same sentences with our run's tokenizer."""
    labels, epochs = (8, 1) if given.small else (section.labels, section.epochs)
    flags = {
        "data": folder / "sentences.tsv",
        "tokenizer": folder / "peer-together" / "work0" / "0" / "tokenizer.json",
        "labels": labels,
        "test": 8 if given.small else 1500,
        "runs": 2 if given.small else section.members,
        "epochs": int(epochs),
        "dtype": given.peer_dtype,
    }
    command = [given.python, given.peers / "fine_tune.py"]
    command += [f"--{name}={value}" for name, value in flags.items()]
    done = subprocess.run(list(map(str, command)), capture_output=True, check=True)
    return {"seconds": json.loads(done.stdout.splitlines()[-1])["seconds"]}


def main() -> None:
    """Measures in turns, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--workdir", type=pathlib.Path, default="runs/populations")
    parser.add_argument("--peers", type=pathlib.Path)
    parser.add_argument("--python", type=pathlib.Path)
    parser.add_argument("--peer-dtype", default="float32")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--work", type=pathlib.Path, help="of a process of a way")
    given = parser.parse_args()
    if given.work:
        work(given.work)
        return
    names = given.only.split(",") if given.only else list(SECTIONS)
    if unknown := set(names) - set(SECTIONS):
        raise SystemExit(f"no section {unknown}; there are: {', '.join(SECTIONS)}")
    if not given.only and not given.peers:
        names.remove("peer")
    folder = given.workdir.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    results = {}
    for name in names:
        section = SECTIONS[name]
        source = sentences(folder / "sentences.csv") if name == "peer" else TASK
        configs = member_configs(section, source, given.small)
        results[name] = {}
        for way in section.ways * given.turns:
            found = measure(name, way, configs, folder / f"{name}-{way}")
            results[name].setdefault(way, []).append(found)
            if name == "peer":
                found = peer_seconds(given, folder, section)
                results[name].setdefault("peer", []).append(found)
        (folder / "results.json").write_text(json.dumps(results, indent=1))
    _print(results)


def _print(results: dict) -> None:
    table = Table(
        "section", "way", "seconds", "/ together", "loads", "compiled", "peak, MB"
    )
    for name, ways in results.items():
        clock = "seconds" if name == "peer" else "wall_seconds"
        middle = {
            way: {key: statistics.median(one[key] for one in found) for key in found[0]}
            for way, found in ways.items()
        }
        for way, found in middle.items():
            ratio = found[clock] / middle["together"][clock]
            row = [name, way, f"{found[clock]:.1f}", f"{ratio:.2f}"]
            counted = ("loads", "compilations", "peak_mb")
            row += [f"{found[key]:.0f}" if key in found else "" for key in counted]
            table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main()
