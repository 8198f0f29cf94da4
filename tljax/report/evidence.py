"""The evidence behind the answer: choices, learning curves, calibration, test items."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tljax.report import curves, figures, records
from tljax.report.disagreements import Disagreement, find_disagreements
from tljax.report.drawing import arm_order
from tljax.report.markup import (
    arm_html,
    escape,
    labels,
    legend,
    panels,
    percent,
    section,
    table,
    wide_figure,
)

Answers = Mapping[records.Run, records.Predictions]
SHOWN_CHARACTERS = 600  # of a test item's text


def size_title(n: int) -> str:
    """What stands above a panel; n = 0 asks for all labels, however many."""
    return f"n = {n:,}" if n else "all labels"


def learning_html(all_runs: Sequence[records.Run]) -> str:
    """Training and validation curves of the arms, a row of panels for each n."""
    sizes = sorted({r.n for r in all_runs if r.trained})
    drawn, arms = [], set()
    for n in sizes:
        runs = [run for run in all_runs if run.n == n]
        for quantity in ("loss_nats", "accuracy"):
            found = curves.learning_curves(runs, quantity=quantity)
            if found.bands:
                arms |= {arm for arm, _ in found.bands}
                drawn.append(
                    figures.learning_curve_svg(
                        found.bands,
                        title=size_title(n),
                        quantity=quantity,
                        unit=found.unit,
                    )
                )
    if not drawn:
        return ""
    caption = "Validation loss that rises while training loss falls is over-fitting."
    if len({run.seed for run in all_runs}) > 1:
        caption = (
            "Mean over seeds; the band is one standard deviation between seeds, up and"
            f" down. {caption}"
        )
    key = legend(arm_order(list(arms)), splits=True)
    return section("Learning curves", panels(drawn, caption, legend_html=key))


def choices_html(experiment: records.Experiment) -> str:
    """Rate, epochs and layer decay of each arm and n, and how they were chosen."""
    tuning = records.load_tuning(experiment.folder)
    rows = []
    trained = [run for run in experiment.runs if run.trained]
    first = {(run.arm, run.n): run for run in reversed(trained)}
    for arm in arm_order(sorted({arm for arm, _ in first})):
        for n in sorted(n for other, n in first if other == arm):
            config = records.load_json(first[arm, n].folder / "config.json")
            optim = config["optim"]
            chosen = (optim["lr_peak"], config["epochs"], optim["layer_decay"])
            row = [arm_html(arm), f"{n:,}", *(f"{value:g}" for value in chosen)]
            rows.append([*row, _tried(tuning.get(arm), n)])
    probes = [run for run in experiment.runs if not run.trained and run.seed == 0]
    notes = [line for run in probes if (line := _probe_note(run))]
    head = ["", "n", "Learning rate", "Epochs", "Layer decay", "Chosen as"]
    note = (
        "Chosen on validation items, on subsets and seeds of tuning’s own; a size that"
        " was not tuned takes the choice of the nearest."
        if tuning
        else "Taken from the config (tuned); nothing was tuned in this run."
    )
    note = " ".join([note, *notes])
    return section("Choices", table(head, rows), f'<p class="note">{note}</p>')


def _probe_note(run: records.Run) -> str:
    """What a probe of other people's model reads; '' of any other run."""
    config = records.load_json(run.folder / "config.json")
    if config.get("kind") != "probe":
        return ""
    return (
        f"{arm_html(run.arm)} at {labels(run.n)}: a probe on"
        f" {escape(config['source'])},"
        f" layer {config['layer']}, pooling {escape(config['pooling'])}."
    )


def _tried(sizes: Mapping[str, Sequence[Mapping[str, Any]]] | None, n: int) -> str:
    """'best of 6 at n = 100: 61.0 % (next 60.5 %)', of the tuned size nearest to n."""
    if not sizes:
        return "given"
    size = min(map(int, sizes), key=lambda size: abs(math.log(size / n)))
    best, *others = (point["validation_accuracy"] for point in sizes[str(size)])
    following = f" (next {percent(others[0])})" if others else ""
    return f"best of {1 + len(others)} at {labels(size)}: {percent(best)}{following}"


