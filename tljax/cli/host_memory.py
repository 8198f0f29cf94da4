"""Memory of this process: in large pages, and taken from the kernel once.

A program of XLA's on a CPU takes its temporary memory anew at every call, some hundred
megabytes for a training step, and the kernel hands it out, and zeroes it, page by page.
With pages of 4 KiB that is a fifth of a step's time, with pages of 2 MiB a twentieth,
and next to nothing where freed memory is kept (docs/speed.md).
"""

import ctypes
import os
import pathlib
import sys

VARIABLE, HUGE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"
_KERNEL = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # options of mallopt


def ask_for_huge_pages() -> None:
    """Starts this process again, with an environment that makes glibc ask for them.

    To be called before anything else is done: glibc reads it when a process starts.
    Does nothing where the environment says something about them already, where they
    come unasked or not at all, and without a glibc that can ask.
    """
    if "malloc.hugetlb" in os.environ.get(VARIABLE, "") or not _helps():
        return
    given = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = f"{given}:{HUGE}" if given else HUGE
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def without_huge_pages() -> dict[str, str]:
    """The environment as it was before, for programs that are not ours."""
    own = os.environ.get(VARIABLE, "").split(":")
    other = ":".join(one for one in own if one != HUGE)
    rest = {name: value for name, value in os.environ.items() if name != VARIABLE}
    return {**rest, VARIABLE: other} if other else rest


def keep_freed_memory() -> None:
    """What the main thread takes and frees stays with the process, for the next time.

    That holds for XLA's temporary memory where programs run in the thread that calls
    them; other threads have arenas of their own, of blocks too small for it.
    """
    if _glibc():
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)


def _helps() -> bool:
    try:
        return "[madvise]" in _KERNEL.read_text() and _glibc() >= (2, 35)
    except OSError:  # not Linux
        return False


def _glibc() -> tuple[int, ...]:
    """Its version; () = there is another C library."""
    try:
        name, version = os.confstr("CS_GNU_LIBC_VERSION").split()
        return tuple(map(int, version.split("."))) if name == "glibc" else ()
    except (AttributeError, ValueError, OSError):
        return ()
