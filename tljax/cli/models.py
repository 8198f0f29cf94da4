"""The model that a --model=URI or an init.source names: settings, weights, tokenizer.

    runs/lm             a run folder, or what `tljax import` wrote
    hf: gguf: pkg:      other people's, read at once

All verbs that use a model open it here.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import numpy as np

from tljax.cli import parts
from tljax.data.tokenizer import Tokenizer
from tljax.model import heads, transformer
from tljax.pretrained.checkpoint import union_of_ends
from tljax.pretrained.families import family_of, read_settings
from tljax.pretrained.sources import is_uri, open_pretrained
from tljax.pretrained.tree import Line, read_params
from tljax.settings import (
    InitSettings,
    InputError,
    ModelSettings,
    TransferSettings,
    from_config,
)
from tljax.train.checkpoint import load_params, params_sha256, params_shapes
from tljax.train.files import read_json
from tljax.train.record import early_end, final_record, is_finished, read_record
from tljax.transfer.method import METHODS, merge, split
from tljax.transfer.transplant import flat

RUN_KEYS = ("dropout", "scan_layers", "dtype", "flash", "remat")  # no architecture
WHOLE = TransferSettings()  # all weights moved, or are merged

# place(path, value) puts a leaf where it belongs, e.g. on its devices, as it is read
Place = Callable[[str, np.ndarray], Any]


@dataclasses.dataclass(frozen=True)
class Model:
    """A model, ready to compute.

    Attributes:
      name: as the user gave it.
      settings: its architecture.
      params: its tree, float32; of a fine-tuned run, with its head.
      tokenizer: its own; None if a checkpoint has none.
      ledger: of a foreign checkpoint: what became of every tensor; () of a run.
      origin: its config.json of Transformers' kind; {} of a run of ours.
      sentence: how it makes sentence vectors: pooling, normalize, length; {} if it
        does not say.
      frozen: what `params` does not hold, where they were not merged; else {}.
      transfer: how the two are composed.
    """

    name: str
    settings: ModelSettings
    params: dict
    tokenizer: Tokenizer | None
    ledger: tuple[Line, ...] = ()
    origin: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    sentence: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    frozen: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    transfer: TransferSettings = WHOLE

    @property
    def end_ids(self) -> list[int]:
        """All tokens that end a text: the tokenizer's, and those its origin names."""
        ends = union_of_ends(
            self.needs_tokenizer().end_id,
            self.origin.get("eos_token_id"),
            where=self.name,
        )
        rows = transformer.output_matrix(self.params).shape[0]
        return [one for one in np.atleast_1d(ends).tolist() if one < rows]

    def needs_tokenizer(self) -> Tokenizer:
        """The tokenizer. Raises: InputError if there is none."""
        if self.tokenizer is None:
            raise InputError(
                f"{self.name} has no tokenizer.json; put the model's beside its weights"
            )
        return self.tokenizer


def open_model(
    name: str,
    *,
    dtype: str | None = None,
    place: Place = lambda path, value: value,
    composed: bool = False,
) -> Model:
    """Opens and reads a model.

    Args:
      name: run folder or URI.
      dtype: of its products; None = as its settings say.
      place: puts a leaf of a foreign checkpoint where it belongs, as it is read.
      composed: whether the caller composes params, frozen and transfer itself; then a
        run whose method cannot be merged is no error.

    Raises:
      InputError: nothing there, or nothing that can be used; one line says what.
    """
    model = _read_foreign(name, place) if is_uri(name) else _read_run(name, composed)
    if dtype is None:
        return model
    field = ModelSettings.__dataclass_fields__["dtype"]
    if dtype not in field.metadata["choices"]:
        allowed = ", ".join(field.metadata["choices"])
        raise InputError(f"--dtype={dtype} is not known; allowed: {allowed}")
    settings = dataclasses.replace(model.settings, dtype=dtype)
    return dataclasses.replace(model, settings=settings)


def _read_foreign(uri: str, place) -> Model:
    checkpoint = open_pretrained(uri)
    family = family_of(checkpoint.config, checkpoint.where)
    settings = read_settings(checkpoint.config, checkpoint.where)
    tokenizer = parts.checkpoint_tokenizer(checkpoint)
    params, ledger = read_params(checkpoint, family, settings, place)
    return Model(
        uri,
        settings,
        params,
        tokenizer,
        ledger=tuple(ledger),
        origin=dict(checkpoint.config),
        sentence=dict(checkpoint.sentence),
    )


