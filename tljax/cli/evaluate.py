"""tljax evaluate: how good a fine-tuned run is on a labelled file of the user's.

texts, labels -> class probabilities -> accuracy, macro-F1, ECE, each with n and error
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tljax.cli.command import Flag, number_lines, read_only_flags
from tljax.cli.flags import DTYPE
from tljax.cli.predict import RUN, TEXT, Classifier
from tljax.settings import InputError, suggestion

DESCRIPTION = """
Prints accuracy, macro-F1 and ECE (expected calibration error: how far what the run
believes lies from how often it is right), each ± one standard error, over all rows.

  tljax evaluate --run=runs/reviews --input=held_out.csv --text=review --label=stars

Rows that the run was trained on flatter it: give a file that it has not seen.
"""
FLAGS = (
    RUN,
    Flag("input", "FILE", ".csv or .jsonl", required=True),
    TEXT,
    Flag("label", "NAME", "column (or key) of the label; 'label' unless said"),
    DTYPE,
)


def run(argv: Sequence[str]) -> None:
    """Reads, predicts, measures, prints."""
    given = read_only_flags(
        argv, FLAGS, program="tljax evaluate", description=DESCRIPTION
    )
    if given is None:
        return
    from tljax.data.formats import open_table

    path = Path(given["input"])
    label = given.get("label", "label")
    rows = list(open_table(path, text=given.get("text", "text"), label=label))
    classifier = Classifier(Path(given["run"]), dtype=given.get("dtype"))
    labels_I = number_labels([row.label for row in rows], classifier.classes, path)
    probabilities_IC = classifier.probabilities([row.text for row in rows])
    from tljax.metrics.classification import full_record

    for line in number_lines(full_record(labels_I, probabilities_IC)):
        print(line)


def number_labels(
    labels: Sequence[str], classes: Sequence[str], path: Path
) -> np.ndarray:
    """int32 [I], indices into classes. Raises: InputError on a label not among them."""
    number_of = {name: number for number, name in enumerate(classes)}
    for label in sorted(set(labels)):
        if label not in number_of:
            raise InputError(
                f"{path} has the label {label!r}, which the run has not learnt; its"
                f" classes: {', '.join(classes)}{suggestion(label, classes)}"
            )
    return np.array([number_of[label] for label in labels], np.int32)
