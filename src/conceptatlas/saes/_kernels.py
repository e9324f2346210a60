"""Compiled loops over a tile of products: pick what is active. Pure arrays, no files, no torch.

A tile is [features, rows], so that its entries come out in the order of compressed sparse columns. It is walked twice:
once to count (a loop that the compiler turns into vector instructions), once to copy.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit


@njit(nogil=True, cache=True)
def count_above(
    tile: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32],
    threshold: npt.NDArray[np.float32],
    counts: npt.NDArray[np.int64],
) -> None:
    """Count, for each feature, the rows on which ``tile + bias > threshold``."""
    for f in range(tile.shape[0]):
        products = tile[f]
        b = bias[f]
        limit = threshold[f]
        n = 0
        for t in range(products.shape[0]):
            n += products[t] + b > limit
        counts[f] = n


@njit(nogil=True, cache=True)
def copy_above(
    tile: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32],
    threshold: npt.NDArray[np.float32],
    starts: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int32],
    values: npt.NDArray[np.float32],
) -> None:
    """Copy row and ``tile + bias`` of what :func:`count_above` counted, feature f from ``starts[f]`` on."""
    for f in range(tile.shape[0]):
        if starts[f] == starts[f + 1]:
            continue
        products = tile[f]
        b = bias[f]
        limit = threshold[f]
        at = starts[f]
        for t in range(products.shape[0]):
            pre = products[t] + b
            if pre > limit:
                rows[at] = t
                values[at] = pre
                at += 1
