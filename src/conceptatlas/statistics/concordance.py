"""AUROC and concordance over grades, with score intervals that allow for groups.

The concordance (C-index) is the share of all pairs of items of different grade that the score puts in order, ties
counting ½; with two grades it is the AUROC. Interval: Newcombe 2006 (Statistics in Medicine 25, part 2, method 5). The
bounds solve (θ̂ − θ)² = z²·V(θ), with Hanley & McNeil's variance taken at the bound θ itself:

    V(θ) = θ(1 − θ)·[1 + N*·((1 − θ)/(2 − θ) + θ/(1 + θ))] / Π,    Π = Σ pairs,  N* = Σ_g n_g (d_g↑ − d_g↓)² / 2Π − 1,

d_g↑ and d_g↓ being the numbers of items below and above grade g. With two grades Π = mn and N* = (m + n)/2 − 1, which
is Newcombe's formula. V does not vanish at θ̂ = 1, so that one inversion never raises the lower bound.

Items of one group are not independent. Their numbers are divided by the design effect (variance by cluster,
Obuchowski 1997, over the variance of independent items, DeLong et al. 1988; at least 1) and a grade never counts for more
than its groups: (Σ sizes)² / Σ sizes² (Kish 1965), which is the number of groups where they are of one size.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import ndtri

from conceptatlas.statistics.auroc import F64, wins


class Interval(NamedTuple):
    """An AUROC with its interval; all NaN where a class is missing."""

    auroc: float
    low: float
    high: float


class Concordance(NamedTuple):
    """A concordance over all grades with its interval; all NaN where there are fewer than two grades."""

    concordance: float
    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """A concordance with what its interval and its comparison with another need.

    Attributes:
        theta: The concordance.
        influence: float64 [K], the sum of each group's deviations over the number of pairs; Σ influence² is the variance.
        counts: float64 [G], the effective number of items of each grade.
    """

    theta: float
    influence: F64
    counts: F64


def estimate(
    scores: npt.NDArray[np.floating], grades: npt.NDArray[np.generic], groups: npt.NDArray[np.integer] | None
) -> Estimate:
    """Return the concordance of ``scores`` [N] with ``grades`` [N] (bool or numbers), by ``groups`` [N]."""
    x: F64 = np.asarray(scores, dtype=np.float64)
    names, grade = np.unique(grades, return_inverse=True)
    members = [np.flatnonzero(grade == g) for g in range(len(names))]
    sizes = np.array([len(m) for m in members], dtype=np.float64)
    in_order, pairs_of = np.zeros(len(scores)), np.zeros(len(scores))
    for low, high in combinations(members, 2):
        below, above = wins(x[high], x[low])
        in_order[high] += below
        in_order[low] += above
        pairs_of[high] += len(low)
        pairs_of[low] += len(high)
    n_pairs = pairs_of.sum() / 2
    if not n_pairs:
        return Estimate(np.nan, np.zeros(0), sizes)
    theta = float(in_order.sum() / 2 / n_pairs)
    deviation = (in_order - theta * pairs_of) / n_pairs
    if groups is None:
        return Estimate(theta, deviation, sizes)
    _, group = np.unique(groups, return_inverse=True)
    influence: F64 = np.bincount(group, deviation).astype(np.float64)
    by_group = np.array([np.bincount(group[m], minlength=len(influence)) for m in members], dtype=np.float64)
    cap = sizes**2 / (by_group**2).sum(axis=1)
    # Deviations of few clusters around their own mean are too small by (k - 1) / k.
    k, n = float((by_group > 0).sum(axis=1).min()), float(sizes.min())
    independent = float(deviation @ deviation) * (n / (n - 1) if n > 1 else 1)
    clustered = float(influence @ influence) * (k / (k - 1) if k > 1 else 1)
    effect = max(1.0, clustered / independent) if independent > 0 else 1.0
    return Estimate(theta, influence, np.minimum(sizes / effect, cap))


def score_bounds(theta: float, counts: F64, z: float) -> tuple[float, float]:
    """Return the two bounds that solve (θ̂ − θ)² = z²·V(θ).

    Args:
        theta: The concordance found.
        counts: The effective number of items of each grade, [G ≥ 2].
        z: Standard normal deviate of the confidence.
    """
    return _lower(theta, counts, z), 1 - _lower(1 - theta, counts, z)


def _lower(theta: float, counts: F64, z: float) -> float:
    below = np.concatenate([[0.0], np.cumsum(counts)[:-1]])
    above = counts.sum() - below - counts
    n_pairs = float(counts @ below)
    others = max(float(counts @ (below - above) ** 2) / (2 * n_pairs) - 1, 0.0)

    def excess(t: float) -> float:
        variance = t * (1 - t) * (1 + others * ((1 - t) / (2 - t) + t / (1 + t))) / n_pairs
        return (theta - t) ** 2 - z * z * variance

    # At 1 the variance is 0 and the equation holds, whatever the counts: the bound is the root below it.
    upper = min(theta, 1 - 1e-9)
    return theta if theta <= 0 or excess(upper) >= 0 else float(brentq(excess, 0.0, upper, xtol=1e-12))


def _with_bounds(found: Estimate, confidence: float) -> tuple[float, float, float]:
    if np.isnan(found.theta):
        return np.nan, np.nan, np.nan
    low, high = score_bounds(found.theta, found.counts, float(ndtri((1 + confidence) / 2)))
    return found.theta, low, high


def auroc_interval(
    scores: npt.NDArray[np.floating],
    is_high: npt.NDArray[np.bool_],
    groups: npt.NDArray[np.integer] | None = None,
    *,
    confidence: float = 0.95,
) -> Interval:
    """Return the AUROC of ``scores`` [N] for ``is_high`` (bool [N]) with its score interval.

    Args:
        scores: Higher means more of the class.
        is_high: The class of each item.
        groups: Number of each item's group, int [N]; items of one group are not independent. None: each its own.
        confidence: Coverage aimed at.

    NaN only where a class is missing.
    """
    return Interval(*_with_bounds(estimate(scores, np.asarray(is_high, dtype=bool), groups), confidence))


def concordance(
    scores: npt.NDArray[np.floating],
    grades: npt.NDArray[np.generic],
    groups: npt.NDArray[np.integer] | None = None,
    *,
    confidence: float = 0.95,
) -> Concordance:
    """Return the C-index of ``scores`` [N] with ``grades`` [N] over all pairs of different grade, and its interval.

    Ties in the score count ½; pairs of one grade do not count. ``groups`` as for ``auroc_interval``. NaN only where there
    are fewer than two grades.
    """
    return Concordance(*_with_bounds(estimate(scores, grades, groups), confidence))


def adjacent_aurocs(
    scores: npt.NDArray[np.floating],
    grades: npt.NDArray[np.integer],
    groups: npt.NDArray[np.integer] | None = None,
    *,
    confidence: float = 0.95,
) -> dict[tuple[int, int], Interval]:
    """Return {(higher grade, next lower grade): AUROC with interval} of all grades that occur, the lowest pair first."""
    out = {}
    for low, high in pairwise(np.unique(grades)):
        pair = (grades == low) | (grades == high)
        own = None if groups is None else groups[pair]
        out[int(high), int(low)] = auroc_interval(scores[pair], grades[pair] == high, own, confidence=confidence)
    return out
