"""Settings that experiments share: the language model's stages, names of arms."""

import dataclasses
import re
from collections.abc import Sequence

from tljax.settings import (
    LAST_SEED,
    InputError,
    MeshSettings,
    OptimSettings,
    RecordSettings,
    setting,
)

TUNING_SEED = 1000  # tuning's subsets and orders are never those of the runs that count


@dataclasses.dataclass(frozen=True)
class PretrainStage:
    """How the language model is trained."""

    seed: int = setting("initial weights and data order", low=0, high=LAST_SEED)
    steps: int = setting("optimizer steps", low=1)
    mesh: MeshSettings
    optim: OptimSettings
    record: RecordSettings


@dataclasses.dataclass(frozen=True)
class AdaptStage:
    """Then, on the task's own text, labels unread (ULMFiT's second stage, TAPT)."""

    epochs: float = setting("passes over the task's training text; 0 = none", low=0.0)
    optim: OptimSettings
    record: RecordSettings


def check_arm(where: str, arm: str, others: Sequence[str]) -> None:
    """Refuses a name that no run folder can have, or that another arm has."""
    if not re.fullmatch(r"\w+", arm) or arm in others:
        raise InputError(
            f"{where}={arm!r} must be letters, digits or _, and none of"
            f" {', '.join(others)}"
        )
