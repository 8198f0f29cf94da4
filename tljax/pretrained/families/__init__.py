"""Families of other people's models: what a config means, what tensors are called.

config.json --read_settings--> ModelSettings;  our leaf --names--> their tensor

A family is a table and two functions, each the other's inverse (docs/families.md shows
how to add one); what it computes stands in model/block.py alone.
"""

from tljax.pretrained.families.config import (
    FAMILIES,
    check_vocab_size,
    family_of,
    read_settings,
    write_config,
)
from tljax.pretrained.families.family import Family, Place

__all__ = [
    "FAMILIES",
    "Family",
    "Place",
    "check_vocab_size",
    "family_of",
    "read_settings",
    "write_config",
]
