"""The AUROC and its interval, by group where items are not independent."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

F64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

# Enough for twelve digits.
_HALVINGS = 40


class Interval(NamedTuple):
    """An estimate with its interval; ``low`` and ``high`` are NaN where the data give none."""

    estimate: float
    low: float
    high: float


def mid_ranks(values: npt.NDArray[np.floating]) -> F64:
    """Return 1-based ranks, ties sharing their mean rank, float64 [N] (as ``scipy.stats.rankdata``, without its import)."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse], dtype=np.float64)


def auroc(scores: npt.NDArray[np.floating], is_high: Bools) -> float:
    """Return the share of (high, low) pairs in which the high item scores more, ties ½; NaN where a class is missing."""
    n_high = int(is_high.sum())
    n_low = len(is_high) - n_high
    if not n_high or not n_low:
        return float("nan")
    return float((mid_ranks(scores)[is_high].sum() - n_high * (n_high + 1) / 2) / (n_high * n_low))


def placements(scores: F64, is_high: Bools) -> F64:
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
    is_high: Bools,
    groups: npt.NDArray[np.integer] | None = None,
    *,
    confidence: float = 0.95,
) -> Interval:
    """Return the AUROC of ``scores`` [N] for ``is_high`` (bool [N]) with its score interval (see ``score_bounds``).

    Args:
        scores: Higher means more of the class.
        is_high: The class of each item.
        groups: Number of each item's group, int [N]; items of one group are not independent. None: each its own.
        confidence: Coverage aimed at.

    With groups the class sizes are divided by the design effect: the clustered variance of the AUROC (Obuchowski 1997,
    eq. 5-8) over that of independent items, never below 1; and no class counts more than its groups. The interval is
    NaN only where a class is missing.
    """
    n_high = int(is_high.sum())
    n_low = len(is_high) - n_high
    if not n_high or not n_low:
        return Interval(np.nan, np.nan, np.nan)
    place = placements(np.asarray(scores, dtype=np.float64), is_high)
    theta = float(place[is_high].mean())
    m, n = effective_sizes(place - theta, is_high, groups)
    low, high = score_bounds(np.array([theta]), m, n, confidence=confidence)
    return Interval(theta, float(low[0]), float(high[0]))


def effective_sizes(deviation: F64, is_high: Bools, groups: npt.NDArray[np.integer] | None) -> tuple[float, float]:
    """Return how many independent items of the high and of the low class the items are worth.

    Args:
        deviation: Placement minus AUROC of each item, [N].
        is_high: The class of each item.
        groups: Its group; None where all are independent.
    """
    m, n = float(is_high.sum()), float((~is_high).sum())
    if groups is None:
        return m, n
    clusters = [len(np.unique(groups[is_high == side])) for side in (True, False)]
    apart = clustered_covariance(deviation, deviation, is_high, np.arange(len(is_high)))
    together = clustered_covariance(deviation, deviation, is_high, groups)
    effect = max(1.0, together / apart) if apart > 0 and np.isfinite(together) else 1.0
    return min(m / effect, float(clusters[0])), min(n / effect, float(clusters[1]))


def clustered_covariance(a: F64, b: F64, is_high: Bools, groups: npt.NDArray[np.integer]) -> float:
    """Return the covariance of two AUROCs from their items' deviations (placement minus AUROC), by group.

    Obuchowski 1997, eq. 5-8; where every item is its own group it is that of DeLong et al. 1988, eq. 3-5. NaN where a
    class has fewer than two groups.
    """
    _, group = np.unique(groups, return_inverse=True)
    n_groups = int(group.max()) + 1
    sums, sizes, clusters = {}, {}, {}
    for side in (True, False):
        own = is_high == side
        sums[side] = [np.bincount(group[own], value[own], n_groups) for value in (a, b)]
        clusters[side] = len(np.unique(group[own]))
        sizes[side] = int(own.sum())
        if clusters[side] < 2:
            return float("nan")
    out = 0.0
    for side in (True, False):
        out += clusters[side] / (clusters[side] - 1) * float(sums[side][0] @ sums[side][1]) / sizes[side] ** 2
    across = float(sums[True][0] @ sums[False][1] + sums[False][0] @ sums[True][1])
    return out + n_groups / (n_groups - 1) * across / (sizes[True] * sizes[False])


def score_bounds(
    theta: F64, m: npt.ArrayLike, n: npt.ArrayLike, *, confidence: float = 0.95, z: npt.ArrayLike | None = None
) -> tuple[F64, F64]:
    """Return the bounds of AUROCs ``theta`` [K] from ``m`` and ``n`` independent items of the two classes.

    Newcombe 2006 (Statistics in Medicine 25:559, part 2), method 5: the θ at which |θ̂ − θ| = z √V(θ), with
    V(θ) = θ(1 − θ) [1 + N* ((1 − θ)/(2 − θ) + θ/(1 + θ))] / (mn) and N* = (m + n)/2 − 1 (Hanley & McNeil 1982 with both
    class sizes replaced by their mean). The variance is that at the bound, so that it does not vanish at 0 or 1, and a
    lower AUROC never has a higher bound. ``z`` [K] takes the place of ``confidence``.
    """
    m, n = np.asarray(m, dtype=np.float64), np.asarray(n, dtype=np.float64)
    z = ndtri((1 + confidence) / 2) if z is None else np.asarray(z, dtype=np.float64)
    size = np.maximum((m + n) / 2 - 1, 0)

    def half(t: F64) -> F64:
        spread = 1 + size * ((1 - t) / (2 - t) + t / (1 + t))
        return np.asarray(z * np.sqrt(np.maximum(t * (1 - t), 0) * spread / (m * n)))

    outer = [np.zeros_like(theta), np.ones_like(theta)]
    inner = [theta.astype(np.float64), theta.astype(np.float64)]
    for _ in range(_HALVINGS):
        for side, sign in ((0, 1.0), (1, -1.0)):
            middle = (outer[side] + inner[side]) / 2
            inside = sign * (theta - middle) <= half(middle)
            inner[side] = np.where(inside, middle, inner[side])
            outer[side] = np.where(inside, outer[side], middle)
    return inner[0], inner[1]
