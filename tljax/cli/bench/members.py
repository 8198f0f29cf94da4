"""A process of `tljax bench populations`: trains members, reports on its last line.

    python -m tljax.cli.bench.members WORK.json
    {"probes": false, "calls": [[config, config], ...]} -> {"seconds", "peak_mib"}

Each call is one population, in the order given; peak_mib is what the process grew by
at its largest, over what it had when its libraries were loaded.
"""

import itertools
import json
import pathlib
import resource
import sys
import time

import numpy as np

from tljax.cli.bench.resident import peak_bytes
from tljax.cli.embed import tokens_of
from tljax.cli.finetune import Member, finetune
from tljax.cli.models import adopt_architecture, open_model
from tljax.data.labelled import nested_subset
from tljax.data.sources import open_source
from tljax.evaluate.features import pooled_features
from tljax.evaluate.probe import fit_probe
from tljax.settings import FinetuneSettings, from_config

LAYER, POOLING = 18, "last"  # of the probe
SCORED = 1000  # test items of a probe


def main(path: pathlib.Path) -> None:
    """Does what the file says and prints the report."""
    work, before = json.loads(path.read_text()), _resident_mib()
    started = time.perf_counter()
    (_probe if work["probes"] else _train)(work["calls"], path.with_suffix(""))
    seconds = time.perf_counter() - started
    peak = peak_bytes() / 2**20
    print()
    print(json.dumps({"seconds": seconds, "peak_mib": peak - before}))


def _resident_mib() -> float:
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def _train(calls: list[list[dict]], folder: pathlib.Path) -> None:
    numbers = itertools.count()
    for configs in calls:
        runs = [from_config(FinetuneSettings, one) for one in configs]
        members = [
            Member(adopt_architecture(one, ()), folder / str(number))
            for one, number in zip(runs, numbers, strict=False)
        ]
        finetune(members, populations=folder / "populations")


def _probe(calls: list[list[dict]], folder: pathlib.Path) -> None:
    """Per call features of all members' items and of test items once, then fits."""
    for configs in calls:
        model = open_model(configs[0]["init"]["source"])
        task = configs[0]["task"]
        source = open_source(task["source"])
        items = list(source.examples("train"))
        classes = sorted({one.label for one in items})
        labels = np.array([classes.index(one.label) for one in items])
        subsets = [
            nested_subset(labels, task["n"], one["seed"], classes) for one in configs
        ]
        used = np.unique(np.concatenate(subsets))
        test = list(itertools.islice(source.examples("test"), SCORED))
        texts = [items[i].text for i in used] + [one.text for one in test]
        features = pooled_features(
            model.settings, model.params, tokens_of(model, texts), poolings=[POOLING],
            layers=[LAYER],
        )[:, 0, 0]  # fmt: skip
        for subset in subsets:
            places = np.searchsorted(used, subset)
            fitted = fit_probe(features[places], labels[subset], len(classes))
            fitted.probabilities(features[len(used) :])


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
