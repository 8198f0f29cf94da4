"""Rows in ArrayRecord files as Examples, decoded when asked for and not before.

TFDS builder --as_data_source--> row (bytes, class numbers) --decode once--> Example
Imports tensorflow_datasets: only `sources` imports this file, and late.
"""

import contextlib
import importlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from tljax.data.splits import Example, StoredExamples, cut, cut_by_share, distinct
from tljax.settings import InputError, suggestion

Splits = Mapping[str, Sequence[Example]]

# Found by TFDS only after their package has been imported: glue, conll2003, c4, ...
_LEGACY_PACKAGES = ("text", "translate", "summarization", "question_answering")
# A larger train split is cut by position, so that opening it does not read it.
_ROWS_READ_TO_CUT = 200_000


def _examples(data: Any, decode: Callable[[Mapping], Example]) -> StoredExamples:
    """Rows of a random-access data source."""

    def read(rows: Sequence[int]) -> Iterator[Example]:
        return map(decode, data.__getitems__([int(row) for row in rows]))

    return StoredExamples(read, np.arange(len(data)))


def open_tfds(
    name: str, *, text: str | None, label: str | None, cache: Path
) -> tuple[Splits, str, str, list[str]]:
    """Returns the splits, title, licence and notes of a data set that TFDS knows.

    Args:
      name: TFDS's name, with a config where there are several, e.g. "glue/sst2".
      text: feature of the text; None = "text", or the only text there is.
      label: feature of the label; None = "label" if there is one.
      cache: folder; prepared files go to its subfolder `tfds`.

    Raises:
      InputError: unknown name or feature, or it cannot be downloaded or prepared.
    """
    builder = _builder(name, cache=cache)
    features = dict(builder.info.features.items())
    text = _feature(features, text, "text", tfds.features.Text, name)
    if text is None:
        raise InputError(
            f"tfds:{name}: say which feature is the text, ?text=NAME; there are:"
            f" {', '.join(features)}"
        )
    label = _feature(features, label, "label", tfds.features.ClassLabel, name)
    try:
        # TFDS reports on stdout, which is the caller's: predictions may go there.
        with contextlib.redirect_stdout(sys.stderr):
            builder.download_and_prepare(file_format="array_record")
    except (OSError, ImportError, tfds.download.DownloadError) as error:
        raise InputError(
            f"tfds:{name} cannot be prepared here: {_one_line(error)[:200]}"
        ) from error
    decode = _decoder(text, features.get(label), label)
    own = {
        split: _examples(builder.as_data_source(split=split), decode)
        for split in builder.info.splits
    }
    splits, notes = _three_splits(own, name)
    title = builder.info.description.strip().partition("\n")[0]
    licence = builder.info.redistribution_info.license or "see the origin"
    return splits, title, licence, notes


def _builder(name: str, *, cache: Path) -> Any:
    # Other forms make TFDS ask other hubs, or pass arguments to its builders.
    if not re.fullmatch(r"\w+(/[\w.+-]+)?(:\d+\.\d+\.\d+)?", name):
        raise InputError(f"tfds:{name} must read tfds:NAME, with /CONFIG or :VERSION")
    for package in (None, *_LEGACY_PACKAGES):
        if package is not None:
            importlib.import_module(f"tensorflow_datasets.{package}")
        try:
            return tfds.builder(name, data_dir=cache / "tfds")
        except tfds.core.DatasetNotFoundError as error:
            near = re.search(r"-> (\S+) \?", str(error))
        except (ValueError, AssertionError) as error:  # unknown config or version
            said = re.sub('^Failed to construct .*?}": ', "", _one_line(error))
            raise InputError(f"tfds:{name}: {said[:200]}") from error
    hint = f"; did you mean 'tfds:{near.group(1)}'?" if near else ""
    raise InputError(f"tfds:{name}: TensorFlow Datasets knows no such name{hint}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _feature(
    features: Mapping[str, Any], given: str | None, usual: str, kind: type, name: str
) -> str | None:
    """The feature asked for; else the usual one; else the only one of its kind."""
    if given is not None and given not in features:
        raise InputError(
            f"tfds:{name} has no feature {given!r}{suggestion(given, features)};"
            f" there are: {', '.join(features)}"
        )
    if given is not None or usual in features:
        return given or usual
    same_kind = [key for key, feature in features.items() if isinstance(feature, kind)]
    return same_kind[0] if len(same_kind) == 1 else None


def _decoder(
    text: str, classes: Any, label: str | None
) -> Callable[[Mapping[str, Any]], Example]:
    def decode(row: Mapping[str, Any]) -> Example:
        content = _string(row[text])
        return Example.of(content, _label_name(row, label, classes))

    return decode


def _string(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _label_name(row: Mapping[str, Any], label: str | None, classes: Any) -> str | None:
    if label is None:
        return None
    if not isinstance(classes, tfds.features.ClassLabel):
        return _string(row[label])
    number = int(row[label])
    return None if number < 0 else classes.int2str(number)  # TFDS hides labels as -1


def _three_splits(own: Splits, name: str) -> tuple[Splits, list[str]]:
    """Fills in what a data set lacks of train, validation and test, from its train.

    A test split with hidden labels counts as lacking. The validation split then is the
    test split, as in the literature, and a new validation split is cut from train.
    """
    if "train" not in own:
        raise InputError(f"tfds:{name} has no train split, only {', '.join(own)}")
    splits = {key: own[key] for key in ("train", "validation", "test") if key in own}
    notes = []
    labelled = splits["train"][0].label is not None
    if "test" in splits and labelled and splits["test"][0].label is None:
        del splits["test"]
        notes.append("the labels of its own test split are hidden")
    if "test" not in splits and "validation" in splits:
        splits["test"] = splits.pop("validation")
        notes.append("test is its own validation split")
    if len(splits) == 3:
        return splits, notes
    train = splits["train"]
    if len(train) <= _ROWS_READ_TO_CUT:
        kept, _ = distinct((row.text, row.label) for row in train)
        train = train.take(kept)
    if "test" not in splits:
        notes.append("validation and test are cut from its train split")
        return cut_by_share(train), notes
    notes.append("validation is cut from its train split")
    parts = cut(train, validation_items=max(1, round(0.1 * len(train))), test_items=0)
    return {**parts, "test": splits["test"]}, notes
