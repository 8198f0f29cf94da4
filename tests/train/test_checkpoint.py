"""Checkpoints give back what was saved, bit for bit, or say why not."""

import hashlib
import os
import resource
import shutil
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from tljax.settings import InputError
from tljax.train import checkpoint


def make_tree(seed):
    """Every kind of leaf a training state has, with a NaN's payload and a -0."""
    random = np.random.default_rng(seed)
    w = random.standard_normal((8, 16)).astype(np.float32)
    w.view(np.uint32)[0, :2] = 0x7FC01234, 0x80000000
    return {
        "params": {"w": jnp.asarray(w), "b": jnp.asarray(w[0], jnp.bfloat16)},
        "moments": (jnp.asarray(w * 2), [jnp.asarray(w[1])]),
        "step": jnp.int32(seed),
        "key": jax.random.key_data(jax.random.key(seed)),
        "rows": np.arange(3),
    }


def assert_same_bits(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


@pytest.fixture
def checkpoints(tmp_path):
    opened = checkpoint.Checkpoints(tmp_path / "checkpoints", kept=2)
    yield opened
    opened.close()


def test_what_is_restored_is_what_was_saved_bit_for_bit(checkpoints):
    checkpoints.save(7, make_tree(1), {"data": {"offset": 3}, "best": 0.1 + 0.2})
    checkpoints.wait()
    restored = checkpoints.restore(make_tree(2))
    assert_same_bits(restored.tree, make_tree(1))
    assert restored.extra == {"data": {"offset": 3}, "best": 0.1 + 0.2}
    assert restored.step == 7
    assert isinstance(restored.tree["rows"], np.ndarray)


def test_leaves_come_back_with_the_template_s_sharding(checkpoints):
    mesh = jax.make_mesh(
        (4, 2), ("a", "b"), axis_types=(jax.sharding.AxisType.Auto,) * 2
    )
    x = np.arange(32.0, dtype=np.float32).reshape(8, 4)
    saved = {"x": jax.device_put(x, NamedSharding(mesh, PartitionSpec("a", "b")))}
    checkpoints.save(1, saved, {})
    checkpoints.wait()
    for spec in (PartitionSpec("b", "a"), PartitionSpec(None), PartitionSpec("a", "b")):
        sharding = NamedSharding(mesh, spec)
        template = {"x": jax.ShapeDtypeStruct((8, 4), jnp.float32, sharding=sharding)}
        restored = checkpoints.restore(template).tree["x"]
        assert restored.sharding == sharding
        np.testing.assert_array_equal(restored, x)


def test_the_newest_are_kept(checkpoints):
    assert checkpoints.latest_step() is None
    for step in (2, 5, 9):
        checkpoints.save(step, make_tree(step), {"step": step})
    checkpoints.wait()
    assert checkpoints.latest_step() == 9
    assert sorted(p.name for p in checkpoints.folder.iterdir()) == ["5", "9"]
    assert checkpoints.restore(make_tree(0), step=5).extra == {"step": 5}
    with pytest.raises(InputError, match="no checkpoint of step 2"):
        checkpoints.restore(make_tree(0), step=2)


def test_the_newest_is_not_written_twice(checkpoints):
    for extra in ({"first": True}, {"first": False}):
        checkpoints.save(3, make_tree(1), extra)
    checkpoints.wait()
    assert checkpoints.restore(make_tree(1)).extra == {"first": True}


def test_training_may_go_on_in_the_same_memory_while_a_save_is_written(checkpoints):
    x = jnp.arange(1 << 20, dtype=jnp.float32)
    rows = np.arange(1 << 20)
    expected = {"x": np.array(x), "rows": rows.copy()}
    forget = jax.jit(lambda x: x * 0 - 1, donate_argnums=0)
    checkpoints.save(1, {"x": x, "rows": rows}, {})
    forget(x).block_until_ready()
    rows[:] = -1
    checkpoints.wait()
    assert_same_bits(checkpoints.restore(expected).tree, expected)


@pytest.mark.parametrize(
    ("template", "named"),
    [
        ({"w": np.zeros((2, 4), np.float32)}, r"w float32\[2,3\].*float32\[2,4\]"),
        ({"w": np.zeros((2, 3), np.float16)}, r"w float32\[2,3\].*float16\[2,3\]"),
        ({"v": np.zeros((2, 3), np.float32)}, r"v missing"),
        ({}, r"w float32\[2,3\].*expects none"),
    ],
)
def test_a_template_that_differs_is_refused(checkpoints, template, named):
    checkpoints.save(1, {"w": np.zeros((2, 3), np.float32)}, {})
    checkpoints.wait()
    with pytest.raises(InputError, match=named):
        checkpoints.restore(template)


KILLED = """
import os, signal, sys
import numpy as np
from tljax.train import checkpoint
checkpoints = checkpoint.Checkpoints(sys.argv[1], kept=2)
checkpoints.save(1, {"w": np.arange(5)}, {"good": True})
checkpoints.wait()
checkpoints.save(2, {"w": np.random.default_rng(0).standard_normal(4_000_000)}, {})
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_kill_cuts_off_is_never_seen_again(tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)])
    assert killed.returncode == -signal.SIGKILL
    left = {path.name for path in tmp_path.iterdir()}
    assert "1" in left and len(left) == 2 and "2" not in left, left
    checkpoints = checkpoint.Checkpoints(tmp_path, kept=2)
    assert checkpoints.latest_step() == 1
    restored = checkpoints.restore({"w": np.zeros(5, int)})
    assert_same_bits(restored.tree, {"w": np.arange(5)})
    checkpoints.save(2, {"w": np.arange(5)}, {})
    checkpoints.close()
    assert {path.name for path in tmp_path.iterdir()} == {"1", "2"}


@pytest.fixture
def small_disk():
    """No file may grow beyond 256 KiB: what a full disk does, without filling one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_disk")
def test_a_full_disk_is_one_line_and_the_last_checkpoint_survives(tmp_path):
    noise = np.random.default_rng(0).standard_normal(1 << 18)
    checkpoints = checkpoint.Checkpoints(tmp_path, kept=1)
    checkpoints.save(1, {"w": noise[:9]}, {})
    checkpoints.wait()
    with pytest.raises(InputError, match="File too large; that of step 1 is") as caught:
        checkpoints.save(2, {"w": noise}, {})
        checkpoints.wait()
    assert "\n" not in str(caught.value)
    checkpoints.close()
    again = checkpoint.Checkpoints(tmp_path, kept=1)
    assert again.latest_step() == 1
    assert_same_bits(again.restore({"w": noise[:9]}).tree, {"w": noise[:9]})
    again.close()


@pytest.mark.usefixtures("small_disk")
def test_parameters_survive_a_full_disk_too(tmp_path):
    noise = np.random.default_rng(0).standard_normal(1 << 18)
    checkpoint.save_params(tmp_path / "params", {"w": noise[:9]})
    with pytest.raises(InputError, match="File too large"):
        checkpoint.save_params(tmp_path / "params", {"w": noise})
    assert_same_bits(checkpoint.load_params(tmp_path / "params"), {"w": noise[:9]})
    assert [path.name for path in tmp_path.iterdir()] == ["params"]


def test_parameters_are_replaced_as_a_whole(tmp_path):
    first, second = make_tree(1)["params"], {"other": {"w": np.arange(4)}}
    with pytest.raises(InputError, match="does not exist"):
        checkpoint.load_params(tmp_path / "params")
    for tree in (first, second):
        checkpoint.save_params(tmp_path / "params", tree)
        read = checkpoint.load_params(tmp_path / "params")
        assert_same_bits(read, tree)
        assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(read))
    assert [path.name for path in tmp_path.iterdir()] == ["params"]