def _read_run(folder: str, composed: bool) -> Model:
    config, transfer = _run_config(folder), transfer_of(folder)
    path = pathlib.Path(folder) / "tokenizer.json"
    tokenizer = Tokenizer.load(path) if path.exists() else None
    settings, frozen = source_settings(folder), {}
    if composed and not METHODS[transfer.method].merges:
        params, frozen = load_own_params(folder), _base_params(folder)
        transfer = dataclasses.replace(transfer, frozen_layers=0)  # no stream is kept
    else:
        params, transfer = load_params_of(folder), WHOLE
    if tokenizer is not None:
        tokens = (frozen or params)["embedding"]["tokens"]
        _check_rows(folder, tokenizer, tokens.shape[0])
    return Model(
        folder,
        settings,
        params,
        tokenizer,
        origin=config.get("origin", {}),
        sentence=config.get("sentence", {}),
        frozen=frozen,
        transfer=transfer,
    )


def _run_config(folder: str) -> dict:
    config = read_record(parts.run_file(folder, "config.json"))
    if "model_type" in config:
        raise InputError(
            f"{folder} holds a checkpoint of Transformers' kind; name it hf:{folder}"
        )
    if "model" not in config:
        raise InputError(f"{folder} is no run of a model: its config.json has none")
    return config


def source_settings(source: str) -> ModelSettings:
    """The architecture of a run folder or of a checkpoint's URI; reads no weights.

    Raises:
      InputError: nothing there, or no architecture that can be built.
    """
    if is_uri(source):
        checkpoint = open_pretrained(source)
        return read_settings(checkpoint.config, checkpoint.where)
    where = f"{source}: config.model"
    settings = from_config(ModelSettings, _run_config(source)["model"], where)
    try:
        transformer.check(settings)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    return settings


def transfer_of(folder: str) -> TransferSettings:
    """What of a run's model it moved."""
    config = _run_config(folder).get("transfer", {})
    return from_config(TransferSettings, config, f"{folder}: config.transfer")


def _base_of(folder: str) -> str:
    """What a run began from."""
    config = _run_config(folder).get("init", {})
    return from_config(InitSettings, config, f"{folder}: config.init").source


def embedding_rows(source: str, tokenizer: Tokenizer) -> int:
    """Rows of a source's embedding, more than the tokenizer's tokens where padded.

    Raises:
      InputError: they are fewer than the tokenizer's tokens.
    """
    if is_uri(source):
        rows = open_pretrained(source).config["vocab_size"]
    else:
        shapes = params_shapes(parts.run_file(source, "params"))
        if "tokens" not in shapes.get("embedding", {}):  # it moved only a part
            return embedding_rows(_base_of(source), tokenizer)
        rows = shapes["embedding"]["tokens"][0]
    _check_rows(source, tokenizer, rows)
    return rows


def _check_rows(source: str, tokenizer: Tokenizer, rows: int) -> None:
    if tokenizer.text_vocab_size > rows:
        raise InputError(
            f"the tokenizer has {tokenizer.text_vocab_size} tokens, the embedding of"
            f" {source} {rows} rows; bring the tokenizer back that belongs to it"
        )


def architecture_differs(asked: ModelSettings, theirs: ModelSettings) -> list[str]:
    """'config.model.width=64 but 32 there' for what makes another architecture."""
    return [
        f"config.model.{name}={getattr(asked, name)} but {getattr(theirs, name)} there"
        for name in ModelSettings.__dataclass_fields__
        if name not in RUN_KEYS and getattr(asked, name) != getattr(theirs, name)
    ]


def adopt_architecture(settings: Any, overridden: Collection[str]) -> Any:
    """The settings of a run with the architecture of its init.source, if it has one.

    Args:
      settings: of a run; its config.model may be of another architecture.
      overridden: dotted keys that the command line set; those must agree.

    Raises:
      InputError: a key of config.model that the command line set differs.
    """
    if not settings.init.source:
        return settings
    theirs = source_settings(settings.init.source)
    differ = architecture_differs(settings.model, theirs)
    asked = [f"config.{key}=" for key in overridden]
    refused = [line for line in differ if line.startswith(tuple(asked))]
    if refused:
        raise InputError(
            f"{settings.init.source} has another architecture: {'; '.join(refused)}"
        )
    if not differ:
        return settings
    print(
        f"config.model is that of {settings.init.source}: {theirs.depth} layers of"
        f" width {theirs.width}"
    )
    own = {name: getattr(settings.model, name) for name in RUN_KEYS}
    return dataclasses.replace(settings, model=dataclasses.replace(theirs, **own))


