"""Compiled loops of ``--keep top``: of each feature, its entries of smallest key. Pure arrays, no files, no torch.

Entries of F features stand one feature after the other: those of feature f are ``starts[f]:starts[f + 1]``. Keys are
uint64, and no two entries of a feature share one, so that what is chosen does not depend on the order of the entries.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

Keys = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]


@njit(nogil=True, cache=True)
def smallest(starts: Places, keys: Keys, bounds: Keys, most: int) -> tuple[Places, Places]:
    """Choose of each feature the ``most`` smallest keys that are not above its bound.

    Room for twice as many is filled with what may belong, then sorted and cut: few entries are ever sorted.

    Args:
        starts: Where each feature's entries begin, int64 [F + 1].
        keys: uint64 [n].
        bounds: uint64 [F].
        most: At least 1.

    Returns:
        Where each feature's chosen entries begin, int64 [F + 1], and the places of these, ascending by key.
    """
    n_features = len(starts) - 1
    kept = np.zeros(n_features + 1, np.int64)
    chosen = np.empty(min(len(keys), most * n_features), np.int64)
    room = min(2 * most, len(keys) + 1)
    found, places = np.empty(room, np.uint64), np.empty(room, np.int64)
    for feature in range(n_features):
        bound, n = bounds[feature], 0
        for entry in range(starts[feature], starts[feature + 1]):
            if keys[entry] > bound:
                continue
            found[n], places[n] = keys[entry], entry
            n += 1
            if n == 2 * most:
                order = np.argsort(found)[:most]
                found[:most], places[:most] = found[order], places[order]
                bound, n = found[most - 1], most
        order = np.argsort(found[:n])[:most]
        kept[feature + 1] = kept[feature] + len(order)
        chosen[kept[feature] : kept[feature + 1]] = places[order]
    return kept, chosen[: kept[-1]]


@njit(nogil=True, cache=True)
def smallest_of_two(
    first_starts: Places, first_keys: Keys, second_starts: Places, second_keys: Keys, most: int
) -> tuple[Places, Places]:
    """Choose of each feature the ``most`` smallest keys of two sets of entries, both ascending by key.

    Args:
        first_starts: Where each feature's entries begin in the first set, int64 [F + 1].
        first_keys: uint64 [n].
        second_starts: The same of the second set.
        second_keys: uint64 [m].
        most: At least 1.

    Returns:
        Where each feature's chosen entries begin, int64 [F + 1], and the places of these, ascending by key; places of
        the second set are counted from n.
    """
    n_features = len(first_starts) - 1
    kept = np.zeros(n_features + 1, np.int64)
    chosen = np.empty(len(first_keys) + len(second_keys), np.int64)
    n = 0
    for feature in range(n_features):
        one, one_end = first_starts[feature], first_starts[feature + 1]
        two, two_end = second_starts[feature], second_starts[feature + 1]
        for _ in range(min(most, one_end - one + two_end - two)):
            if two == two_end or (one < one_end and first_keys[one] < second_keys[two]):
                chosen[n] = one
                one += 1
            else:
                chosen[n] = len(first_keys) + two
                two += 1
            n += 1
        kept[feature + 1] = n
    return kept, chosen[:n]


@njit(nogil=True, cache=True)
def count_bins(
    starts: Places, values: npt.NDArray[np.float32], edges: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """Count each feature's magnitudes between the edges, as ``np.searchsorted(edges, |value|, side="right")`` does.

    Args:
        starts: Where each feature's entries begin, int64 [F + 1].
        values: float32 [n].
        edges: float64 [B − 1], ascending.

    Returns:
        int64 [F, B].
    """
    n_features = len(starts) - 1
    counts = np.zeros((n_features, len(edges) + 1), np.int64)
    for feature in range(n_features):
        for entry in range(starts[feature], starts[feature + 1]):
            magnitude = abs(np.float64(values[entry]))
            low, high = 0, len(edges)
            while low < high:
                middle = (low + high) // 2
                if edges[middle] <= magnitude:
                    low = middle + 1
                else:
                    high = middle
            counts[feature, low] += 1
    return counts
