"""What this machine's matrix products reach: the ceiling that shares are of."""

import statistics
import time

import jax
import jax.numpy as jnp

from tljax.model.product import lower_by_onednn, onednn_is_faster

SIDE = {"cpu": 2048, "gpu": 8192, "tpu": 8192}
WARM, ROUNDS = 5, 15  # the first ones wait for memory, and for AMX to be switched on
# FLOP/s of dense bfloat16 products that the makers promise, by a part of device_kind
PEAKS = {
    "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "H200": 989e12,
    "A100": 312e12, "TPU v4": 275e12, "TPU v5 lite": 197e12, "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
}  # fmt: skip


def ceilings(side: int | None = None) -> dict[str, float]:
    """FLOP/s of a square product in bfloat16 and float32, by the faster way there is.

    Args:
      side: of the matrices; None = large enough for the device.
    """
    side = side or SIDE[jax.default_backend()]
    found = {}
    for dtype in ("bfloat16", "float32"):
        found[dtype] = rate(side, dtype)
        if onednn_is_faster():
            a = jnp.ones((side, side), dtype)
            other = _median_rate(lower_by_onednn(jnp.matmul, a, a)(), a)
            found[dtype] = max(found[dtype], other)
    return found


def peak(device_kind: str) -> float | None:
    """The promised FLOP/s of a device, the most special name first; None = unknown."""
    return next((rate for name, rate in PEAKS.items() if name in device_kind), None)


def of_peak(found: dict[str, float], device_kind: str) -> dict[str, float]:
    """What shares are of: of a chip whose peak is known that, so that they are MFU.

    Args:
      found: of `ceilings`.
      device_kind: of the first device.
    """
    promised = peak(device_kind)
    return {**found, "bfloat16": promised} if promised else found


def rate(side: int, dtype: str) -> float:
    """FLOP/s of a square product of XLA's own."""
    return _median_rate(jax.jit(jnp.matmul), jnp.ones((side, side), dtype))


def _median_rate(product, a):
    """The median of some rounds after some others."""
    for _ in range(WARM):
        product(a, a).block_until_ready()
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        product(a, a).block_until_ready()
        times.append(time.perf_counter() - started)
    return 2.0 * a.shape[0] ** 3 / statistics.median(times)
