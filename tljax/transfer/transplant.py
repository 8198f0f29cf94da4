"""Old tree -> new tree: values change, never structure, shape or dtype.

Runs after the model's initialisation and before the optimizer's. Every leaf of both
trees stands in the ledger; one that nobody accounted for is an error, since a restore
that is silently partial turns 'transfer' into 'scratch'.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tljax.settings import InputError


class Entry(NamedTuple):
    """One line of the ledger."""

    path: str
    what: str  # "copied", "fresh" (kept as initialised) or "left" (only in the source)
    shape: tuple[int, ...]


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns {"layers/0/...": leaf}, sorted by path."""
    leaves = {}
    for name in sorted(tree):
        path = f"{prefix}/{name}" if prefix else name
        if isinstance(tree[name], Mapping):
            leaves |= flat(tree[name], path)
        else:
            leaves[path] = tree[name]
    return leaves


def transplant(
    source: Mapping[str, Any],
    target: Mapping[str, Any],
    *,
    fresh: Sequence[str],
    left: Sequence[str],
) -> tuple[dict, list[Entry]]:
    """Copies the source's leaves into the target's places.

    Args:
      source: nested dicts of arrays, e.g. a pre-trained model.
      target: the freshly initialised tree.
      fresh: patterns (full match on paths) of target leaves that stay as they are.
      left: patterns of source leaves that are not used.

    Returns:
      (tree like target, ledger sorted by path).

    Raises:
      InputError: a leaf that is neither in both trees nor under a pattern, a shape that
        differs, or a pattern that matches nothing.
    """
    have, want = flat(source), flat(target)
    used: set[str] = set()
    ledger = []
    values = {}
    for path, leaf in want.items():
        if _matches(path, fresh, used):
            values[path] = leaf
            ledger.append(Entry(path, "fresh", tuple(leaf.shape)))
        elif path not in have:
            raise InputError(
                f"the source has no {path}; it holds {_some(have)}. Is it a run of"
                " another architecture?"
            )
        else:
            values[path] = _copied(path, have[path], leaf)
            ledger.append(Entry(path, "copied", tuple(leaf.shape)))
    for path, leaf in have.items():
        if path not in want:
            if not _matches(path, left, used):
                raise InputError(f"the source's {path} has no place in the new model")
            ledger.append(Entry(path, "left", tuple(leaf.shape)))
    unused = [pattern for pattern in (*fresh, *left) if pattern not in used]
    if unused:
        raise InputError(f"transplant patterns match no leaf: {', '.join(unused)}")
    return nested(values), sorted(ledger)


def _matches(path: str, patterns: Sequence[str], used: set[str]) -> bool:
    found = [pattern for pattern in patterns if re.fullmatch(pattern, path)]
    used.update(found)
    return bool(found)


def _copied(path: str, old: Any, new: Any) -> np.ndarray:
    if tuple(old.shape) != tuple(new.shape):
        raise InputError(
            f"{path} has shape {tuple(old.shape)} in the source and"
            f" {tuple(new.shape)} in the new model; make config.model agree with"
            " the source's config.json"
        )
    return old.astype(new.dtype, copy=False)


def _some(leaves: Mapping[str, Any]) -> str:
    names = list(leaves)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" * (len(names) > 3))


def nested(values: Mapping[str, Any]) -> dict:
    """Returns the tree whose `flat` is `values`."""
    tree: dict = {}
    for path, leaf in values.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree
