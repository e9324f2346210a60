"""Concordance over all grades (the C-index), and the AUROC of each two neighbouring grades."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from conceptatlas.statistics.auroc import F64, Interval, auroc_interval, mid_ranks, score_bounds

Ints = npt.NDArray[np.integer]


def concordance(
    scores: npt.NDArray[np.floating], grades: Ints, groups: Ints | None = None, *, confidence: float = 0.95
) -> Interval:
    """Return the share of pairs of different grade whose scores are in the order of their grades, with its interval.

    Harrell's C-index, ties in the score ½; of two grades it is the AUROC. The interval is a score interval as the
    AUROC's (``score_bounds``) with as many items in either class as half of the items are worth: their number over the
    design effect of the groups, and never more than the groups.

    Args:
        scores: Higher means more of the concept, [N].
        grades: Whole numbers, [N].
        groups: Number of each item's group, [N]; None where all are independent.
        confidence: Coverage aimed at.

    Returns:
        The concordance and its bounds; NaN where all items have one grade.
    """
    scores = np.asarray(scores, dtype=np.float64)
    right, pairs = concordant_pairs(scores, grades)
    if not pairs.sum():
        return Interval(np.nan, np.nan, np.nan)
    estimate = float(right.sum() / pairs.sum())
    size = effective_items(right - estimate * pairs, groups) / 2
    low, high = score_bounds(np.array([estimate]), size, size, confidence=confidence)
    return Interval(estimate, float(low[0]), float(high[0]))


def concordant_pairs(scores: F64, grades: Ints) -> tuple[F64, F64]:
    """Return for each item the pairs with an item of another grade that are in order (ties ½), and all of them, [N] each."""
    right, pairs = np.zeros(len(scores)), np.zeros(len(scores))
    present = np.unique(grades)
    for place, low in enumerate(present):
        for high in present[place + 1 :]:
            own = np.flatnonzero((grades == low) | (grades == high))
            is_high = grades[own] == high
            ranks = mid_ranks(scores[own])
            for side in (True, False):
                mine = is_high == side
                others = int((~mine).sum())
                below = ranks[mine] - mid_ranks(scores[own][mine])
                right[own[mine]] += below if side else others - below
                pairs[own[mine]] += others
    return right, pairs


def effective_items(deviation: F64, groups: Ints | None) -> float:
    """Return how many independent items the items are worth, given each one's deviation in a statistic, [N]."""
    n = float(len(deviation))
    if groups is None:
        return n
    _, group = np.unique(groups, return_inverse=True)
    sums = np.bincount(group, deviation)
    apart, together = float(deviation @ deviation), float(sums @ sums)
    effect = max(1.0, together / apart) if apart > 0 else 1.0
    return min(n / effect, float(len(sums)))


def adjacent_aurocs(
    scores: npt.NDArray[np.floating], grades: Ints, groups: Ints | None = None, *, confidence: float = 0.95
) -> dict[tuple[int, int], Interval]:
    """Return the AUROC of each grade against the next lower one there is, (higher, lower) -> interval."""
    present = np.unique(grades).tolist()
    out = {}
    for low, high in pairwise(present):
        own = (grades == low) | (grades == high)
        mine = None if groups is None else groups[own]
        out[int(high), int(low)] = auroc_interval(scores[own], grades[own] == high, mine, confidence=confidence)
    return out