def load_source_params(
    source: str, model: ModelSettings, place: Place = lambda path, value: value
) -> dict:
    """The parameters of a run or a checkpoint of the architecture asked for.

    Args:
      source: run folder or URI.
      model: the architecture.
      place: as in `open_model`.

    Raises:
      InputError: it has another architecture; the keys that differ are named.
    """
    differ = architecture_differs(model, source_settings(source))
    if differ:
        raise InputError(f"{source} has another architecture: {'; '.join(differ)}")
    return load_params_of(source, place)


def load_params_of(source: str, place: Place = lambda path, value: value) -> dict:
    """The whole parameters of a run folder or of a checkpoint's URI.

    Of a run that moved only a part, those of its own source and its own put together.
    """
    if is_uri(source):
        return _read_foreign(source, place).params
    params, transfer = load_own_params(source), transfer_of(source)
    if transfer == WHOLE:
        return params
    return merge(params, _base_params(source), transfer)


def _base_params(source: str) -> dict:
    """What a run that moved only a part began from, without a head.

    Raises:
      InputError: it is not what it was then.
    """
    base_source = _base_of(source)
    base = load_params_of(base_source)
    path = parts.run_file(source, "manifest.json")
    manifest = read_record(path, "init.params_sha256")
    if params_sha256(base) != manifest["init"]["params_sha256"]:
        raise InputError(
            f"{source} began with other weights than {base_source} has now; bring them"
            " back, or train again"
        )
    _check_shapes(source, base, WHOLE)
    for name in ("output", "head"):
        base.pop(name, None)
    return base


def classes_of(folder: str | pathlib.Path, head: Mapping[str, Any]) -> tuple[str, ...]:
    """The classes of a fine-tuned run, in the order of its head's columns.

    Raises:
      InputError: its classes.json does not list as many.
    """
    path = parts.run_file(folder, "classes.json")
    classes, columns = read_json(path), head["bias"].size
    if not isinstance(classes, list) or len(classes) != columns:
        raise InputError(
            f"{path} must list the {columns} classes of the head; bring it back"
        )
    return tuple(map(str, classes))


def load_own_params(folder: str) -> dict:
    """The parameters in a run's own folder: of one that moved only a part, that part.

    Raises:
      InputError: they are not whole, or not those that its config.json describes.
    """
    if is_finished(folder) and final_record(folder)["params_sha256"] is None:
        raise InputError(f"{folder} {early_end(final_record(folder))}; name another")
    params = load_params(parts.run_file(folder, "params"))
    _check_shapes(folder, params, transfer_of(folder))
    return params


def _check_shapes(folder: str, held: dict, transfer: TransferSettings) -> None:
    """Refuses parameters of other shapes than a run's config.json makes.

    The rows of the vocabulary and the classes of a head are as they are; a classifier
    keeps no output matrix.
    """
    settings = source_settings(folder)
    tokens = held.get("embedding", {}).get("tokens")
    rows = 1 if tokens is None else tokens.shape[0]

    def moving(key):
        params = transformer.init_params(settings, rows, key)
        if "head" in held:
            classes = held["head"]["bias"].shape[0]
            params["head"] = heads.init_classifier(settings.width, classes, key)
            if "output" not in held:
                params.pop("output", None)
        return split(params, transfer, key)[0]

    wanted = flat(jax.eval_shape(moving, jax.random.key(0)))
    there, asked = (
        {path: str(list(leaf.shape)) for path, leaf in leaves.items()}
        for leaves in (flat(held), wanted)
    )
    for path in sorted(there.keys() | asked.keys()):
        has, expects = there.get(path, "missing"), asked.get(path, "none")
        if has != expects:
            raise InputError(
                f"{folder}: its params have {path} {has}, its config.json expects"
                f" {expects}; bring the run's own files back"
            )
