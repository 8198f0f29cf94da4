"""A sweep for TensorBoard's HParams tab: WORKDIR/tensorboard/, one run a trial.

tensorboard/          the experiment: all keys and the metric
tensorboard/0017/     what the trial set, its score, how it ended

A rebuild replaces the whole folder; the same trials give the same bytes.
"""

import contextlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tljax.report.sweep_records import Sweep, is_complete, load_sweep
from tljax.train.files import write_error

FILE = "events.out.tfevents.0.tljax"


def write_hparams(folder: Path | str) -> Path:
    """Rebuilds the event files of a sweep; `tensorboard --logdir` takes what it gives.

    Raises:
      InputError: a record is missing or broken, or the folder cannot be written.
    """
    sweep = load_sweep(folder)
    there = sweep.folder / "tensorboard"
    fresh = sweep.folder / ".tensorboard.new"
    try:
        shutil.rmtree(fresh, ignore_errors=True)  # what a kill left
        _write_all(sweep, fresh)
        shutil.rmtree(there, ignore_errors=True)
        fresh.rename(there)
    except OSError as error:
        with contextlib.suppress(OSError):
            shutil.rmtree(fresh)
        raise write_error(there, error) from error
    return there


def _write_all(sweep: Sweep, folder: Path) -> None:
    from tensorboardX.summary import hparams, scalar

    metric, space = sweep.plan["metric"], sweep.space
    first = {key: _holdable(one, _values(one)[0]) for key, one in space.items()}
    experiment, _, _ = hparams(first, {metric: 0.0})  # tells names and types
    _write_events(folder, [experiment])
    for row in sweep.trials:
        if row["state"] in ("running", "waiting"):
            continue
        params = {key: _holdable(space[key], v) for key, v in row["params"].items()}
        _, start, end = hparams(params, {})
        events = [start]
        if is_complete(row):
            events.append(scalar(metric, sum(row["values"]) / len(row["values"])))
        else:
            end = _failure()
        _write_events(folder / f"{row['number']:04d}", [*events, end])


def _values(one: Mapping[str, Any]) -> list[Any]:
    return one["choices"] if one["kind"] == "choice" else [one["low"]]


def _holdable(one: Mapping[str, Any], value: Any) -> bool | float | str:
    """A value as HParams can hold it: of one type a key, text where its choices mix."""
    types = {float if type(v) is int else type(v) for v in _values(one)}
    if types in ({bool}, {float}, {str}):
        return value
    return value if isinstance(value, str) else json.dumps(value)


def _failure() -> Any:
    """The end of a trial without a score: hparams() knows success alone."""
    from tensorboardX.proto.api_pb2 import Status
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData, SessionEndInfo
    from tensorboardX.proto.summary_pb2 import Summary, SummaryMetadata

    end = SessionEndInfo(status=Status.Value("STATUS_FAILURE"))
    content = HParamsPluginData(session_end_info=end).SerializeToString()
    plugin = SummaryMetadata.PluginData(plugin_name="hparams", content=content)
    tag = "_hparams_/session_end_info"
    value = Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=plugin))
    return Summary(value=[value])


def _write_events(folder: Path, summaries: Sequence[Any]) -> None:
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import RecordWriter

    folder.mkdir(parents=True)
    writer = RecordWriter(str(folder / FILE))
    # No clock: equal trials, equal bytes. Readers take the version from the first.
    for event in (
        Event(file_version="brain.Event:2"),
        *(Event(summary=summary) for summary in summaries),
    ):
        writer.write(event.SerializeToString())
    writer.close()
