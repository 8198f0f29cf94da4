"""Low-rank additions to matrices: y + s x A B (LoRA); with learned lengths (DoRA).

    a [D, R], b [R, F] of a kernel [D, F]; s = alpha / R; b = 0 at first
    DoRA: column f of the sum has the length magnitude_F[f], at first that of the kernel

Never W + A B per member: a population shares its kernels.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from tljax.model.product import product
from tljax.settings import InputError, TransferSettings, suggestion
from tljax.transfer.addition import Addition, Leaves, draw, path_key, places, row

_SMALLEST = 1e-12  # squared length of a column that is divided by


@dataclasses.dataclass(frozen=True)
class Traced(TransferSettings):
    """Settings of a program whose numbers are a member's own, float32 scalars."""

    scale: Any = None
    kept_share: Any = None


def hyperparameters(settings: TransferSettings) -> dict[str, jax.Array]:
    """What members of a population may differ in; {} of other methods."""
    if settings.method not in ("lora", "dora"):
        return {}
    return {
        "addition_scale": jnp.float32(scale_of(settings)),
        "addition_kept_share": jnp.float32(1 - settings.dropout),
    }


def traced(settings: TransferSettings, hparams: Mapping[str, Any]) -> TransferSettings:
    """The settings with a member's own numbers, where hparams has them."""
    if "addition_scale" not in hparams:
        return settings
    return Traced(
        **dataclasses.asdict(settings),
        scale=hparams["addition_scale"],
        kept_share=hparams["addition_kept_share"],
    )


def scale_of(settings: TransferSettings) -> float | jax.Array:
    """s of the addition s a b: alpha / R, or alpha / sqrt(R) (rsLoRA).

    Source: Hu et al. 2021, section 4.1; Kalajdzievski 2023, theorem 3.2: with s of the
    order of R^(-1/2) neither outputs nor gradients grow or vanish with R.
    """
    if isinstance(settings, Traced):
        return settings.scale
    power = 0.5 if settings.scaling == "rank_stabilized" else 1.0
    return settings.alpha / settings.rank**power


def _first(above: Leaves, settings: TransferSettings, key) -> dict[str, Any]:
    """a as in the authors' code, uniform; b = 0 (Hu et al. 2021, section 4.1)."""
    added = {}
    for path, (depth, width) in _chosen(above, settings).items():
        added[f"{path}/a"] = draw(key, path, depth, settings.rank)
        added[f"{path}/b"] = jnp.zeros((settings.rank, width))
    return added


def _chosen(above: Leaves, settings) -> dict[str, tuple[int, int]]:
    """The shapes of the matrices that config.transfer.targets names."""
    matrices = {
        path.removesuffix("/kernel"): leaf.shape
        for path, leaf in above.items()
        if re.match(r"layers/.*/kernel$", path)
    }
    chosen = {
        path: shape
        for path, shape in matrices.items()
        if re.fullmatch(settings.targets, path)
    }
    if not matrices:
        raise InputError(
            f"config.transfer.frozen_layers={settings.frozen_layers} leaves no layer to"
            f" config.transfer.method={settings.method!r}; take fewer"
        )
    if not chosen:
        some = ", ".join(list(matrices)[-3:])
        raise InputError(
            f"config.transfer.targets={settings.targets!r} matches no matrix of the"
            f" layers that move{suggestion(settings.targets, matrices)}; there are,"
            f" e.g. {some}"
        )
    highest = max(map(min, chosen.values()))
    if settings.rank > highest:
        raise InputError(
            f"config.transfer.rank={settings.rank} is more than any of the chosen"
            f" matrices has; take at most {highest}, e.g. 8"
        )
    return chosen


def _hook(own: Leaves, weights: Leaves, settings, dropout_key):
    """y + s x A B (Hu et al. 2021, equation 3)."""

    def adapter(path, x, y):
        if f"{path}/a" not in own:
            return y
        return y + _addition(own, path, x, settings, dropout_key).reshape(y.shape)

    return adapter


