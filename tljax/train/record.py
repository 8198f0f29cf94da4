"""The run folder: what a run was asked, what it was made of, what it saw.

    config.json   manifest.json   metrics.jsonl   events.* (TensorBoard)

Records, not prints: reports read only these. Files are written whole (a new file, then
a rename), or, metrics.jsonl, line by line. Imports no JAX, so that reports may read.
"""

import errno
import hashlib
import importlib.metadata
import json
import numbers
import os
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import tljax
from tljax.settings import InputError
from tljax.train.files import (
    canonical_json,
    read_json,
    sha256_of,
    write_error,
    write_json,
    write_text,
)

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
PACKAGES += ("tokenizers", "tensorflow-datasets", "scikit-learn")
# What readers take for granted of config.json and manifest.json, where a key is there.
_KINDS = {
    "kind": str,
    "model": dict,
    "origin": dict,
    "sentence": dict,
    "init": dict | None,
    "init.source": str,
    "init.params_sha256": str,
    "data": dict,
    "versions": dict,
    "parameters": int,
    "parameters_moving": int,
}
_WORDS = {str: "a text", int: "a whole number"}


def read_record(path: pathlib.Path | str, *needed: str) -> dict[str, Any]:
    """Reads a run folder's config.json or manifest.json.

    Args:
      path: of the file.
      needed: which of _KINDS must be there.

    Raises:
      InputError: it cannot be read, is no object, lacks a key or has another kind of
        value there; one line names file and key.
    """
    record = read_json(path)
    if not isinstance(record, dict):
        raise InputError(f"{path} must be a JSON object; bring the run's own back")
    for key, kind in _KINDS.items():
        there, value = True, record
        for name in key.split("."):
            there = isinstance(value, dict) and name in value
            value = value[name] if there else None
        if there and not isinstance(value, kind):
            wanted = _WORDS.get(kind, "an object")
            raise InputError(
                f"{path}: {key} is {value!r:.40}; it must be {wanted}: bring the run's"
                " own file back"
            )
        if key in needed and not there:
            raise InputError(f"{path} has no {key}; bring the run's own file back")
    return record


def read_metrics(folder: pathlib.Path | str) -> list[dict[str, Any]]:
    """The records of a run folder's metrics.jsonl, in order.

    A last line without its end is what a kill cut off, and is left out.

    Raises:
      InputError: the file cannot be read, or a line of it is no record.
    """
    path = pathlib.Path(folder) / "metrics.jsonl"
    if not path.exists():
        return []
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
        records = [json.loads(line) for line in lines]
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged: {error}; bring it back") from None
    for number, record in enumerate(records, start=1):
        if not isinstance(record, dict) or not isinstance(record.get("step"), int):
            raise InputError(
                f"{path}, line {number}: not a record with a step; bring it back"
            )
    return records


def final_record(folder: pathlib.Path | str) -> dict[str, Any]:
    """The last record of a run that has ended. Raises: InputError if it has not."""
    records = read_metrics(folder)
    if not records or records[-1].get("final") is not True:
        path = pathlib.Path(folder) / "metrics.jsonl"
        raise InputError(
            f"{path} has no final record: the run has not ended, or the file was"
            " damaged; train it to its end, or bring the file back"
        )
    return records[-1]


def early_end(final: Mapping[str, Any]) -> str:
    """How a run ended before its last step, from its last record; '' if it did not."""
    stopped = final.get("stopped")
    if not stopped:
        return ""
    reason = {
        "patience": "validations no longer got better",
        "pruned": "others were better by then",
        "not finite": "its loss or gradient was not finite; it has no parameters and"
        " predicts every class equally",
    }[stopped["reason"]]
    return f"ended after {stopped['step']} of {stopped['of_steps']} steps: {reason}"


def is_finished(folder: pathlib.Path | str) -> bool:
    """Whether the run wrote its last record."""
    records = read_metrics(folder)
    return bool(records) and records[-1].get("final") is True


def open_run(folder: pathlib.Path | str, config: Mapping[str, Any], kind: str) -> bool:
    """Takes a folder for a run of this config: a new one, or the run's own.

    Args:
      folder: made, with its config.json, if the run is new.
      config: `settings.to_dict` of what the run is asked to be.
      kind: 'pretrain', 'finetune' or another word for what writes here.

    Returns:
      Whether the run has ended; if so there is nothing left to do.

    Raises:
      InputError: the folder holds a run of another config; its keys that differ are
        named and nothing is written.
    """
    folder = pathlib.Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(
            f"{folder} is a file; give --workdir a folder for a {kind} run"
        )
    config = json.loads(canonical_json(config))
    path = folder / "config.json"
    if not path.exists():
        write_json(path, config)
        return False
    differ = list(differing_keys(read_json(path), config))
    if differ:
        more = f" and {len(differ) - 5} more" if len(differ) > 5 else ""
        raise InputError(
            f"{folder} holds a run of another config ({'; '.join(differ[:5])}{more});"
            f" give this {kind} run another --workdir, or those values"
        )
    return is_finished(folder)


