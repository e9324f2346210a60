"""Chance: the best that a search over millions of features finds when the labels mean nothing.

Labels are permuted, every feature's Pearson correlation is computed against every permutation, and the greatest over
all features searched is kept (Westfall & Young 1993, the single-step max statistic). With the permuted labels centred
and of unit norm, a correlation is Σ x·ỹ / ‖x − mean x‖ over stored entries alone: one sparse product per chunk.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from conceptatlas.ranking.columns import ItemColumns
from conceptatlas.ranking.design import Design
from conceptatlas.ranking.kernels import F64
from conceptatlas.statistics import Exchange

# Sums run in float32; a permutation that gives the observed figure again must not miss it by a rounding.
SLACK = 2e-6
_FEATURES, _PERMUTATIONS = 2048, 256

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Permutations:
    """Exchanged labels of the discovery items.

    Attributes:
        labels: float32 [N, P], each column centred and of unit norm over discovery and 0 on hold-out items.
        unit: What was exchanged: ``items``, ``groups``, ``pairs`` or ``groups and the items within them``.
        n_units: How many units can change their labels.
        least_p: The smallest p-value that the number of different arrangements allows.
    """

    labels: F32
    unit: str
    n_units: int
    least_p: float

    @property
    def count(self) -> int:
        """P."""
        return self.labels.shape[1]


def permute(design: Design, count: int, rng: np.random.Generator) -> Permutations:
    """Exchange the discovery labels ``count`` times, as groups and pairs allow (see ``Exchange``)."""
    inside = np.flatnonzero(design.discovery)
    exchange = Exchange.of(design.labels[inside], design.groups[inside])
    permuted = exchange.draw(count, rng).astype(np.float64)
    permuted -= permuted.mean(axis=0)
    norm = np.linalg.norm(permuted, axis=0)
    permuted /= np.where(norm > 0, norm, 1)
    out = np.zeros((design.n_items, count), dtype=np.float32)
    out[inside] = permuted
    least = max(float(np.exp(-exchange.log_arrangements)), 1 / (1 + count))
    return Permutations(out, exchange.unit, exchange.n_units, least)


def extreme_correlations(columns: ItemColumns, permutations: Permutations, design: Design) -> tuple[F32, F32]:
    """Return the greatest and the least Pearson correlation of any feature with each permutation, float32 [P] each.

    Features that are constant on discovery are not searched; where that leaves none, -inf and inf come back.
    """
    matrix = _standardised(columns.keep(design.discovery[columns.items]), design)
    highest = np.full(permutations.count, -np.inf, dtype=np.float32)
    lowest = np.full(permutations.count, np.inf, dtype=np.float32)
    for left in range(0, permutations.count, _PERMUTATIONS):
        right = left + _PERMUTATIONS
        labels = np.ascontiguousarray(permutations.labels[:, left:right])
        for start in range(0, matrix.shape[0], _FEATURES):
            r = matrix[start : start + _FEATURES] @ labels
            np.maximum(highest[left:right], r.max(axis=0), out=highest[left:right])
            np.minimum(lowest[left:right], r.min(axis=0), out=lowest[left:right])
    return highest, lowest


def _standardised(columns: ItemColumns, design: Design) -> sp.csr_matrix:
    """Return the discovery columns that vary, divided by ‖x − mean x‖, as float32 rows [≤ F, N]."""
    of, n = columns.feature_of_entry(), int(design.discovery.sum())
    counts = columns.counts()
    values = columns.values.astype(np.float64)
    mean = np.bincount(of, values, columns.n_features) / n
    deviation = values - mean[of]
    variance = np.bincount(of, deviation * deviation, columns.n_features) + (n - counts) * mean * mean
    # A constant column keeps a rounding of about 1e-32 of its squares; float32 values that differ leave 1e-15 or more.
    varies = variance > 1e-20 * np.bincount(of, values * values, columns.n_features)
    scale = np.where(varies, 1 / np.sqrt(np.where(varies, variance, 1)), 0)
    # Where no item is zero, the mean can be taken off what is stored, and a large one costs no digits.
    scaled = np.where((counts == n)[of], deviation, values) * scale[of]
    matrix = sp.csr_matrix(
        (scaled.astype(np.float32), columns.items, columns.indptr), shape=(columns.n_features, design.n_items)
    )
    return matrix[np.flatnonzero(varies)]


def best_of(highest: F32, lowest: F32, direction: str) -> F32:
    """Return the best correlation in the sense of ``direction`` for each permutation, float32 [P]."""
    return {"up": highest, "down": -lowest, "both": np.maximum(highest, -lowest)}[direction]


def p_of_max(observed: F64, best: F32) -> F64:
    """Return (1 + exceedances) / (1 + permutations) of each observed figure; NaN stays NaN, [F]."""
    ordered = np.sort(best.astype(np.float64))
    exceed = len(ordered) - np.searchsorted(ordered, np.nan_to_num(observed, nan=np.inf) - SLACK, side="left")
    return np.where(np.isnan(observed), np.nan, (1 + exceed) / (1 + len(ordered)))


def benjamini_hochberg(p_values: F64) -> F64:
    """Return Benjamini–Hochberg q-values of all p-values that are not NaN (which stay NaN), [F]."""
    out = np.full(len(p_values), np.nan)
    tested = np.flatnonzero(~np.isnan(p_values))
    order = tested[np.argsort(p_values[tested], kind="stable")]
    m = len(order)
    q = p_values[order] * m / np.arange(1, m + 1)
    out[order] = np.minimum(np.minimum.accumulate(q[::-1])[::-1], 1)
    return out
