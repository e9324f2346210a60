"""Compiled loops over a tile of products: pick what is active. Pure arrays, no files, no torch.

A tile is [rows, features], and its entries come out row by row; :func:`into_columns` then deals them out to their columns,
in which rows ascend because they came in that order. Sixty-four features are compared at once, and nearly all are below.

The arrays for entries have room for a whole tile: memory that is not touched costs nothing.

bfloat16 numbers come as their bits, in int16. For a positive bound, ``number <= bound`` is ``bits <= bound's bits``: bits of
positive numbers order as the numbers do, and those of negative numbers are negative. So comparing needs no conversion.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from conceptatlas.saes._masks import LANES, at_most, lowest, sum_above

_ONE = np.uint64(1)


@njit(nogil=True, cache=True)
def take_above(
    tile: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32],
    threshold: npt.NDArray[np.float32],
    counts: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int32],
    features: npt.NDArray[np.uint16],
    values: npt.NDArray[np.float32],
) -> int:
    """Copy ``tile + bias`` where that is above the threshold.

    Args:
        tile: [R, F].
        bias: [F].
        threshold: [F].
        counts: [F], zeros; set to the entries of each feature.
        ends: [R], set to where each row's entries end.
        features: [R F], where the features go.
        values: [R F], where the pre-activations go.

    Returns:
        The number of entries.
    """
    n_rows, n_features = tile.shape
    n = 0
    for t in range(n_rows):
        products = tile[t]
        for first in range(0, n_features, LANES):
            if first + LANES <= n_features:
                mask = sum_above(products, bias, threshold, first)
            else:
                mask = np.uint64(0)
                for f in range(first, n_features):
                    mask |= np.uint64(products[f] + bias[f] > threshold[f]) << np.uint64(f - first)
            while mask != 0:
                f = first + lowest(mask)
                mask &= mask - _ONE
                features[n] = f
                values[n] = products[f] + bias[f]
                counts[f] += 1
                n += 1
        ends[t] = n
    return n


@njit(nogil=True, cache=True)
def into_columns(
    first_row: int,
    ends: npt.NDArray[np.int32],
    features: npt.NDArray[np.uint16],
    values: npt.NDArray[np.float32],
    at: npt.NDArray[np.int64],
    column_rows: npt.NDArray[np.int32],
    column_values: npt.NDArray[np.float32],
) -> None:
    """Deal the entries of rows from ``first_row`` on out to columns; ``at`` [F], each column's next place, is moved on."""
    i = 0
    for t in range(ends.shape[0]):
        while i < ends[t]:
            place = at[features[i]]
            column_rows[place] = first_row + t
            column_values[place] = values[i]
            at[features[i]] = place + 1
            i += 1


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
    reach: npt.NDArray[np.int16],
    block: int,
    x_norms: npt.NDArray[np.float32],
    w_norms: npt.NDArray[np.float32],
    factors: tuple[float, float],
    x: npt.NDArray[np.float32],
    weights: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32],
    threshold: npt.NDArray[np.float32],
    counts: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int32],
    features: npt.NDArray[np.uint16],
    values: npt.NDArray[np.float32],
) -> int:
    """Decide by how much bfloat16 products lie *below* the threshold; where that is not sure, a float32 product tells.

    Args:
        bits: [R, F], threshold minus pre-activation, as bfloat16 bits.
        reach: [ceil(R / block), F], bits of how far ``bits`` may be wrong, for each block of rows.
        block: Rows of a block.
        x_norms: [R, 4], from which a candidate's own margin is computed.
        w_norms: [F, 4], likewise.
        factors: Of the bound that always holds, and of the one that almost always does.
        x: [R, D] rows.
        weights: [F, D].
        bias: [F].
        threshold: [F].
        counts: As for :func:`take_above`, like all that follow.
        ends: As above.
        features: As above.
        values: As above.

    Returns:
        The number of entries.
    """
    n_rows, n_features = bits.shape
    always = np.float32(factors[0])
    almost = np.float32(factors[1])
    unsure = np.empty(n_features, np.int64)
    n = 0
    for t in range(n_rows):
        below = bits[t]
        bound = reach[t // block]
        a = x_norms[t]
        begin = n
        n_unsure = 0
        for first in range(0, n_features, LANES):
            if first + LANES <= n_features:
                mask = at_most(below, bound, first)
            else:
                mask = np.uint64(0)
                for f in range(first, n_features):
                    mask |= np.uint64(below[f] <= bound[f]) << np.uint64(f - first)
            while mask != 0:
                f = first + lowest(mask)
                mask &= mask - _ONE
                short = np.int32(np.int32(below[f]) << 16).view(np.float32)
                v = w_norms[f]
                own = min(always * (v[0] * a[1] + v[1] * a[0]), almost * np.sqrt(v[2] * a[3] + v[3] * a[2]))
                if short > own:
                    continue
                features[n] = f
                values[n] = threshold[f] - short
                unsure[n_unsure] = n
                n_unsure += short >= -own
                n += 1
        # One after the other, with nothing between that depends on them: the processor then fetches weights ahead.
        for i in range(n_unsure):
            f = features[unsure[i]]
            values[unsure[i]] = _dot(x[t], weights[f]) + bias[f]
        end = n
        n = begin
        for i in range(begin, end):
            f = features[i]
            if values[i] > threshold[f]:
                features[n] = f
                values[n] = values[i]
                counts[f] += 1
                n += 1
        ends[t] = n
    return n


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
