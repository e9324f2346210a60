"""Compiled loops over a tile of products: pick what is active. Pure arrays, no files, no torch.

A tile is [features, rows], so that its entries come out in the order of compressed sparse columns. For each feature, a
loop that the compiler turns into vector instructions marks the rows that count, a byte each; then the marks are walked
eight at a time, as 64-bit words, and nearly all words are zero.

The entries go to arrays that the caller made as large as seemed enough. A kernel that may find no room for a feature
returns that feature, and is called again with larger arrays.

bfloat16 numbers come as their bits, in int16. For a positive bound, ``number <= bound`` is ``bits <= bound's bits``: bits of
positive numbers order as the numbers do, and those of negative numbers are negative. So comparing needs no conversion.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

WORD = 8
# The lowest mark of a word stands alone in ``w & (~w + 1)`` = 2^(8k); times this, its highest three bits are k.
_WHICH = np.uint64(sum(k << (61 - 8 * k) for k in range(WORD)))
_ONE = np.uint64(1)
_TOP = np.uint64(61)


@njit(nogil=True, cache=True)
def take_above(
    tile: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32],
    threshold: npt.NDArray[np.float32],
    words: npt.NDArray[np.uint64],
    marks: npt.NDArray[np.uint8],
    first: int,
    ends: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int32],
    values: npt.NDArray[np.float32],
) -> int:
    """Copy row and ``tile + bias`` where that is above the threshold, from feature ``first`` on.

    Args:
        tile: [F, T].
        bias: [F].
        threshold: [F].
        words: [ceil(T / 8)], zeros.
        marks: The same bytes, one by one.
        first: The feature to go on with.
        ends: [F+1]; ``ends[f+1]`` is set to the end of feature f's entries, which begin at ``ends[f]``.
        rows: Where the rows go.
        values: Where the pre-activations go.

    Returns:
        The feature for which there was no room, or F.
    """
    n_features, n_rows = tile.shape
    for f in range(first, n_features):
        products = tile[f]
        b = bias[f]
        limit = threshold[f]
        at = ends[f]
        if at + n_rows > rows.shape[0]:
            return f
        for t in range(n_rows):
            marks[t] = products[t] + b > limit
        for i in range(words.shape[0]):
            word = words[i]
            while word != 0:
                t = WORD * i + int(((word & (~word + _ONE)) * _WHICH) >> _TOP)
                word &= word - _ONE
                rows[at] = t
                values[at] = products[t] + b
                at += 1
        ends[f + 1] = at
    return n_features


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
def _dot(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> np.float32:
    """Return a · b; the order of the sum is the compiler's, so that it can use vector instructions."""
    total = np.float32(0.0)
    for d in range(a.shape[0]):
        total += a[d] * b[d]
    return total


@njit(nogil=True, cache=True)
def take_decided(
    bits: npt.NDArray[np.int16],
    numbers: npt.NDArray[np.float32],
    reach: npt.NDArray[np.int16],
    block: int,
    x_norms: npt.NDArray[np.float32],
    w_norms: npt.NDArray[np.float32],
    factors: tuple[float, float],
    x: npt.NDArray[np.float32],
    weights: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32],
    threshold: npt.NDArray[np.float32],
    words: npt.NDArray[np.uint64],
    marks: npt.NDArray[np.uint8],
    first: int,
    ends: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int32],
    values: npt.NDArray[np.float32],
) -> int:
    """Decide by how much bfloat16 products lie *below* the threshold; where that is not sure, a float32 product tells.

    Args:
        bits: [F, T], threshold minus pre-activation, as bfloat16 bits.
        numbers: [65536], the float32 number of every bit pattern.
        reach: [F, ceil(T / block)], bits of how far ``bits`` may be wrong, for each block of rows.
        block: Rows of a block.
        x_norms: [T, 4], from which a candidate's own margin is computed.
        w_norms: [F, 4], likewise.
        factors: Of the bound that always holds, and of the one that almost always does.
        x: [T, D] rows.
        weights: [F, D].
        bias: [F].
        threshold: [F].
        words: As for :func:`take_above`, like all that follow.
        marks: As above.
        first: As above.
        ends: As above.
        rows: As above.
        values: As above.

    Returns:
        The feature for which there was no room, or F.
    """
    n_features, n_rows = bits.shape
    always = np.float32(factors[0])
    almost = np.float32(factors[1])
    unsure = np.empty(n_rows + 1, np.int64)
    for f in range(first, n_features):
        n = 0
        for g in range(reach.shape[1]):
            bound = reach[f, g]
            some = bits[f, g * block : (g + 1) * block]
            theirs = marks[g * block : (g + 1) * block]
            for t in range(some.shape[0]):
                candidate = some[t] <= bound
                theirs[t] = candidate
                n += candidate
        at = ends[f]
        if at + n > rows.shape[0]:
            return f
        if n == 0:
            ends[f + 1] = at
            continue
        below = bits[f]
        w = weights[f]
        b = bias[f]
        limit = threshold[f]
        v = w_norms[f]
        n_unsure = 0
        for i in range(words.shape[0]):
            word = words[i]
            while word != 0:
                t = WORD * i + int(((word & (~word + _ONE)) * _WHICH) >> _TOP)
                word &= word - _ONE
                short = numbers[np.uint16(below[t])]
                a = x_norms[t]
                own = min(always * (v[0] * a[1] + v[1] * a[0]), almost * np.sqrt(v[2] * a[3] + v[3] * a[2]))
                if short > own:
                    continue
                rows[at] = t
                values[at] = limit - short
                unsure[n_unsure] = at
                n_unsure += short >= -own
                at += 1
        # One after the other, with nothing between that depends on them: the processor then fetches rows ahead.
        for i in range(n_unsure):
            values[unsure[i]] = _dot(x[rows[unsure[i]]], w) + b
        end = ends[f]
        for i in range(ends[f], at):
            rows[end] = rows[i]
            values[end] = values[i]
            end += values[i] > limit
        ends[f + 1] = end
    return n_features


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
def rounding_norms(
    exact: npt.NDArray[np.float32], kept: npt.NDArray[np.float32], norms: npt.NDArray[np.float32]
) -> None:
    """Set ``norms`` [4, N] to ‖kept‖, ‖lost‖, ‖kept‖₄² and ‖lost‖₄² of each row, where lost = exact - kept, [N, D]."""
    for i in range(exact.shape[0]):
        a = exact[i]
        b = kept[i]
        s2 = np.float32(0.0)
        l2 = np.float32(0.0)
        s4 = np.float32(0.0)
        l4 = np.float32(0.0)
        for d in range(a.shape[0]):
            s = b[d] * b[d]
            lost = a[d] - b[d]
            q = lost * lost
            s2 += s
            l2 += q
            s4 += s * s
            l4 += q * q
        norms[0, i] = np.sqrt(s2)
        norms[1, i] = np.sqrt(l2)
        norms[2, i] = np.sqrt(s4)
        norms[3, i] = np.sqrt(l4)


@njit(nogil=True, cache=True)
def pair_products(
    x: npt.NDArray[np.float32],
    weights: npt.NDArray[np.float32],
    rows: npt.NDArray[np.int64],
    features: npt.NDArray[np.int64],
    found: npt.NDArray[np.float32],
) -> None:
    """Set ``found`` [P] to the products of pairs of a row of ``x`` [T, D] and one of ``weights`` [F, D]."""
    for i in range(rows.shape[0]):
        found[i] = _dot(x[rows[i]], weights[features[i]])
