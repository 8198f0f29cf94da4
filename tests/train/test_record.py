"""Records: what a run folder says, what a resume drops, which folder is refused."""

import json
import os
import pathlib
import resource
import struct
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

import tljax
from tljax.settings import InputError
from tljax.train import record

CONFIG = {"kind": "finetune", "seed": 1, "optim": {"lr_peak": 1e-3, "betas": (0.9, 1)}}


def test_a_new_folder_gets_its_config(tmp_path):
    folder = tmp_path / "runs" / "a"
    assert record.open_run(folder, CONFIG, "finetune") is False
    written = json.loads((folder / "config.json").read_text())
    assert written == json.loads(json.dumps(CONFIG))
    assert record.open_run(folder, CONFIG, "finetune") is False


def test_another_config_is_refused_and_its_keys_are_named(tmp_path):
    record.open_run(tmp_path, CONFIG, "finetune")
    before = (tmp_path / "config.json").read_bytes()
    other = CONFIG | {"optim": {"lr_peak": 2e-3, "betas": (0.9, 1), "more": "x"}}
    with pytest.raises(InputError) as caught:
        record.open_run(tmp_path, other, "finetune")
    assert "config.optim.lr_peak is 0.001 there, 0.002 asked" in str(caught.value)
    assert 'config.optim.more is "nothing" there, "x" asked' in str(caught.value)
    assert "seed" not in str(caught.value) and "\n" not in str(caught.value)
    assert (tmp_path / "config.json").read_bytes() == before


def test_a_file_is_no_run_folder(tmp_path):
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(InputError, match="notes is a file"):
        record.open_run(tmp_path / "notes", CONFIG, "finetune")


def test_a_run_is_finished_when_its_last_record_says_so(tmp_path):
    record.open_run(tmp_path, CONFIG, "finetune")
    with record.RunRecord(tmp_path) as records:
        records.append({"step": 4, "split": "train", "loss_nats": 0.5})
        assert not record.open_run(tmp_path, CONFIG, "finetune")
        records.finish(4, params_sha256="ab", accuracy=0.75)
    assert record.open_run(tmp_path, CONFIG, "finetune") is True
    assert record.read_metrics(tmp_path)[-1] == {
        "final": True,
        "step": 4,
        "params_sha256": "ab",
        "accuracy": 0.75,
    }


def test_a_record_is_on_disk_as_soon_as_it_is_appended(tmp_path):
    with record.RunRecord(tmp_path) as records:
        row = {"step": np.int32(3), "split": "validation", "loss_nats": jnp.float32(2)}
        records.append(row)
        records.flush()
        line = (tmp_path / "metrics.jsonl").read_text()
    assert line == '{"step": 3, "split": "validation", "loss_nats": 2.0}\n'


def test_what_is_not_finite_is_refused(tmp_path):
    with record.RunRecord(tmp_path) as records, pytest.raises(ValueError):
        records.append({"step": 1, "split": "train", "loss_nats": float("nan")})
    assert record.read_metrics(tmp_path) == []


def test_resuming_drops_what_came_after_the_checkpoint(tmp_path):
    def row(step, split="train"):
        return {"step": step, "split": split, "loss_nats": 1 / 3}

    unbroken = tmp_path / "unbroken"
    with record.RunRecord(unbroken) as records:
        for step in (2, 4, 6, 8):
            records.append(row(step))
    broken = tmp_path / "broken"
    with record.RunRecord(broken) as records:
        for step in (2, 4, 6):
            records.append(row(step))
    with open(broken / "metrics.jsonl", "a") as file:
        file.write('{"step": 8, "spl')  # what a kill leaves
    assert [r["step"] for r in record.read_metrics(broken)] == [2, 4, 6]
    with record.RunRecord(broken) as records:
        records.cut_back(4)
        assert [r["step"] for r in record.read_metrics(broken)] == [2, 4]
        for step in (6, 8):
            records.append(row(step))
    same = [(f / "metrics.jsonl").read_bytes() for f in (unbroken, broken)]
    assert same[0] == same[1]


def test_who_goes_on_says_the_last_record_anew(tmp_path):
    """It was written before the others of its population were stopped."""
    with record.RunRecord(tmp_path) as records:
        records.append({"step": 2, "split": "train", "loss_nats": 1.0})
        records.finish(2, "00")
        records.cut_back(4)
        records.finish(2, "00")
    assert [one.get("final") for one in record.read_metrics(tmp_path)] == [None, True]


