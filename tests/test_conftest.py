"""The strictness that tests/conftest.py promises is really in force."""

import os
import tempfile
import warnings

import jax
import jax.numpy as jnp
import pytest


def test_eight_devices_are_simulated():
    assert [device.platform for device in jax.devices()] == ["cpu"] * 8


def test_rank_promotion_raises():
    with pytest.raises(ValueError, match="rank_promotion"):
        jnp.zeros((2, 3)) + jnp.zeros((3,))


def test_a_warning_is_an_error():
    with pytest.raises(UserWarning, match="made up"):
        warnings.warn("made up", stacklevel=1)


def test_the_cache_of_sources_is_a_temporary_folder():
    assert os.environ["TLJAX_CACHE"].startswith(tempfile.gettempdir())
