"""The AUROC and its interval: logit-DeLong, by group where there are groups, exact at the ends.

DeLong, DeLong & Clarke-Pearson 1988, eq. 3–5, on the logit scale; for clustered items Obuchowski 1997, eq. 5–8, which
is the same where every item is a cluster of its own.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit, ndtri

from conceptatlas.ranking.kernels import F64


class Interval(NamedTuple):
    """An AUROC with its interval; ``low`` and ``high`` are NaN where the data give none."""

    auroc: float
    low: float
    high: float


def mid_ranks(values: npt.NDArray[np.floating]) -> F64:
    """Return 1-based ranks, ties sharing their mean rank, float64 [N] (``scipy.stats.rankdata``, which costs a second)."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse], dtype=np.float64)


def placements(scores: F64, is_high: npt.NDArray[np.bool_]) -> F64:
    """Return for each item the share of items of the other class that stand on its right side (ties ½), [N].

    For a high item: the share of low items below it; for a low item: the share of high items above it. The mean over
    either class is the AUROC.
    """
    ranks = mid_ranks(scores)
    out = np.empty(len(scores))
    for side in (True, False):
        own = is_high == side
        others = len(scores) - int(own.sum())
        below = (ranks[own] - mid_ranks(scores[own])) / others
        out[own] = below if side else 1 - below
    return out


def auroc_interval(
    scores: npt.NDArray[np.floating],
    is_high: npt.NDArray[np.bool_],
    groups: npt.NDArray[np.integer] | None = None,
    *,
    confidence: float = 0.95,
) -> Interval:
    """Return the AUROC of ``scores`` [N] for ``is_high`` (bool [N]) with its interval.

    Args:
        scores: Higher means more of the class.
        is_high: The class of each item.
        groups: Number of each item's group, int [N]; items of one group are not independent. None: each its own.
        confidence: Coverage aimed at.

    The interval is logit(AUROC) ± z·se/(AUROC(1 − AUROC)). Where the AUROC is 1 (or 0) the variance says nothing; the
    lower bound is then exact: min(m, n) disjoint pairs of independent items are all in order with a probability of at
    most AUROC^min(m, n), so the bound solves bound^min(m, n) = (1 − confidence)/2, groups counted instead of items.
    It is NaN where a class is missing, where its spread cannot be estimated (fewer than two groups of a class), and
    where all scores are equal.
    """
    n_high = int(is_high.sum())
    n_low = len(is_high) - n_high
    if not n_high or not n_low:
        return Interval(np.nan, np.nan, np.nan)
    if groups is None:
        groups = np.arange(len(is_high))
    place = placements(np.asarray(scores, dtype=np.float64), is_high)
    theta = float(place[is_high].mean())
    tail = (1 - confidence) / 2
    if theta >= 1 - 1e-12 or theta <= 1e-12:
        bound = tail ** (1 / _disjoint_pairs(is_high, groups))
        return Interval(1.0, bound, 1.0) if theta > 0.5 else Interval(0.0, 0.0, 1 - bound)
    variance = _clustered_variance(place, is_high, groups, theta)
    if not variance > 0:
        return Interval(theta, np.nan, np.nan)
    centre, half = logit(theta), ndtri(1 - tail) * np.sqrt(variance) / (theta * (1 - theta))
    return Interval(theta, float(expit(centre - half)), float(expit(centre + half)))


def _clustered_variance(
    place: F64, is_high: npt.NDArray[np.bool_], groups: npt.NDArray[np.integer], theta: float
) -> float:
    _, group = np.unique(groups, return_inverse=True)
    sums = {}
    for side in (True, False):
        own = is_high == side
        deviation = np.bincount(group[own], place[own] - theta, minlength=group.max() + 1)
        present = np.bincount(group[own], minlength=group.max() + 1) > 0
        clusters = int(present.sum())
        if clusters < 2:
            return np.nan
        sums[side] = deviation, clusters, int(own.sum())
    (high, k_high, m), (low, k_low, n) = sums[True], sums[False]
    k = len(high)
    variance = k_high / (k_high - 1) * float(high @ high) / m**2 + k_low / (k_low - 1) * float(low @ low) / n**2
    return variance + 2 * k / (k - 1) * float(high @ low) / (m * n)


def _disjoint_pairs(is_high: npt.NDArray[np.bool_], groups: npt.NDArray[np.integer]) -> int:
    """Return how many (high, low) pairs can be drawn with every group used once (at least 1)."""
    with_high, with_low = set(groups[is_high].tolist()), set(groups[~is_high].tolist())
    return max(1, min(len(with_high), len(with_low), len(with_high | with_low) // 2))
