"""tljax predict: a fine-tuned run labels the texts of a file, in their order.

    texts -> tokens -> class probabilities -> {"label", "probabilities": {class: p}}

Output is written whole or not at all; the run and the input are only read.
"""

import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tljax.cli.command import Flag, check_file, read_only_flags
from tljax.cli.flags import DTYPE
from tljax.settings import FinetuneSettings, InputError, from_config

DESCRIPTION = """
Labels every text of --input and writes one row each, in the same order.

  tljax predict --run=runs/reviews --input=new.csv --text=review --output=labels.csv
  tail -n 20 notes.txt | tljax predict --run=runs/reviews --input=- --output=-

A .jsonl output has lines {"label": ..., "probabilities": {class: p}}; a .csv output
has the columns label,p_CLASS,... ; '-' writes JSONL to the terminal.
"""
RUN = Flag("run", "DIR", "folder of a fine-tuning run that has ended", required=True)
TEXT = Flag("text", "NAME", "column (or key) of the text; 'text' unless said")
FLAGS = (
    RUN,
    Flag(
        "input",
        "FILE",
        ".csv or .jsonl; .txt or '-' (stdin): one text a line",
        required=True,
    ),
    Flag("output", "FILE", ".csv or .jsonl; '-' = stdout, as JSONL", required=True),
    TEXT,
    DTYPE,
)
PROBABILITY_DIGITS = 6
CHUNK = 2_000  # texts tokenised and scored at a time: bounds memory, moves the bar


def run(argv: Sequence[str]) -> None:
    """Reads, predicts, writes."""
    flags = read_only_flags(
        argv, FLAGS, program="tljax predict", description=DESCRIPTION
    )
    if flags is None:
        return
    _check_output(flags["output"], flags["input"])
    texts = read_texts(flags["input"], flags.get("text"))
    classifier = Classifier(Path(flags["run"]), dtype=flags.get("dtype"))
    probabilities_IC = classifier.probabilities(texts)
    suffix = Path(flags["output"]).suffix.lower()
    write = csv_text if suffix == ".csv" else jsonl_text
    text = write(probabilities_IC, classifier.classes)
    if flags["output"] == "-":
        sys.stdout.write(text)
    else:
        from tljax.train.files import write_text

        write_text(flags["output"], text)


class Classifier:
    """A fine-tuning run that has ended, ready to answer; imports JAX when made.

    Args:
      folder: the run's.
      dtype: of products; None = as it was trained. In bfloat16 probabilities may be
        some thousandths off, and a text at .5 go the other way.

    Raises:
      InputError: it is no run, not one of fine-tuning, or has not ended.
    """

    def __init__(self, folder: Path, *, dtype: str | None = None):
        from tljax.cli import parts
        from tljax.cli.models import classes_of, open_model
        from tljax.train.record import read_record

        config = read_record(parts.run_file(folder, "config.json"))
        kind = config.get("kind")
        if kind != "finetune":
            raise InputError(
                f"{folder} is not a fine-tuning run (config.kind is {kind!r}); give"
                " the folder of a run that learnt from labels"
            )
        where = f"{folder}: config"
        self.settings = from_config(FinetuneSettings, config, where)
        model = open_model(str(folder), dtype=dtype, composed=True)
        self.classes = classes_of(folder, model.params["head"])
        self._tokenizer = model.needs_tokenizer()
        self._model = model
        parts.prepare_devices()

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """float64 [I, C], rows in the order of texts, columns in that of `classes`."""
        from tljax.evaluate.classification import Scorer
        from tljax.train.progress import Progress

        settings, length = self.settings, self.settings.task.length
        model = self._model
        chunks = [texts[at : at + CHUNK] for at in range(0, len(texts), CHUNK)]
        sets = [self._labelled(chunk) for chunk in chunks]
        pooling = settings.head.pooling
        scorer = Scorer(model.settings, pooling, length, sets, model.transfer)
        found, tokens = [], 0

        def score(one):
            planned = scorer.plan(one)
            return scorer.probabilities(model.params, planned, len(one), model.frozen)

        if len(sets) == 1:
            return score(sets[0])
        with Progress("predict", len(texts)) as progress:
            for one in sets:
                found.append(score(one))
                tokens += int(one.lengths.sum())
                progress.update(sum(map(len, found)), tokens=tokens)
        return np.concatenate(found)

    def _labelled(self, texts: Sequence[str]):
        """The texts as a set whose labels nobody reads."""
        from tljax.data.labelled import LabelledSet
        from tljax.transfer.method import prompt_places

        empty = np.array([self._tokenizer.end_id], np.int32)
        length = self.settings.task.length
        blank = sum(not text.strip() for text in texts)
        if blank:
            print(
                f"{blank} of {len(texts)} texts are empty: what is said of them comes"
                " from no word",
                file=sys.stderr,
            )
        found = LabelledSet(
            ids=tuple(map(str, range(len(texts)))),
            tokens=tuple(
                ids if len(ids) else empty
                for ids in self._tokenizer.encode(texts, special=True, longest=length)
            ),
            labels=np.zeros(len(texts), np.int32),
            classes=self.classes,
            texts=tuple(texts),
        )
        places = prompt_places(self.settings.transfer)
        return found.behind(places, self._tokenizer.end_id, length)


