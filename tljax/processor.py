"""What this machine's processor offers, and what XLA is told for its sake."""

import functools
import pathlib

# With AMX: element-wise loops in vectors of 512 bits, a fifth faster than in LLVM's
# choice of 256, and products by oneDNN, up to twice as fast as XLA's own.
_FOR_AMX = {
    "xla_cpu_prefer_vector_width": "512",
    "xla_cpu_use_onednn": "true",
    "xla_cpu_experimental_onednn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT",
}


@functools.cache
def processor_has(flag: str) -> bool:
    """Whether /proc/cpuinfo names the flag; where there is no such file, no."""
    try:
        return flag in pathlib.Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False


def xla_flags(given: str) -> str:
    """The value of XLA_FLAGS for this processor.

    Args:
      given: the value so far; what it says stays.
    """
    wanted = _FOR_AMX.items() if processor_has("amx_tile") else ()
    more = [f"--{name}={value}" for name, value in wanted if name not in given]
    return " ".join([given, *more]).strip()