def test_starting_anew_drops_every_record(tmp_path):
    with record.RunRecord(tmp_path) as records:
        records.append({"step": 1, "split": "train", "loss_nats": 1.0})
        records.cut_back(0)
    assert record.read_metrics(tmp_path) == []


def events_of(folder: pathlib.Path) -> list[bytes]:
    """The records of the TensorBoard files: length, checksum, bytes, checksum."""
    found = []
    for path in sorted(folder.glob("events.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            found.append(data[at + 12 : at + 12 + length])
            at += 16 + length
    return found


def test_numbers_go_to_tensorboard_beside(tmp_path):
    with record.RunRecord(tmp_path) as records:
        records.append({"step": 7, "split": "train", "loss_nats": 0.5, "note": "warm"})
    scalars = [event for event in events_of(tmp_path) if b"train/" in event]
    assert len(scalars) == 1
    assert b"train/loss_nats" in scalars[0]
    assert struct.pack("<f", 0.5) in scalars[0]


def test_a_full_disk_is_one_line(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with record.RunRecord(tmp_path) as records:
        records.append({"step": 1, "split": "train", "loss_nats": 0.5})
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        try:
            with pytest.raises(InputError, match="cannot write .*metrics.jsonl: "):
                records.append({"step": 2, "split": "train", "text": "x" * 100})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [r["step"] for r in record.read_metrics(tmp_path)] == [1]


def test_a_manifest_says_what_the_run_was_made_of(tmp_path):
    facts = record.manifest_facts(CONFIG)
    assert facts["versions"]["tljax"] == tljax.__version__
    assert facts["versions"]["numpy"] == np.__version__
    assert [device["platform"] for device in facts["devices"]] == ["cpu"] * 8
    assert (
        facts["config_sha256"] == record.manifest_facts(dict(CONFIG))["config_sha256"]
    )
    other = record.manifest_facts(CONFIG | {"seed": 2})
    assert other["config_sha256"] != facts["config_sha256"]
    assert other["code_sha256"] == facts["code_sha256"]
    record.RunRecord(tmp_path).write_manifest(facts)
    assert json.loads((tmp_path / "manifest.json").read_text()) == facts


def test_the_code_s_hash_changes_with_the_code(tmp_path, monkeypatch):
    for name, text in (("__init__.py", ""), ("b.py", "x = 1"), ("notes.txt", "a")):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(tljax, "__file__", str(tmp_path / "__init__.py"))
    first = record.code_sha256()
    (tmp_path / "notes.txt").write_text("b")
    assert record.code_sha256() == first
    (tmp_path / "b.py").write_text("x = 2")
    assert record.code_sha256() != first
    (tmp_path / "b.py").write_text("x = 1")
    (tmp_path / "b.py").rename(tmp_path / "c.py")
    assert record.code_sha256() != first


def test_reading_records_needs_no_jax():
    program = "import sys, tljax.train.record; sys.exit('jax' in sys.modules)"
    root = pathlib.Path(tljax.__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(root)}
    assert (
        subprocess.run([sys.executable, "-c", program], env=environment).returncode == 0
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "must be a JSON object"),
        ("{}", "has no model"),
        ('{"model": [1]}', r"model is \[1\]; it must be an object"),
        ('{"model": {}, "origin": "x"}', "origin is 'x'; it must be an object"),
        ('{"model": {}, "kind": ["a"]}', r"kind is \['a'\]; it must be a text"),
        ('{"model": {}, "init": {"source": 3}}', "init.source is 3; it must be a text"),
        ('{"model": {}, "parameters": "3"}', "parameters is '3'; it must be a whole"),
    ],
)
def test_a_record_of_another_kind_is_refused_by_file_and_key(text, said, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(InputError, match=f"config.json:? {said}"):
        record.read_record(path, "model")


def test_a_record_may_hold_more_and_null_where_a_run_began_from_nothing(tmp_path):
    whole = {"model": {"width": 8}, "init": None, "more": 1}
    record.write_json(tmp_path / "config.json", whole)
    assert record.read_record(tmp_path / "config.json", "model") == whole


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"{\n", "metrics.jsonl is damaged"),
        (b"\xff\n", "metrics.jsonl is damaged"),
        (b'{"step": 1}\n[]\n', "metrics.jsonl, line 2: not a record"),
        (b'{"step": "1"}\n', "metrics.jsonl, line 1: not a record"),
        (b"", "metrics.jsonl has no final record"),
        (b'{"step": 1}\n', "metrics.jsonl has no final record"),
    ],
)
def test_damaged_metrics_are_refused_and_the_file_is_named(text, said, tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(text)
    with pytest.raises(InputError, match=said):
        record.final_record(tmp_path)
