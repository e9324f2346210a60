"""How large a rise is: its interval over items, and its place among tokens that were as likely to begin with."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import stats

N_LIKE = 200
# A vocabulary of a few hundred tokens has no 200 of like probability.
LIKE_SHARE = 4
LEVEL = 0.95


def grouped_interval(
    values_N: npt.NDArray[np.floating], groups_N: npt.NDArray[np.integer], *, level: float = LEVEL
) -> tuple[float, float] | None:
    """Return the t interval of the mean of ``values_N`` with items of one group counted as dependent.

    The standard error is the cluster-robust one of a mean (Liang and Zeger 1986; Cameron and Miller 2015, "A
    Practitioner's Guide to Cluster-Robust Inference", with the factor G / (G − 1) for few clusters): with residuals e,
    se² = G / (G − 1) · Σ_g (Σ_{i in g} e_i)² / N². With one item per group it is the usual standard error. Student's t with
    G − 1 degrees of freedom.

    Args:
        values_N: One figure per item, [N].
        groups_N: The group of each item, [N].
        level: Coverage.

    Returns:
        Lower and upper end; None with fewer than two groups.
    """
    residuals = np.asarray(values_N, dtype=np.float64) - float(np.mean(values_N))
    _, group = np.unique(groups_N, return_inverse=True)
    sums = np.bincount(group, weights=residuals)
    if len(sums) < 2:
        return None
    error = math.sqrt(len(sums) / (len(sums) - 1) * float((sums**2).sum())) / len(residuals)
    half = float(stats.t.ppf((1 + level) / 2, len(sums) - 1)) * error
    mean = float(np.mean(values_N))
    return mean - half, mean + half


def like_tokens(
    base_V: npt.NDArray[np.floating], base: float, excluded: npt.NDArray[np.integer], *, n: int = N_LIKE
) -> npt.NDArray[np.int64]:
    """Return the tokens whose mean base log-probability is nearest to ``base``, int64 [min(n, V // 4)].

    Args:
        base_V: Mean log-probability of each token over the items, unedited, [V].
        base: That of the target.
        excluded: Tokens that are no candidates: the targets and the special tokens.
        n: At most so many.
    """
    candidates = np.setdiff1d(np.arange(len(base_V)), excluded)
    distance = np.abs(np.asarray(base_V, dtype=np.float64)[candidates] - base)
    count = min(n, len(base_V) // LIKE_SHARE)
    return np.asarray(candidates[np.argsort(distance, kind="stable")[:count]], dtype=np.int64)


def percentile_among(value: float, others: npt.NDArray[np.floating]) -> float | None:
    """Return the share of ``others`` below ``value``, ties counted by half, in percent; None without others."""
    if len(others) == 0:
        return None
    return float(100 * (np.mean(others < value) + 0.5 * np.mean(others == value)))
