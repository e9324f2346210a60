"""Two scores on the same items: the difference of their AUROCs, with interval and p-value; Holm over several."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from conceptatlas.statistics.auroc import Bools, clustered_covariance, effective_sizes, placements, score_bounds

# Beyond this many deviations a p-value is below 1e-36: nobody asks how far.
_Z_MOST = 12.5


class Difference(NamedTuple):
    """AUROC of the first score minus that of the second, its interval, and the two-sided p-value of no difference."""

    difference: float
    low: float
    high: float
    p_value: float


def paired_difference(
    a: npt.NDArray[np.floating],
    b: npt.NDArray[np.floating],
    is_high: Bools,
    groups: npt.NDArray[np.integer] | None = None,
    *,
    confidence: float = 0.95,
) -> Difference:
    """Compare the AUROCs of two scores of the same items, [N] each.

    The interval combines the two score intervals (Zou & Donner 2008, "MOVER", eq. 12) with the correlation of the two
    AUROCs, by group (DeLong et al. 1988; Obuchowski 1997). So it does not vanish where both AUROCs are 1, as DeLong's
    own does: two scores that are both perfect cannot be told apart. The p-value is 1 minus the largest confidence whose
    interval leaves zero out.

    Args:
        a: The first score.
        b: The second.
        is_high: The class of each item.
        groups: Number of each item's group; None where all are independent.
        confidence: Coverage aimed at.

    Returns:
        The difference; NaN where a class is missing.
    """
    if not is_high.any() or is_high.all():
        return Difference(np.nan, np.nan, np.nan, np.nan)
    places = [placements(np.asarray(score, dtype=np.float64), is_high) for score in (a, b)]
    thetas = np.array([place[is_high].mean() for place in places])
    deviations = [place - theta for place, theta in zip(places, thetas, strict=True)]
    own = np.arange(len(is_high)) if groups is None else groups
    sizes = np.array([effective_sizes(deviation, is_high, groups) for deviation in deviations])
    correlation = _correlation(deviations, is_high, own)
    difference = float(thetas[0] - thetas[1])

    def bounds(z: float) -> tuple[float, float]:
        low, high = score_bounds(thetas, sizes[:, 0], sizes[:, 1], z=np.full(2, z))
        down, up = thetas - low, high - thetas
        to_low = down[0] ** 2 + up[1] ** 2 - 2 * correlation * down[0] * up[1]
        to_high = up[0] ** 2 + down[1] ** 2 - 2 * correlation * up[0] * down[1]
        return difference - max(to_low, 0.0) ** 0.5, difference + max(to_high, 0.0) ** 0.5

    low, high = bounds(float(ndtri((1 + confidence) / 2)))
    return Difference(difference, low, high, _p_value(difference, bounds))


def _correlation(deviations: list[npt.NDArray[np.float64]], is_high: Bools, groups: npt.NDArray[np.integer]) -> float:
    a, b = deviations
    spread = clustered_covariance(a, a, is_high, groups) * clustered_covariance(b, b, is_high, groups)
    if not spread > 0:
        return 0.0
    return float(np.clip(clustered_covariance(a, b, is_high, groups) / spread**0.5, -1, 1))


def _p_value(difference: float, bounds: Callable[[float], tuple[float, float]]) -> float:
    """Return the two-sided p-value at whose z the interval just reaches zero."""
    if difference == 0:
        return 1.0
    from scipy.optimize import brentq

    side = 0 if difference > 0 else 1
    if bounds(_Z_MOST)[side] * difference > 0:
        return float(2 * ndtr(-_Z_MOST))
    return float(2 * ndtr(-brentq(lambda z: bounds(z)[side], 0.0, _Z_MOST, xtol=1e-6)))


def holm(p_values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return Holm's adjusted p-values (Holm 1979), in the order given; NaN stays NaN and is not counted."""
    p = np.asarray(p_values, dtype=np.float64)
    out = np.full(len(p), np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    left = len(order) - np.arange(len(order))
    out[order] = np.minimum(np.maximum.accumulate(p[order] * left), 1.0)
    return out
