"""TensorBoard's HParams, read back event by event."""

import struct

import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

from tljax.report.hparams import write_hparams


def read_events(folder):
    """The (tag, plugin data or number) of a folder's one event file."""
    (path,) = (p for p in folder.iterdir() if p.is_file())
    data, found = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        event, data = Event.FromString(data[12 : 12 + length]), data[16 + length :]
        for value in event.summary.value:
            plugin = value.metadata.plugin_data
            if plugin.plugin_name:
                assert plugin.plugin_name == "hparams"
                told = HParamsPluginData.FromString(plugin.content)
            else:
                told = value.simple_value
            found.append((value.tag, told))
    return found


def everything(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder): path.read_bytes() for path in files}


def test_a_trial_is_a_run_with_its_settings_and_score(sweep, tmp_path):
    rows = sweep.rows(4, 3)
    rows[3]["state"] = "running"
    there = write_hparams(sweep.write(tmp_path, rows))
    assert there == tmp_path / "tensorboard"
    assert sorted(p.name for p in there.iterdir() if p.is_dir()) == [
        "0000", "0001", "0002"
    ]  # fmt: skip
    ((tag, whole),) = read_events(there)
    assert tag == "_hparams_/experiment"
    assert [one.name for one in whole.experiment.hparam_infos] == [
        one["key"] for one in sweep.space
    ]
    (metric,) = whole.experiment.metric_infos
    assert metric.name.tag == "validation/accuracy"
    (_, start), (name, score), (_, end) = read_events(there / "0001")
    settings = start.session_start_info.hparams
    assert settings["optim.lr_peak"].number_value == rows[1]["params"]["optim.lr_peak"]
    assert settings["transfer.method"].string_value == "lora"
    assert settings["transfer.rank"].number_value == 2
    assert (name, score) == (metric.name.tag, pytest.approx(rows[1]["value"]))
    assert end.session_end_info.status == 1  # success
    full = read_events(there / "0000")[0][1].session_start_info.hparams
    assert "transfer.rank" not in full
    (_, _), (_, failed) = read_events(there / "0002")  # no score
    assert failed.session_end_info.status == 2  # failure


def test_a_rebuild_gives_the_same_bytes_and_drops_what_was_there(sweep, tmp_path):
    folder = sweep.write(tmp_path, sweep.rows(2, 3))
    there = write_hparams(folder)
    first = everything(there)
    (there / "0099").mkdir()
    (folder / ".tensorboard.new" / "0000").mkdir(parents=True)  # a kill's
    write_hparams(folder)
    assert everything(there) == first and not (there / "0099").exists()
    assert not (folder / ".tensorboard.new").exists()


def test_choices_of_mixed_types_are_text(sweep, tmp_path):
    space = [
        {"key": "a", "kind": "choice", "choices": [1, None, "x"]},
        {"key": "b", "kind": "choice", "choices": [0, 0.5]},
        {"key": "c", "kind": "choice", "choices": [False, True]},
    ]
    row = sweep.rows(1, 3)[0] | {"params": {"a": None, "b": 0.5, "c": True}}
    there = write_hparams(sweep.write(tmp_path, [row], space=space))
    ((_, whole),) = read_events(there)
    # of TensorBoard's DataType: 1 text, 2 truth, 3 number
    assert [one.type for one in whole.experiment.hparam_infos] == [1, 3, 2]
    found = read_events(there / "0000")[0][1].session_start_info.hparams
    assert found["a"].string_value == "null"
    assert found["b"].number_value == 0.5
    assert found["c"].bool_value is True
