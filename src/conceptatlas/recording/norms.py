"""What the norms of all rows say of a site: median, mean and attention sinks. Memory does not grow with the recording.

The norms lie on the disk, shard by shard, and are read in blocks of rows, a few times over. Norms are not negative, and
the bits of such float32 numbers order as the numbers do, so the median is found by counting bits: first the upper half
of each number's, then the lower half of those in the middle.

Shapes: T rows, S sites, R rows of a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from conceptatlas.subjects.norms import SINK_FACTOR

# A multiple of the 8,192 elements that NumPy adds up at a time: the sum over blocks is that over all rows to the last bit.
BLOCK_ROWS = 1 << 17
_HALF = 1 << 16

Norms = npt.NDArray[np.float32]


class NormFigures(NamedTuple):
    """Of each site, and of each row."""

    medians: Norms
    """float32 [S]."""
    means: npt.NDArray[np.float64]
    """float64 [S]."""
    sinks: npt.NDArray[np.int64]
    """Rows whose norm is above ``SINK_FACTOR`` medians, int64 [S]."""
    is_sink: npt.NDArray[np.bool_]
    """Which rows are a sink at some site, bool [T]."""


def norm_figures(parts: Sequence[Norms]) -> NormFigures:
    """Return the figures of all rows.

    Args:
        parts: The norms of consecutive rows, float32 [T_part, S] each, at least one row in all; may be memory-mapped.
    """
    n_rows = sum(len(part) for part in parts)
    medians = _medians(parts)
    # As Python numbers, so that ten medians are rounded to float32 when they are compared, and not before.
    limits = [SINK_FACTOR * float(median) for median in medians]
    sums = np.zeros(len(medians))
    sinks = np.zeros(len(medians), np.int64)
    is_sink = np.zeros(n_rows, dtype=bool)
    for first, block in _blocks(parts):
        for site, limit in enumerate(limits):
            found = block[site] > limit
            sums[site] = block[site].sum(dtype=np.float64, initial=sums[site])
            sinks[site] += int(found.sum())
            is_sink[first : first + len(found)] |= found
    return NormFigures(medians, sums / n_rows, sinks, is_sink)


def _blocks(parts: Sequence[Norms]) -> Iterator[tuple[int, Norms]]:
    """Yield the first row of each block, and its norms [S, R], contiguous."""
    n_rows, first, waiting = sum(len(part) for part in parts), 0, 0
    buffer = np.empty((parts[0].shape[1], min(n_rows, BLOCK_ROWS)), np.float32)
    for part in parts:
        taken = 0
        while taken < len(part):
            count = min(buffer.shape[1] - waiting, len(part) - taken)
            buffer[:, waiting : waiting + count] = part[taken : taken + count].T
            taken, waiting = taken + count, waiting + count
            if waiting == buffer.shape[1]:
                yield first, buffer
                first, waiting = first + waiting, 0
    if waiting:
        yield first, np.ascontiguousarray(buffer[:, :waiting])


def _medians(parts: Sequence[Norms]) -> Norms:
    """Return each site's median, float32 [S]: the norm in the middle, or the mean of the two there."""
    n_rows = sum(len(part) for part in parts)
    uppers = _count_upper(parts)
    middle = [_ordered(parts, uppers, rank) for rank in {(n_rows - 1) // 2, n_rows // 2}]
    return np.mean(middle, axis=0, dtype=np.float32)


def _ordered(parts: Sequence[Norms], uppers: npt.NDArray[np.int64], rank: int) -> Norms:
    """Return each site's norm at place ``rank`` (from 0) in ascending order, float32 [S]."""
    upper, ranks = _half_of_rank(uppers, np.full(len(uppers), rank))
    lower, _ = _half_of_rank(_count_lower(parts, upper), ranks)
    return (upper * _HALF + lower).astype(np.uint32).view(np.float32)


def _count_upper(parts: Sequence[Norms]) -> npt.NDArray[np.int64]:
    """Count the upper halves of all norms' bits, int64 [S, 65,536]."""
    counts = np.zeros((parts[0].shape[1], _HALF), np.int64)
    for _, block in _blocks(parts):
        for site, norms in enumerate(block):
            counts[site] += np.bincount(norms.view(np.uint32) >> 16, minlength=_HALF)
    return counts


def _count_lower(parts: Sequence[Norms], upper: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Count the lower halves of those norms' bits whose upper half is ``upper`` [S], int64 [S, 65,536]."""
    counts = np.zeros((len(upper), _HALF), np.int64)
    for _, block in _blocks(parts):
        for site, norms in enumerate(block):
            bits = norms.view(np.uint32)
            counts[site] += np.bincount(bits[bits >> 16 == upper[site]] & (_HALF - 1), minlength=_HALF)
    return counts


def _half_of_rank(
    counts: npt.NDArray[np.int64], ranks: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return of each site the half in which the number of this rank is, and its rank among those of that half."""
    ends = np.cumsum(counts, axis=1)
    halves = np.array([np.searchsorted(ends[site], rank, side="right") for site, rank in enumerate(ranks)], np.int64)
    before = [int(ends[site, half] - counts[site, half]) for site, half in enumerate(halves)]
    return halves, ranks - np.array(before, np.int64)
