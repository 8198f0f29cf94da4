"""How many labels is pre-training worth: scratch's learning curve, read backwards.

accuracy
   |                   ___o scratch      transfer's accuracy at n is reached by scratch
 t |  x transfer_ _ __/                  at N labels: the multiplier is N / n.
   |          ___o    :                  Beyond scratch's largest n nothing is known:
   |  o______/        :                  "at least", never an extrapolation.
   +--n---------------N------ log labels
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

EXACT, AT_LEAST, AT_MOST = "exact", "at least", "at most"


@dataclass(frozen=True)
class Multiplier:
    """N / n with its 95 % interval; each bound is 'exact', 'at least' or 'at most'."""

    n: int
    value: float
    bound: str
    ci95: tuple[float, float]
    ci95_bounds: tuple[str, str]

    @property
    def censored(self) -> bool:
        """Scratch never gets there: the true multiplier is at least `value`."""
        return self.bound == AT_LEAST


def label_multiplier(
    scratch: Mapping[int, np.ndarray],
    transfer_S: np.ndarray,
    *,
    n: int,
    resamples: int,
    seed: int,
) -> Multiplier:
    """How many times more labels scratch needs to do as well as transfer does at n.

    Scratch's mean accuracy is made non-decreasing in the number of labels (isotonic
    regression) and read linearly in log(labels); where it stays level, the fewest
    labels count. The interval resamples seeds, the same ones for both arms, and takes
    percentiles; a resample beyond either end of the curve counts as that end.

    Args:
      scratch: accuracies [S] by number of labels, seeds in the order of transfer_S.
      transfer_S: transfer's accuracies with n labels.
      n: the labels that transfer had.
      resamples: bootstrap draws.
      seed: of the draws.

    Raises:
      ValueError: no sizes, or arms with different numbers of seeds.

    Source: the protocol of Howard and Ruder 2018, figure 3, with an interval;
    regression by pooling adjacent violators, Ayer et al. 1955.
    """
    sizes_Z = np.array(sorted(scratch))
    seeds = len(transfer_S)
    if not len(sizes_Z) or any(len(scratch[z]) != seeds for z in scratch):
        raise ValueError(f"scratch needs {seeds} seeds at every number of labels")
    scratch_SZ = np.stack([scratch[z] for z in sizes_Z], axis=1)
    labels, bound = labels_needed(sizes_Z, scratch_SZ.mean(0), transfer_S.mean())
    rng = np.random.default_rng(seed)
    weights_JS = rng.multinomial(seeds, np.full(seeds, 1 / seeds), resamples) / seeds
    curves_JZ, targets_J = weights_JS @ scratch_SZ, weights_JS @ transfer_S
    drawn = [
        labels_needed(sizes_Z, curve_Z, target)
        for curve_Z, target in zip(curves_JZ, targets_J, strict=True)
    ]
    drawn_J = np.array([found for found, _ in drawn])
    low, high = np.quantile(drawn_J, [0.025, 0.975])
    return Multiplier(
        n=n,
        value=labels / n,
        bound=bound,
        ci95=(float(low / n), float(high / n)),
        ci95_bounds=(_bound_of(low, drawn), _bound_of(high, drawn)),
    )


def labels_needed(
    sizes_Z: np.ndarray, accuracy_Z: np.ndarray, target: float
) -> tuple[float, str]:
    """Fewest labels at which the curve made monotone reaches `target`.

    Args:
      sizes_Z: numbers of labels, ascending.
      accuracy_Z: accuracy at each.
      target: the accuracy to reach.

    Returns:
      The labels, and 'exact', 'at least' (target above the curve: its largest size) or
      'at most' (target below it: its smallest).
    """
    rising_Z = isotonic(accuracy_Z)
    # An average of the very values it is compared with may differ in the last bit.
    reached = np.flatnonzero(rising_Z >= target - 1e-12)
    if not len(reached):
        return float(sizes_Z[-1]), AT_LEAST
    after = reached[0]
    if after == 0:
        below = target < rising_Z[0] - 1e-12
        return float(sizes_Z[0]), AT_MOST if below else EXACT
    share = (target - rising_Z[after - 1]) / (rising_Z[after] - rising_Z[after - 1])
    ends = np.log(sizes_Z[[after - 1, after]])
    return float(np.exp(ends[0] + min(share, 1.0) * (ends[1] - ends[0]))), EXACT


def isotonic(values_Z: np.ndarray) -> np.ndarray:
    """The non-decreasing sequence nearest to the values in least squares, [Z]."""
    blocks: list[tuple[float, int]] = []  # mean, length
    for value in values_Z:
        mean, length = float(value), 1
        while blocks and blocks[-1][0] > mean:
            earlier, count = blocks.pop()
            mean = (earlier * count + mean * length) / (count + length)
            length += count
        blocks.append((mean, length))
    means, lengths = zip(*blocks, strict=True)
    return np.repeat(means, lengths)


def _bound_of(value: float, drawn: list[tuple[float, str]]) -> str:
    """Whether an interval's end lies where resamples were cut off, and at which end."""
    for bound in (AT_LEAST, AT_MOST):
        cut = [labels for labels, found in drawn if found == bound]
        if cut and np.isclose(value, cut[0]):
            return bound
    return EXACT
