"""Compiled loops over a tile of products: pick what is active. Pure arrays, no files, no torch.

A tile is [rows, features], and its entries come out row by row; :func:`into_columns` then deals them out to their columns,
in which rows ascend because they came in that order. Sixty-four features are compared at once, and nearly all are below.

The arrays for entries have room for a whole tile: memory that is not touched costs nothing. All that is compared has room for
``LANES`` numbers more, which are read and ignored.

bfloat16 numbers come as their bits, in int16. For a positive bound, ``number <= bound`` is ``bits <= bound's bits``: bits of
positive numbers order as the numbers do, and those of negative numbers are negative. So comparing needs no conversion.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from conceptatlas.saes._masks import LANES, at_most, lowest, sum_above, sum_above_one

_ONE = np.uint64(1)
_ALL = np.uint64(2**64 - 1)


@njit(nogil=True, cache=True)
def _within(left: int) -> np.uint64:
    """Return bits for as many of ``LANES`` numbers as are left."""
    return _ALL if left >= LANES else (_ONE << np.uint64(left)) - _ONE


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
        bias: [F + LANES], like the next.
        threshold: Above what a feature is active.
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
            mask = sum_above(products, bias, threshold, first) & _within(n_features - first)
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
def take_few(
    products: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32],
    threshold: npt.NDArray[np.float32],
    ends: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int32],
    values: npt.NDArray[np.float32],
) -> bool:
    """Do as :func:`take_above` for products that lie feature by feature, so that columns come out at once.

    Args:
        products: [F, T].
        bias: [F].
        threshold: [F].
        ends: [F], set to where each feature's entries end.
        rows: [F T], where the rows go.
        values: [F T], where the pre-activations go.

    Returns:
        Whether the first feature's products are finite: a row that is not makes no product that is, whatever the weights.
    """
    n_features, n_rows = products.shape
    n = 0
    for f in range(n_features):
        column = products[f]
        for first in range(0, n_rows, LANES):
            mask = sum_above_one(column, bias[f], threshold[f], first) & _within(n_rows - first)
            while mask != 0:
                t = first + lowest(mask)
                mask &= mask - _ONE
                rows[n] = t
                values[n] = column[t] + bias[f]
                n += 1
        ends[f] = n
    return n_features == 0 or _zero_if_finite(products[0]) == 0.0


@njit(nogil=True, cache=True, fastmath={"reassoc"})
def _zero_if_finite(numbers: npt.NDArray[np.float32]) -> np.float32:
    """Return 0, or NaN where a number is not finite."""
    total = np.float32(0.0)
    for i in range(numbers.shape[0]):
        total += numbers[i] * np.float32(0.0)
    return total


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
def _dot(x: npt.NDArray[np.float32], t: int, weights: npt.NDArray[np.float32], f: int) -> np.float32:
    """Return x[t] · weights[f]; the order of the sum is the compiler's, so that it can use vector instructions."""
    total = np.float32(0.0)
    for d in range(x.shape[1]):
        total += x[t, d] * weights[f, d]
    return total


@njit(nogil=True, cache=True)
def _reach(
    x_maxima: npt.NDArray[np.float32],
    w_norms: npt.NDArray[np.float32],
    first: int,
    n_features: int,
    factors: tuple[float, float],
    bounds: npt.NDArray[np.int16],
) -> None:
    """Set ``bounds`` to the bits of how far products with a block of rows may be wrong, rounded down, feature by feature.

    ``x_maxima`` [4] are the largest norms of the block, ``w_norms`` [4, d_sae] those of the weights, in the same order.
    """
    always = np.float32(factors[0])
    almost = np.float32(factors[1])
    x, dx, x4, dx4 = x_maxima[0], x_maxima[1], x_maxima[2], x_maxima[3]
    for f in range(n_features):
        one = always * (w_norms[0, first + f] * dx + w_norms[1, first + f] * x)
        other = almost * np.sqrt(w_norms[2, first + f] * dx4 + w_norms[3, first + f] * x4)
        bounds[f] = np.int16(np.float32(min(one, other)).view(np.int32) >> np.int32(16))


@njit(nogil=True, cache=True)
def _number(bits: np.int16) -> np.float32:
    """Return the number that bfloat16 bits stand for."""
    return np.int32(np.int32(bits) << 16).view(np.float32)


