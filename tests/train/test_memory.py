"""What a member needs is counted from shapes; how many fit follows from it."""

import types

import jax
import jax.numpy as jnp
import pytest

from tljax.settings import InputError
from tljax.train import memory, step

GB = 10**9


def floats(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def test_a_member_by_hand():
    """A weight, its two moments, gradient, direction: 5; an average and a best: 7."""
    weight = {"w": floats(3, 5)}
    moments, count = (weight, weight), jax.ShapeDtypeStruct((), jnp.int32)
    state = step.TrainState(weight, moments, count)
    assert memory.member_bytes(state, weight, keeps_best=False) == 5 * 60 + 4
    averaged = state._replace(average=weight)
    assert memory.member_bytes(averaged, weight, keeps_best=True) == 7 * 60 + 4


def loss(params, batch, key):
    h = batch["x"]
    for kernel in (batch["frozen"]["first"], params["w"], batch["frozen"]["last"]):
        h = jnp.sin(h @ kernel)
    return h.sum(), {}


def activations(rows, width):
    params = {"w": floats(width, width)}
    frozen = {"first": floats(8, width), "last": floats(width, 3)}
    batch = {"x": floats(rows, 8), "frozen": frozen}
    return memory.activation_bytes(loss, params, batch)


def test_activations_by_hand():
    """Kept: the input of w, and the cosines after w and after the last; no weight."""
    assert activations(rows=7, width=20) == 4 * 7 * (20 + 20 + 3)
    assert activations(rows=14, width=20) == 2 * activations(rows=7, width=20)


@pytest.mark.parametrize(
    ("free", "devices", "fit", "said"),
    [
        (40 * GB, 1, 6, ""),
        (5 * GB, 1, 4, "6 members need 6.00 GB, 5.00 GB are free: 4 are trained at a"),
        (2 * GB, 4, 4, "6 members need 6.00 GB, 8.00 GB are free: 4 are trained at a"),
        (2 * GB, 8, 6, ""),
    ],
)
def test_as_many_members_as_fit(free, devices, fit, said):
    found = memory.members_together(6, needed=GB, free=free, devices=devices)
    assert (
        found[0] == fit and found[1].startswith(said) and bool(found[1]) == bool(said)
    )


@pytest.mark.parametrize(("block", "fit"), [(2, 4), (3, 3), (6, 5)])
def test_what_belongs_together_stays_together_where_it_fits(block, fit):
    free = 5 * GB / memory.USED
    found, said = memory.members_together(6, needed=GB, free=free, block=block)
    assert found == fit and said.endswith(f": {fit} are trained at a time")


def test_not_even_one_fits():
    with pytest.raises(InputError, match=r"a run needs 2\.00 GB .* 2\.10 GB are free"):
        memory.members_together(1, needed=2 * GB, free=21 * GB // 10)


def test_a_device_that_counts_is_asked_before_the_machine(monkeypatch):
    free = memory.free_bytes()
    assert free > 2**20
    assert memory.free_bytes(4) == pytest.approx(free / 4, rel=0.1)  # they share it
    stats = {"bytes_limit": 100, "bytes_in_use": 30}
    device = types.SimpleNamespace(memory_stats=lambda: stats)
    monkeypatch.setattr(jax, "devices", lambda: [device])
    assert memory.free_bytes() == 70
