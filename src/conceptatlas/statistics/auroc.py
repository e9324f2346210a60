"""Ranks and the area under the ROC curve."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]


def mid_ranks(values: npt.NDArray[np.floating]) -> F64:
    """Return 1-based ranks, ties sharing their mean rank, float64 [N] (``scipy.stats.rankdata``, which costs a second)."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse], dtype=np.float64)


def auroc(scores: npt.NDArray[np.floating], is_high: npt.NDArray[np.bool_]) -> float:
    """Return the AUROC of ``scores`` [N] for ``is_high`` (ties ½); NaN where a class is missing."""
    n_high = int(is_high.sum())
    n_low = len(is_high) - n_high
    if not n_high or not n_low:
        return float("nan")
    return float((mid_ranks(scores)[is_high].sum() - n_high * (n_high + 1) / 2) / (n_high * n_low))


def wins(high: F64, low: F64) -> tuple[F64, F64]:
    """Return for each of ``high`` how many of ``low`` are below it, and for each of ``low`` how many are above (ties ½)."""
    ranks = mid_ranks(np.concatenate([high, low]))
    below = ranks[: len(high)] - mid_ranks(high)
    above = len(high) - (ranks[len(high) :] - mid_ranks(low))
    return below, above