def pretraining_html(folder: Path) -> str:
    """Loss of a pre-training run, with its bits per byte of held-out text."""
    return _language_html(
        folder, "Pre-training", "Next-word prediction on unlabelled text."
    )


def adaptation_html(folder: Path | None) -> str:
    """The same of its continuation on the task's text; '' if there was none."""
    if folder is None:
        return ""
    caption = (
        "Next-word prediction goes on, on the task’s own training text without its"
        " labels; fine-tuning of the transfer arm starts from its end."
    )
    return _language_html(folder, "Adaptation to the task’s text", caption)


def _language_html(folder: Path, title: str, caption: str) -> str:
    metrics = records.load_metrics(folder)
    bands = curves.pretraining_curves(metrics)
    if not bands:
        return ""
    bits = metrics[-1].get("bits_per_byte")
    if bits:
        caption += (
            f" Held-out text in the end: {bits['value']:.3f} bits per byte (standard"
            f" error {bits['se']:.3f}) on {bits['documents']:,} documents of"
            f" {bits['bytes']:,} bytes."
        )
    return section(title, wide_figure(figures.pretraining_svg(bands), caption))


def calibration_html(answers: Answers) -> str:
    """Reliability diagrams, one panel for each n."""
    drawn = []
    for n in sorted({run.n for run in answers}):
        by_arm: dict[str, list[records.Predictions]] = {}
        for run, found in answers.items():
            if run.n == n:
                by_arm.setdefault(run.arm, []).append(found)
        bins = {arm: curves.reliability(found) for arm, found in by_arm.items()}
        drawn.append(figures.reliability_svg(bins, title=size_title(n)))
    caption = (
        "Test items by the probability of the predicted class, seeds pooled; a point’s"
        " area grows with its share of the answers (bins below 1 % are not drawn). On"
        " the dotted line confidence is right; below it the model is too sure. ECE:"
        " expected calibration error in percentage points, mean over seeds."
    )
    return section("Calibration", panels(drawn, caption))


def disagreements_html(answers: Answers, *, n: int) -> str:
    """Ten test items on which transfer and scratch disagree, chosen by a fixed rule."""
    found = find_disagreements(answers, n=n)
    if not found:
        return ""
    rule = (
        f"At n = {n:,}, the middle size: items that one arm has right and the other"
        " wrong with the same seed, most such seeds first, then the largest mean gap in"
        " the label’s probability. Nothing was picked by hand."
    )
    parts = [f'<p class="note">{rule}</p>']
    for right, wrong in (("transfer", "scratch"), ("scratch", "transfer")):
        items = [item for item in found if item.right == right]
        parts.append(f"<h3>{arm_html(right)} right, {arm_html(wrong)} wrong</h3>")
        if items:
            listed = "".join(_item(item, wrong=wrong) for item in items)
            parts.append(f'<ol class="items">{listed}</ol>')
        else:
            parts.append("<p>No such item.</p>")
    return section("Where the arms disagree", *parts)


def _item(item: Disagreement, *, wrong: str) -> str:
    text = item.text or f"(text not recorded; item {item.id})"
    if len(text) > SHOWN_CHARACTERS:
        text = text[:SHOWN_CHARACTERS].rsplit(" ", 1)[0] + " …"
    shares = ", ".join(
        f"{arm_html(arm)} {percent(item.probability[arm], digits=0)}"
        for arm in (item.right, wrong)
    )
    return (
        f'<li><blockquote>{escape(text)}</blockquote><p class="note">Label'
        f" <b>{escape(item.label)}</b>; {item.seeds} of {item.of} seeds; mean"
        f" probability of the label: {shares}</p></li>"
    )
