"""What the norms of all rows say of a site: median, mean and attention sinks. Memory does not grow with the recording.

The norms lie on the disk, shard by shard, and are read in blocks of rows, a few times over. Norms are not negative, and
the bits of such float32 numbers order as the numbers do, so the median is found as by a radix sort, digit by digit from the
top: count the digits, see in which one the middle lies, and go on with the numbers that have it.

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
# The digits of a number, in bits.
_BITS = (11, 11, 10)

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
    middle = [_ordered(parts, rank) for rank in {(n_rows - 1) // 2, n_rows // 2}]
    return np.mean(middle, axis=0, dtype=np.float32)


def _ordered(parts: Sequence[Norms], rank: int) -> Norms:
    """Return each site's norm at place ``rank`` (from 0) in ascending order, float32 [S]."""
    n_sites = parts[0].shape[1]
    known, ranks, left = np.zeros(n_sites, np.uint64), np.full(n_sites, rank), 32
    for width in _BITS:
        counts = _count(parts, known, left, width)
        left -= width
        ends = np.cumsum(counts, axis=1)
        digits = (ends <= ranks[:, None]).sum(axis=1)
        ranks = ranks - (np.take_along_axis(ends - counts, digits[:, None], axis=1))[:, 0]
        known = known << np.uint64(width) | digits.astype(np.uint64)
    return known.astype(np.uint32).view(np.float32)


def _count(parts: Sequence[Norms], known: npt.NDArray[np.uint64], left: int, width: int) -> npt.NDArray[np.int64]:
    """Count the next ``width`` bits of those norms whose bits above the ``left`` lowest are ``known`` [S].

    Returns:
        int64 [S, 2 ** width].
    """
    counts = np.zeros((len(known), 1 << width), np.int64)
    for _, block in _blocks(parts):
        for site, norms in enumerate(block):
            bits = norms.view(np.uint32).astype(np.uint64)  # 64, because a shift by all of 32 bits is not defined
            bits = bits[bits >> np.uint64(left) == known[site]]
            digits = bits >> np.uint64(left - width) & np.uint64((1 << width) - 1)
            counts[site] += np.bincount(digits.astype(np.int64), minlength=1 << width)
    return counts
