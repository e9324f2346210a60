"""Memory that was freed goes back to the system, so that work in many parts takes no more than one of them."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress


def give_back_memory() -> None:
    """Ask the C library to give back what it keeps for later; every thread that ever ran has left it some."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another library than glibc
            ctypes.CDLL("libc.so.6").malloc_trim(0)
