"""The main experiment's own config, whatever the current directory."""

import pathlib

import pytest

from experiments.low_shot.settings import LowShotSettings
from tljax.cli.config import load_config
from tljax.settings import from_config

CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "low_shot.py"


@pytest.fixture(scope="session")
def settings_of():
    """settings_of(preset, a__b=text) -> settings, as --config.a.b=text gives them."""

    def load(preset: str, **overrides: str) -> LowShotSettings:
        texts = {key.replace("__", "."): text for key, text in overrides.items()}
        config = load_config(f"{CONFIG}:{preset}", texts, kinds=LowShotSettings)
        return from_config(LowShotSettings, config)

    return load
