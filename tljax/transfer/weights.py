"""Which weights of the model move, by their paths: chosen(paths, settings) -> set.

The paths are those above the frozen layers, without the head, which always moves.
"""

import re
from collections.abc import Collection

from tljax.settings import InputError, TransferSettings

_NORM = r"(.*/)?\w*norm/(scale|bias)"


def none(paths: Collection[str], settings: TransferSettings) -> set[str]:
    """No weight of the model: a linear probe (Alain & Bengio 2016)."""
    return set()


def every(paths: Collection[str], settings: TransferSettings) -> set[str]:
    """All, or all but the embedding's tables."""
    tables = "embedding/" if settings.embeddings_fixed else ()
    return {path for path in paths if not path.startswith(tables)}


def biases(paths: Collection[str], settings: TransferSettings) -> set[str]:
    """Those of products and norms. Raises: InputError where there are none.

    Source: BitFit, Ben-Zaken et al. 2022, equations 1 to 3.
    """
    found = {path for path in paths if path.endswith("/bias")}
    if not found:
        raise InputError(
            "config.transfer.method='bitfit' moves biases, but the model has none where"
            " it may move; take 'norms', 'ia3' or 'lora'"
        )
    return found


def norms(paths: Collection[str], settings: TransferSettings) -> set[str]:
    """Scales and biases of all norms. Raises: InputError where there are none.

    Source: Qi et al. 2022; LN-tuning, Zhao et al. 2024.
    """
    found = norms_if_any(paths, settings)
    if not found:
        raise InputError(
            f"config.transfer.method='norms', but config.transfer.frozen_layers="
            f"{settings.frozen_layers} leaves no norm to move; take fewer"
        )
    return found


def norms_if_any(paths: Collection[str], settings: TransferSettings) -> set[str]:
    """As `norms`, for a method that moves more than these."""
    return {path for path in paths if re.fullmatch(_NORM, path)}


def matching(paths: Collection[str], settings: TransferSettings) -> set[str]:
    """Those that config.transfer.targets names. Raises: InputError if it names none.

    Source: surgical fine-tuning, Lee et al. 2023.
    """
    found = {path for path in paths if re.fullmatch(settings.targets, path)}
    if not found:
        raise InputError(
            f"config.transfer.targets={settings.targets!r} matches no weight that may"
            f" move; there are, e.g. {', '.join(list(paths)[-3:])}"
        )
    return found
