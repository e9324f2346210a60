"""One process at a time writes into a folder. The lock is the kernel's: it ends with the process, however that ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conceptatlas.base.errors import InputError, WorkError

LOCK_FILE = ".lock"


def _try_lock(fd: int) -> bool:
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _same_file(fd: int, path: Path) -> bool:
    """Whether ``path`` is still the file that ``fd`` opened (its last owner may have removed it in between)."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    ours = os.fstat(fd)
    return (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino)


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of ``folder`` for the time of the block; its file is removed at the end.

    Raises:
        InputError: Another process holds it.
        WorkError: The file system knows no locks.
    """
    path = folder / LOCK_FILE
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise WorkError(
                f"Cannot write {path}: {error.strerror}; free some space or choose another folder."
            ) from error
        try:
            held = _try_lock(fd)
        except OSError as error:
            os.close(fd)
            raise WorkError(
                f"Cannot lock {path}: {error.strerror}; choose a folder on a file system that has locks."
            ) from error
        if not held:
            os.close(fd)
            raise InputError(
                f"Another process is writing into {folder}; wait until it has finished, or choose another folder."
            )
        if _same_file(fd, path):
            break
        os.close(fd)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(fd)