def test_parameters_are_there_whenever_the_kill_falls(tmp_path):
    checkpoint.save_params(tmp_path / "params", {"w": np.arange(4)})
    (tmp_path / "params").rename(tmp_path / "params.new")
    read = checkpoint.load_params(tmp_path / "params")
    assert_same_bits(read, {"w": np.arange(4)})


def test_the_hash_is_of_the_raw_bytes_sorted_by_path():
    a, b = np.arange(3, dtype=np.int32), np.float32([1.5])
    by_hand = hashlib.sha256(a.tobytes() + b.tobytes()).hexdigest()
    assert checkpoint.params_sha256({"x": {"b": b}, "a": a}) == by_hand
    assert checkpoint.params_sha256({"a": jnp.asarray(a), "x": {"b": b}}) == by_hand
    assert checkpoint.params_sha256({"a": a, "x": {"b": -b}}) != by_hand
    row = [np.int32(i) for i in range(11)]  # by path, "10" comes before "2"
    order = b"".join(row[i].tobytes() for i in (0, 1, 10, 2, 3, 4, 5, 6, 7, 8, 9))
    assert checkpoint.params_sha256(row) == hashlib.sha256(order).hexdigest()


@pytest.mark.parametrize("damage", ["file", "empty", "_METADATA", "manifest", "data"])
def test_damaged_parameters_are_refused_and_the_folder_is_named(damage, tmp_path):
    folder = tmp_path / "params"
    checkpoint.save_params(folder, {"w": np.arange(999, dtype=np.float32)})
    if damage in ("file", "empty"):
        shutil.rmtree(folder)
        folder.mkdir() if damage == "empty" else folder.write_text("x")
    elif damage == "data":
        for path in folder.glob("ocdbt.process_0/d/*"):
            os.truncate(path, 10)
    else:
        (folder / {"manifest": "manifest.ocdbt"}.get(damage, damage)).unlink()
    with pytest.raises(InputError, match="params holds no whole parameters") as caught:
        checkpoint.load_params(folder)
    assert len(str(caught.value)) < len(str(folder)) + 200
    if damage == "data":
        assert '"w/' in str(caught.value)
    else:
        with pytest.raises(InputError, match="params holds no whole parameters"):
            checkpoint.params_shapes(folder)
