"""Whether one score orders the same items better than another.

The difference of two concordances (AUROCs where there are two classes) with the interval of Zou & Donner 2008 (MOVER): the
score bounds of each are joined, with the correlation of the two taken from their influences by group (DeLong et al. 1988;
Obuchowski 1997). Unlike DeLong's own variance it does not vanish where both are perfect.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from conceptatlas.statistics.concordance import Estimate, estimate, score_bounds

_LARGEST_Z = 20.0


class Difference(NamedTuple):
    """How much greater the first concordance is than the second; all NaN where a class is missing."""

    difference: float
    low: float
    high: float
    p_value: float


def paired_difference(
    a: npt.NDArray[np.floating],
    b: npt.NDArray[np.floating],
    grades: npt.NDArray[np.generic],
    groups: npt.NDArray[np.integer] | None = None,
    *,
    confidence: float = 0.95,
) -> Difference:
    """Return concordance of ``a`` minus that of ``b`` on the same items, its interval and two-sided p-value.

    Args:
        a: Scores of one method, [N].
        b: Scores of the other, [N].
        grades: The class (bool) or grade of each item, [N]; with two values the concordance is the AUROC.
        groups: Number of each item's group, int [N]; None: each its own.
        confidence: Coverage aimed at.

    The p-value is 1 minus the confidence at which the interval just reaches 0, so that interval and p-value agree. Equal
    concordances give p = 1.
    """
    first, second = estimate(a, grades, groups), estimate(b, grades, groups)
    if np.isnan(first.theta):
        return Difference(np.nan, np.nan, np.nan, np.nan)
    correlation = _correlation(first, second)
    difference = first.theta - second.theta
    low, high = _bounds(first, second, correlation, float(ndtri((1 + confidence) / 2)))
    if abs(difference) < 1e-12:
        return Difference(0.0, low, high, 1.0)

    def nearer_bound(z: float) -> float:
        bounds = _bounds(first, second, correlation, z)
        return bounds[0] if difference > 0 else -bounds[1]

    outside = _LARGEST_Z if nearer_bound(_LARGEST_Z) > 0 else brentq(nearer_bound, 1e-9, _LARGEST_Z, xtol=1e-9)
    return Difference(difference, low, high, float(2 * ndtr(-outside)))


def _correlation(first: Estimate, second: Estimate) -> float:
    """Return the correlation of two concordances over items; 0 where one has no spread (then nothing is known of it)."""
    spread = np.sqrt(float(first.influence @ first.influence) * float(second.influence @ second.influence))
    return float(np.clip(first.influence @ second.influence / spread, -1, 1)) if spread > 1e-15 else 0.0


def _bounds(first: Estimate, second: Estimate, correlation: float, z: float) -> tuple[float, float]:
    low_a, high_a = score_bounds(first.theta, first.counts, z)
    low_b, high_b = score_bounds(second.theta, second.counts, z)
    difference = first.theta - second.theta
    down = _joined(first.theta - low_a, high_b - second.theta, correlation)
    up = _joined(high_a - first.theta, second.theta - low_b, correlation)
    return difference - down, difference + up


def _joined(x: float, y: float, correlation: float) -> float:
    return float(np.sqrt(max(x * x + y * y - 2 * correlation * x * y, 0.0)))