def jsonl_text(probabilities_IC: np.ndarray, classes: Sequence[str]) -> str:
    """One line {"label", "probabilities": {class: p}} an item."""
    lines = [
        json.dumps(
            {
                "label": classes[int(row.argmax())],
                "probabilities": dict(zip(classes, _rounded(row), strict=True)),
            },
            ensure_ascii=False,
        )
        for row in probabilities_IC
    ]
    return "".join(f"{line}\n" for line in lines)


def csv_text(probabilities_IC: np.ndarray, classes: Sequence[str]) -> str:
    """A header label,p_CLASS,... and one row an item."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["label", *(f"p_{name}" for name in classes)])
    for row in probabilities_IC:
        writer.writerow([classes[int(row.argmax())], *_rounded(row)])
    return file.getvalue()


def _rounded(row: np.ndarray) -> list[float]:
    return [round(float(p), PROBABILITY_DIGITS) for p in row]


def _check_output(output: str, given_input: str) -> None:
    """Refused before any work: a name that tells no format, a place, the input."""
    path = Path(output)
    if output == "-":
        return
    if path.resolve() == Path(given_input).resolve():
        raise InputError(f"--output={output} is the input; give another file")
    check_file(path, ".csv", ".jsonl", flag="output")


def read_texts(given: str, text: str | None) -> list[str]:
    """The texts of an --input: rows of a .csv or .jsonl, lines of a .txt or of stdin.

    Raises:
      InputError: nothing there, or not as its name says.
    """
    lines = has_lines(given)
    if lines and text is not None:
        raise InputError(f"--text names a column; --input={given} has one text a line")
    if given == "-":
        return _read_lines(sys.stdin.buffer.read(), "stdin")
    if lines:
        path = Path(given)
        if not path.is_file():
            raise InputError(f"--input={given} does not exist")
        return _read_lines(path.read_bytes(), given)
    from tljax.data.formats import open_table

    rows = open_table(Path(given), text=text or "text", label=None)
    return [row.text for row in rows]


def has_lines(given: str) -> bool:
    """Whether an --input has a text a line: a .txt, or '-', standard input."""
    return given == "-" or given.endswith(".txt")


def _read_lines(data: bytes, where: str) -> list[str]:
    """Lines; an empty line is an empty text."""
    try:
        lines = data.decode("utf-8").removeprefix("\ufeff").split("\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{where}, line {line}: not UTF-8; convert it first"
        ) from error
    if not lines[-1]:
        lines.pop()
    if not lines:
        raise InputError(f"{where} is empty; give one text a line")
    return [line.removesuffix("\r") for line in lines]