@njit(nogil=True, cache=True)
def take_decided(
    bits: npt.NDArray[np.int16],
    block: int,
    x_maxima: npt.NDArray[np.float32],
    x_norms: npt.NDArray[np.float32],
    w_norms: npt.NDArray[np.float32],
    norms_of_w: npt.NDArray[np.float32],
    first_feature: int,
    factors: tuple[float, float],
    x: npt.NDArray[np.float32],
    weights: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32],
    threshold: npt.NDArray[np.float32],
    bounds: npt.NDArray[np.int16],
    unsure: npt.NDArray[np.int32],
    counts: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int32],
    features: npt.NDArray[np.uint16],
    values: npt.NDArray[np.float32],
) -> int:
    """Decide by how much bfloat16 products lie *below* the threshold; where that is not sure, a float32 product tells.

    Args:
        bits: [R, F], threshold minus pre-activation, as bfloat16 bits.
        block: Rows of a block; what may be near the threshold is found by a margin for all of them.
        x_maxima: [ceil(R / block), 4], the largest of each norm in a block of rows.
        x_norms: [R, 4], from which a candidate's own margin is computed.
        w_norms: [4, d_sae].
        norms_of_w: Those of the tile's features [F, 4].
        first_feature: The tile's first.
        factors: Of the bound that always holds, and of the one that almost always does.
        x: [R, D] rows.
        weights: [F, D].
        bias: [F].
        threshold: [F].
        bounds: [F + LANES], to work in.
        unsure: [R F, 2], likewise.
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
    n = 0
    n_unsure = 0
    for t in range(n_rows):
        below = bits[t]
        if t % block == 0:
            _reach(x_maxima[t // block], w_norms, first_feature, n_features, factors, bounds)
        for first in range(0, n_features, LANES):
            mask = at_most(below, bounds, first) & _within(n_features - first)
            while mask != 0:
                f = first + lowest(mask)
                mask &= mask - _ONE
                short = _number(below[f])
                features[n] = f
                values[n] = threshold[f] - short
                if short < -_number(bounds[f]):
                    n += 1
                    continue
                own = min(
                    always * (norms_of_w[f, 0] * x_norms[t, 1] + norms_of_w[f, 1] * x_norms[t, 0]),
                    almost * np.sqrt(norms_of_w[f, 2] * x_norms[t, 3] + norms_of_w[f, 3] * x_norms[t, 2]),
                )
                unsure[n_unsure, 0] = t
                unsure[n_unsure, 1] = n
                n_unsure += abs(short) <= own
                n += short <= own
        ends[t] = n
    # All of them together, when the products are done with: the weights then stay in the cache, and nothing waits for one.
    for i in range(n_unsure):
        at = unsure[i, 1]
        values[at] = _dot(x, unsure[i, 0], weights, features[at]) + bias[features[at]]
    n = 0
    i = 0
    for t in range(n_rows):
        while i < ends[t]:
            f = features[i]
            features[n] = f
            values[n] = values[i]
            active = values[i] > threshold[f]
            counts[f] += active
            n += active
            i += 1
        ends[t] = n
    return n


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
def round_numbers(exact: npt.NDArray[np.float32], low: npt.NDArray[np.int16], norms: npt.NDArray[np.float32]) -> None:
    """Round finite numbers to bfloat16 (the nearest, of two the even one), and measure what is kept and lost of each row.

    Args:
        exact: [N, D].
        low: [N, D or more]; the first D bits of each row are set.
        norms: [4, N], set to ‖kept‖, ‖lost‖, ‖kept‖₄² and ‖lost‖₄² of each row, where lost = exact - kept.
    """
    for i in range(exact.shape[0]):
        s2 = np.float32(0.0)
        l2 = np.float32(0.0)
        s4 = np.float32(0.0)
        l4 = np.float32(0.0)
        for d in range(exact.shape[1]):
            number = exact[i, d]
            bits = np.float32(number).view(np.uint32)
            high = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
            kept = np.uint32(high << np.uint32(16)).view(np.float32)
            low[i, d] = np.int16(high)
            lost = number - kept
            s = kept * kept
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
        found[i] = _dot(x, rows[i], weights, features[i])


@njit(nogil=True, cache=True)
def count_rows(rows: npt.NDArray[np.int32], counts: npt.NDArray[np.int64]) -> None:
    """Add one to ``counts`` [N] for every entry of that row; entries of later rows are left out."""
    for i in range(rows.shape[0]):
        if rows[i] < counts.shape[0]:
            counts[rows[i]] += 1


@njit(nogil=True, cache=True, fastmath={"contract"})
def add_decoded(
    indptr: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int32],
    values: npt.NDArray[np.float32],
    W_dec: npt.NDArray[np.float32],
    first: int,
    out: npt.NDArray[np.float32],
) -> None:
    """Add activations times the columns of ``W_dec`` [F, D] from ``first`` on to ``out`` [N, D_part], for the first N rows."""
    width = out.shape[1]
    for f in range(W_dec.shape[0]):
        weights = W_dec[f, first : first + width]
        for i in range(indptr[f], indptr[f + 1]):
            if rows[i] >= out.shape[0]:
                break
            row = out[rows[i]]
            value = values[i]
            for d in range(width):
                row[d] += value * weights[d]


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
def squared_distance(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    """Return Σ (a - b)² of [N, D] arrays: float32 differences, summed in float64."""
    total = 0.0
    for i in range(a.shape[0]):
        one = a[i]
        other = b[i]
        for d in range(one.shape[0]):
            difference = np.float64(one[d] - other[d])
            total += difference * difference
    return total