def _addition(own: Leaves, path: str, x, settings, dropout_key) -> jax.Array:
    """x (s A) B, [N, F]; a share of x dropped if there is a key.

    The scale stands with A, which is small: with the product it would cost a pass over
    [N, F], and another backward.
    """
    a_DR, b_RF = own[f"{path}/a"] * scale_of(settings), own[f"{path}/b"]
    if dropout_key is not None and settings.dropout:
        key = path_key(dropout_key, path)
        kept_share = jnp.float32(1 - settings.dropout)
        if isinstance(settings, Traced):
            kept_share = settings.kept_share
        kept = jax.random.bernoulli(key, kept_share, x.shape)
        x = jnp.where(kept, _over(x, kept_share), 0)
    x_ND = x.reshape(-1, x.shape[-1])
    return product(product(x_ND, a_DR), b_RF)


def _over(x, share):
    """x / share to the bit as XLA computes it where the share is a constant."""
    share = share.astype(x.dtype)
    return x * (1 / share) if x.dtype == jnp.float32 else x / share


def _merged(own: Leaves, weights: Leaves, settings) -> dict[str, Any]:
    """kernel + s A B."""
    return {
        f"{path}/kernel": weights[f"{path}/kernel"]
        + (own[f"{path}/a"] @ own[f"{path}/b"]) * scale_of(settings)
        for path in places(own, "a")
    }


def column_lengths(kernel_DF, a_DR, b_RF, scale: float) -> jax.Array:
    """Lengths [F] of the columns of W + s A B, without making that matrix.

    |w + s A b|^2 = |w|^2 + 2 s (A^T w) . b + s^2 (A^T A b) . b, of each column w, b.
    """
    kernel_DF = jnp.asarray(kernel_DF)
    square_F = (kernel_DF * kernel_DF).sum(axis=0)
    square_F += 2 * scale * ((a_DR.T @ kernel_DF) * b_RF).sum(axis=0)
    square_F += scale**2 * ((a_DR.T @ a_DR @ b_RF) * b_RF).sum(axis=0)
    return jnp.sqrt(jnp.maximum(square_F, _SMALLEST))


def _share(own: Leaves, weights: Leaves, path: str, settings) -> jax.Array:
    """magnitude / length [F] of each column of W + s A B; 1 at first."""
    a_DR, b_RF = own[f"{path}/a"], own[f"{path}/b"]
    scale = scale_of(settings)
    length_F = column_lengths(weights[f"{path}/kernel"], a_DR, b_RF, scale)
    return own[f"{path}/magnitude"] / jax.lax.stop_gradient(length_F)


def _dora_first(above: Leaves, settings, key) -> dict[str, Any]:
    """LoRA's, and the columns' lengths (Liu et al. 2024, equation 5)."""
    added = _first(above, settings, key)
    for path in places(added, "a"):
        a_DR, b_RF = added[f"{path}/a"], added[f"{path}/b"]
        kernel_DF = above[f"{path}/kernel"]
        added[f"{path}/magnitude"] = column_lengths(kernel_DF, a_DR, b_RF, 1.0)
    return added


def _dora_hook(own: Leaves, weights: Leaves, settings, dropout_key):
    """x (m / |W + s A B|) (W + s A B) + bias, of y = x W + bias.

    The length counts as a constant for gradients (section 4.3). Departure: dropout is
    of the addition's inputs only, not of x W.
    """

    def adapter(path, x, y):
        if f"{path}/a" not in own:
            return y
        share_F = _share(own, weights, path, settings)
        added = _addition(own, path, x, settings, dropout_key).reshape(y.shape)
        plain = y
        if f"{path}/bias" in weights:
            plain = y - row(weights[f"{path}/bias"], y)
        # share - 1 in float32: of bfloat16 it would have two digits
        return y + row(share_F - 1, y) * plain + row(share_F, y) * added

    return adapter


def _dora_merged(own: Leaves, weights: Leaves, settings) -> dict[str, Any]:
    """(W + s A B) m / |W + s A B|."""
    kernels = _merged(own, weights, settings)
    return {
        f"{path}/kernel": kernels[f"{path}/kernel"]
        * _share(own, weights, path, settings)[None]
        for path in places(own, "a")
    }


LORA = Addition(("a", "b"), _first, _hook, _merged)
DORA = Addition(("a", "b", "magnitude"), _dora_first, _dora_hook, _dora_merged)
