"""Large arrays in huge pages, on a Linux that gives them to who asks.

A program of XLA's on a CPU takes its temporary memory anew at every call, some hundred
megabytes for a training step, which the kernel hands out, and zeroes, page by page:
with pages of 4 KiB that is a tenth to a quarter of the time, with pages of 2 MiB next
to none of it (docs/speed.md). glibc asks for large ones if its environment says so when
the process starts, so the process is started again, once, before it has done anything.
"""

import os
import pathlib
import sys

VARIABLE, HUGE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"
_KERNEL = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
_GLIBC = (2, 35)  # the first that asks


def ask_for_huge_pages() -> None:
    """Starts this process again so that its memory comes in huge pages.

    Does nothing where the environment says something about them already, where they
    come unasked or not at all, and without a glibc that asks for them.
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


def _helps() -> bool:
    try:
        on_request = "[madvise]" in _KERNEL.read_text()
        name, version = os.confstr("CS_GNU_LIBC_VERSION").split()
        major, minor = version.split(".")[:2]
        new = (int(major), int(minor)) >= _GLIBC
        return on_request and name == "glibc" and new
    except (OSError, ValueError, AttributeError):  # no such file, or not glibc
        return False
