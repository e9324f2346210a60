"""A process that dies by SIGKILL at a chosen change of the disk."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

CHANGES = ("fsync", "replace", "rename", "unlink", "mkdir", "rmdir")


def count_changes(kill_at: int) -> Callable[[], int]:
    """Count this process's changes of the disk from now on, and die before the one numbered ``kill_at`` (never below 0).

    Returns:
        What tells how many there were.
    """
    count = 0

    def counted(function):
        def wrapper(*arguments, **options):
            nonlocal count
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
            return function(*arguments, **options)

        return wrapper

    for name in CHANGES:
        setattr(os, name, counted(getattr(os, name)))
    return lambda: count
