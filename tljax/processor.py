"""What this machine's processor offers, and what XLA is told for its sake."""

import functools
import os
import pathlib

_ONEDNN = "xla_cpu_experimental_onednn_fusion_type"
_FOR_AMX = {
    "xla_cpu_prefer_vector_width": "512",  # LLVM's choice of 256 is a fifth slower
    _ONEDNN: "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT",  # for programs that ask for oneDNN
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


def told_of_onednn() -> bool:
    """Whether XLA_FLAGS say what oneDNN shall do in programs that ask for it."""
    return _ONEDNN in os.environ.get("XLA_FLAGS", "")
