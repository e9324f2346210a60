"""Memory taken in large pages where the system has them to give, and given back to the system when it was freed."""

from __future__ import annotations

import ctypes
import math
import sys
from contextlib import suppress

import numpy as np
import torch

# What Linux calls huge pages, on x86 and on most of ARM.
_PAGE = 2 << 20


def roomy(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str = "cpu") -> torch.Tensor:
    """Return an uninitialised tensor, like ``torch.empty``.

    A large one in the host's memory begins with a large page: NumPy asks the system for these, torch does not. Looking up
    where small pages lie takes a tenth of the time of encoding, and getting them one by one as long as filling them.
    """
    n_bytes = math.prod(shape) * dtype.itemsize
    if torch.device(device).type != "cpu" or n_bytes < 2 * _PAGE:
        return torch.empty(shape, dtype=dtype, device=device)
    raw = np.empty(n_bytes + _PAGE, np.uint8)
    first = -raw.ctypes.data % _PAGE
    return torch.from_numpy(raw[first : first + n_bytes]).view(dtype).view(shape)


def give_back_memory() -> None:
    """Ask the C library to give back what it keeps for later, so that many parts take no more memory than one of them.

    Every thread that ever ran has left it some.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another library than glibc
            ctypes.CDLL("libc.so.6").malloc_trim(0)
