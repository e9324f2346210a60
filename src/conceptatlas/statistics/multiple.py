"""Corrections for many tests: Holm (any claim wrong) and Benjamini–Hochberg (share of claims wrong)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from conceptatlas.statistics.auroc import F64


def holm(p_values: npt.ArrayLike) -> F64:
    """Return p-values adjusted by Holm (1979), float64 [K]; NaN stays NaN and is not counted as a test."""
    p = np.asarray(p_values, dtype=np.float64)
    out = np.full(len(p), np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    adjusted = np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1))
    out[order] = np.minimum(adjusted, 1)
    return out


def benjamini_hochberg(p_values: F64) -> F64:
    """Return Benjamini–Hochberg q-values of all p-values that are not NaN (which stay NaN), [F]."""
    out = np.full(len(p_values), np.nan)
    tested = np.flatnonzero(~np.isnan(p_values))
    order = tested[np.argsort(p_values[tested], kind="stable")]
    m = len(order)
    q = p_values[order] * m / np.arange(1, m + 1)
    out[order] = np.minimum(np.minimum.accumulate(q[::-1])[::-1], 1)
    return out
