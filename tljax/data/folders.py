"""Folders written whole or not at all.

    .unfinished-NAME-x1y2z3/NAME --rename--> NAME

A command that is killed leaves the first; the next to the same place removes it. Knows
nothing of what is written.
"""

import contextlib
import fcntl
import glob
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from tljax.settings import InputError

_NAME = 50  # characters of it in the scratch folder's: at most 255 bytes in all


@contextlib.contextmanager
def whole_folder(
    out: pathlib.Path, *, size_bytes: int = 0, by: str = ""
) -> Iterator[pathlib.Path]:
    """A folder to fill, which becomes `out` at the end: whole or not at all.

    Args:
      out: new or an empty folder.
      size_bytes: about what will be written, as far as that is known.
      by: what names its place, for messages, e.g. ', by TLJAX_CACHE'.

    Raises:
      InputError: it cannot be written there, or there is no room for it.
    """
    with scratch_beside(out, by=by) as scratch:
        _check_room(out, size_bytes)
        fresh = scratch / out.name  # scratch itself is closed to other users
        fresh.mkdir()
        yield fresh
        fresh.replace(out)


@contextlib.contextmanager
def kept_folder(out: pathlib.Path) -> Iterator[pathlib.Path]:
    """As `whole_folder`, of the cache: if another process is faster, its folder stays.

    Raises:
      InputError: it cannot be written.
    """
    try:
        with whole_folder(out, by=", by TLJAX_CACHE") as fresh:
            yield fresh
    except InputError:
        # what the other wrote is the same
        if not os.path.exists(out):
            raise


def check_writable(out: pathlib.Path, *, end: str = "") -> None:
    """Asks, before long work, whether a file or folder can be made; leaves nothing.

    Args:
      out: its place.
      end: behind its name as long as it is not whole.

    Raises:
      InputError: it cannot.
    """
    with scratch_beside(out) as scratch:
        (scratch / f"{out.name}{end}").mkdir()


@contextlib.contextmanager
def scratch_beside(out: pathlib.Path, *, by: str = "") -> Iterator[pathlib.Path]:
    """An empty folder on the disk of `out`; gone at the end, as are its new parents.

    It has a name of its own, so that nothing of the user's is in the way. What killed
    commands left is removed; a lock tells it from what another is writing now.

    Raises:
      InputError: it cannot be made, or the body meets an OSError.
    """
    made = [parent for parent in out.parents if not os.path.exists(parent)]
    prefix = f".unfinished-{out.name[:_NAME]}-"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for left in out.parent.glob(glob.escape(prefix) + "*"):
            with contextlib.suppress(OSError), _held(left) as ours:
                if ours:
                    shutil.rmtree(left)
        with _held_fresh(out.parent, prefix) as scratch:
            yield scratch
    except OSError as error:
        raise InputError(
            f"cannot write {out}: {error.strerror or error}; make room or give another"
            f" place{by}"
        ) from error
    finally:
        for parent in made:
            with contextlib.suppress(OSError):  # not empty: it has `out`
                parent.rmdir()


@contextlib.contextmanager
def alone_in(folder: pathlib.Path) -> Iterator[None]:
    """Makes a folder, if it is not there, and keeps other commands out of it.

    New folders that are empty at the end are taken away again.

    Raises:
      InputError: another command works in it, or it cannot be made.
    """
    ways = [folder, *folder.parents]
    file = next((way for way in ways if os.path.lexists(way) and not way.is_dir()), "")
    if file:
        raise InputError(f"{file} is a file; give --workdir a folder")
    made = [way for way in ways if not os.path.exists(way)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot write {folder}: {error.strerror}; give another --workdir"
        ) from error
    try:
        with _held(folder) as ours:
            if ours is False:
                made = []
                raise InputError(
                    f"another command works in {folder}; wait for its end, or give"
                    " another --workdir"
                )
            yield
    finally:
        for way in made:
            with contextlib.suppress(OSError):  # not empty, or gone
                way.rmdir()


@contextlib.contextmanager
def _held_fresh(parent: pathlib.Path, prefix: str) -> Iterator[pathlib.Path]:
    """A new folder, locked; gone at the end.

    Before the lock is on it another command may take it for one left behind, and remove
    it: then the next is made.
    """
    while True:
        fresh = pathlib.Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
        with _held(fresh) as ours:
            if ours is False:
                continue
            try:
                yield fresh
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
            return


@contextlib.contextmanager
def _held(folder: pathlib.Path) -> Iterator[bool | None]:
    """Locks a folder until the end, be it by kill.

    False where another command has it or has removed it, None where the file system
    knows no such lock.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held = folder.exists()
    except BlockingIOError:
        held = False
    except OSError:
        held = None
    try:
        yield held
    finally:
        os.close(descriptor)


def _check_room(out: pathlib.Path, size_bytes: int) -> None:
    disk = shutil.disk_usage(out.parent)
    if disk.total and disk.free < size_bytes:  # some file systems tell neither
        need, free = (f"{one / 1e6:,.1f} MB" for one in (size_bytes, disk.free))
        raise InputError(
            f"{out} takes {need}, {free} are free there; make room or give another"
            " place"
        )