def keep_data(folder: pathlib.Path | str, data: Mapping[str, Any]) -> None:
    """Keeps a new run's data hashes in its folder, or compares them with those there.

    Args:
      folder: of the run.
      data: {source: {what: hash or text}}, as the manifest will hold it.

    Raises:
      InputError: the rows are no longer those that the run began with.
    """
    path = pathlib.Path(folder) / "data.json"
    if not path.exists():
        write_json(path, data)
        return
    differ = list(differing_keys(read_json(path), data, "data"))
    if differ:
        raise InputError(
            f"{folder} began with other data ({'; '.join(differ[:3])}); bring it back,"
            " or give another --workdir"
        )


def differing_keys(there: Any, asked: Any, key: str = "config") -> Iterator[str]:
    """Yields 'config.a.b is 1 there, 2 asked' for every leaf that differs."""
    if isinstance(there, dict) and isinstance(asked, dict):
        for name in sorted(there.keys() | asked.keys()):
            missing = "nothing"
            yield from differing_keys(
                there.get(name, missing), asked.get(name, missing), f"{key}.{name}"
            )
    elif there != asked:
        yield f"{key} is {_short(there)} there, {_short(asked)} asked"


def _short(value: Any) -> str:
    text = canonical_json(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def manifest_facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """What every manifest holds of the program and the machine, whatever the run.

    Returns:
      versions {package: version}, code_sha256, config_sha256 and devices
      [{platform, kind}], one for each that JAX sees.
    """
    import jax  # here, so that who only reads records needs none

    versions = {"python": ".".join(map(str, sys.version_info[:3]))}
    versions["tljax"] = tljax.__version__
    versions |= {name: importlib.metadata.version(name) for name in PACKAGES}
    return {
        "versions": versions,
        "code_sha256": code_sha256(),
        "config_sha256": sha256_of(config),
        "devices": [
            {"platform": device.platform, "kind": device.device_kind}
            for device in jax.devices()
        ],
    }


def code_sha256() -> str:
    """Hex SHA-256 over tljax's own sources: relative path and text, sorted by path."""
    root = pathlib.Path(tljax.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py"), key=lambda path: path.as_posix()):
        text = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()} {len(text)}\n".encode())
        digest.update(text)
    return digest.hexdigest()


class RunRecord:
    """Writes the records of one run folder; use it as a context manager.

    A record of step k is appended before the checkpoint of step k is saved: what
    `cut_back` keeps is then exactly what the resumed run will not say again.
    """

    def __init__(self, folder: pathlib.Path | str):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._metrics = None
        self._events = None
        self._first_step = 0

    def write_manifest(self, facts: Mapping[str, Any]) -> None:
        """Writes manifest.json, whole."""
        write_json(self.folder / "manifest.json", facts)

    def cut_back(self, step: int) -> None:
        """Drops every record later than `step` (and a torn line), to go on from it.

        A last record goes too: what goes on has not ended.
        """
        self.close()
        kept = [
            r
            for r in read_metrics(self.folder)
            if r["step"] <= step and not r.get("final")
        ]
        lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in kept)
        write_text(self.folder / "metrics.jsonl", "".join(lines))
        self._first_step = step + 1

    def append(self, record: Mapping[str, Any]) -> None:
        """Appends one line to metrics.jsonl, and its numbers to the TensorBoard events.

        Args:
          record: "step" (optimizer steps done), "split" ('train', 'validation' or
            'test') and what was seen: finite numbers (Python's or numpy's), strings,
            lists, dicts; a name that begins with time_ for what a clock says.

        Raises:
          InputError: the disk is full.
          ValueError: a number is not finite.
        """
        self._write(record)
        if self._events is None:
            from tensorboardX import SummaryWriter  # only who trains needs it

            purge = {"purge_step": self._first_step} if self._first_step else {}
            self._events = SummaryWriter(str(self.folder), **purge)
        for name, value in record.items():
            if name != "step" and isinstance(value, numbers.Real):
                tag = f"{record['split']}/{name}"
                self._events.add_scalar(tag, float(value), record["step"])

    def finish(self, step: int, params_sha256: str | None, **values: Any) -> None:
        """Appends the last record, which says that the run has ended, and closes.

        Args:
          step: optimizer steps taken.
          params_sha256: of what it ended with; None = it left no parameters.
          **values: what else was found; "stopped", of `loop.train`, if it ended early
            (`early_end` says it in words).
        """
        self._write(
            {"final": True, "step": step, "params_sha256": params_sha256, **values}
        )
        self.close()

    def flush(self) -> None:
        """Makes sure that all records are on disk, before a checkpoint counts on it."""
        if self._metrics is not None:
            os.fsync(self._metrics.fileno())

    def close(self) -> None:
        """Closes the files; a later `append` opens them again."""
        for file in (self._metrics, self._events):
            if file is not None:
                file.close()
        self._metrics = self._events = None

    def __enter__(self) -> "RunRecord":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, record: Mapping[str, Any]) -> None:
        path = self.folder / "metrics.jsonl"
        text = json.dumps(record, ensure_ascii=False, allow_nan=False, default=_plain)
        line = (text + "\n").encode()
        try:
            if self._metrics is None:
                self._metrics = open(path, "ab", buffering=0)
            if self._metrics.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise write_error(path, error) from error


def _plain(value: Any) -> Any:
    """A numpy or JAX scalar as Python's own."""
    return value.item()
