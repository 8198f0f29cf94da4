"""The largest resident memory of this process."""

import pathlib
import re
import resource

STATUS = pathlib.Path("/proc/self/status")


def peak_bytes() -> int:
    """Largest resident memory so far.

    Not getrusage's where the kernel tells more: a process that a larger one has started
    begins there with that one's peak.
    """
    try:
        told = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())
    except FileNotFoundError:  # macOS, which counts bytes and starts at zero
        told = None
    if told:
        return 1024 * int(told[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
