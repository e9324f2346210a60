"""Figures of every feature at once, from sparse columns, with the zeros that are not stored merged in closed form.

All entries of a chunk of columns are packed into one uint64 each (feature, value, hold-out bit, label) and sorted once;
every order statistic, rank and count is then read off the sorted keys. NumPy only: on 135 × 16,384 features this
measured as fast as compiled loops, without the seconds that compiling them costs a small ranking.

Shape letters: F features, N items, nnz stored entries; the four grades are always 4 columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from conceptatlas.ranking.columns import Ints, ItemColumns, recount

N_GRADES = 4
PERCENTILE = 95
_HOLDOUT = np.uint64(4)
_LABEL = np.uint64(3)
_VALUE_SHIFT = np.uint64(3)
_FEATURE_SHIFT = np.uint64(35)
_SIGN = np.uint32(0x80000000)

F64 = npt.NDArray[np.float64]


def _orderable(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    """Return uint32 that sort as the float32 ``values`` do (flip the sign bit, or all bits of a negative)."""
    bits = values.view(np.uint32)
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


def _restored(ordered: npt.NDArray[np.uint32]) -> npt.NDArray[np.float32]:
    return np.where(ordered & _SIGN, ordered & ~_SIGN, ~ordered).view(np.float32)


def _added(where: npt.NDArray[np.int64], weights: F64 | None, size: int) -> F64:
    """Return ``np.bincount`` as float64 (of no entries it returns integers, even with weights)."""
    return np.bincount(where, weights, size).astype(np.float64, copy=False)


@dataclass(frozen=True)
class SortedColumns:
    """Entries of some columns, sorted by (feature, value).

    Attributes:
        keys: uint64 [nnz], the packed entries in order.
        indptr: int64 [F + 1].
        grade_counts: int64 [4], the items of each grade (stored or not).
    """

    keys: npt.NDArray[np.uint64]
    indptr: Ints
    grade_counts: Ints

    @property
    def n_features(self) -> int:
        """F."""
        return len(self.indptr) - 1

    @property
    def n_items(self) -> int:
        """N."""
        return int(self.grade_counts.sum())

    @cached_property
    def labels(self) -> npt.NDArray[np.int64]:
        """The grade of each entry, int64 [nnz]."""
        return (self.keys & _LABEL).astype(np.int64)

    @cached_property
    def features(self) -> npt.NDArray[np.int64]:
        """The feature of each entry, int64 [nnz]."""
        return (self.keys >> _FEATURE_SHIFT).astype(np.int64)

    @cached_property
    def values(self) -> F64:
        """The value of each entry, float64 [nnz] (exactly the float32 that was given)."""
        return _restored((self.keys >> _VALUE_SHIFT).astype(np.uint32)).astype(np.float64)

    @cached_property
    def cells(self) -> npt.NDArray[np.int64]:
        """Feature × 4 + grade of each entry, int64 [nnz]: where to add it up."""
        return self.features * N_GRADES + self.labels

    def by_grade(self, weights: F64 | None = None) -> F64:
        """Return the sum of ``weights`` [nnz] (or the number of entries) by feature and grade, float64 [F, 4]."""
        return _added(self.cells, weights, self.n_features * N_GRADES).reshape(-1, N_GRADES)

    @cached_property
    def stored(self) -> F64:
        """The stored entries by feature and grade, float64 [F, 4]."""
        return self.by_grade()

    @cached_property
    def zeros(self) -> F64:
        """The zeros by feature and grade, float64 [F, 4]."""
        return self.grade_counts - self.stored

    def only(self, wanted: npt.NDArray[np.bool_], grade_counts: Ints) -> SortedColumns:
        """Return the entries with ``wanted`` (bool [nnz]), which are those of items of ``grade_counts``."""
        return SortedColumns(self.keys[wanted], recount(self.indptr, wanted), grade_counts)

    def of_grades(self, *grades: int) -> SortedColumns:
        """Return the entries of items of these grades only."""
        inside = np.isin(np.arange(N_GRADES), grades)
        return self.only(inside[self.labels], np.where(inside, self.grade_counts, 0))


def sort_columns(
    columns: ItemColumns, labels: npt.NDArray[np.integer[Any]], holdout: npt.NDArray[np.bool_]
) -> tuple[SortedColumns, SortedColumns]:
    """Sort the entries of ``columns`` once and return (discovery, holdout).

    Args:
        columns: One score per item and feature.
        labels: Grades 0–3, int [N].
        holdout: Which items are hold-out, bool [N].
    """
    tag = labels.astype(np.uint64) | np.where(holdout, _HOLDOUT, np.uint64(0))
    keys = columns.feature_of_entry().astype(np.uint64) << _FEATURE_SHIFT
    keys |= _orderable(columns.values).astype(np.uint64) << _VALUE_SHIFT
    keys |= tag[columns.items]
    keys.sort()
    counts = [np.bincount(labels[holdout == side], minlength=N_GRADES) for side in (False, True)]
    everything = SortedColumns(keys, columns.indptr, counts[0] + counts[1])
    held = (keys & _HOLDOUT).astype(bool)
    return everything.only(~held, counts[0]), everything.only(held, counts[1])


@dataclass(frozen=True)
class Moments:
    """Moments of each feature over the items of one side of the split; everything float64.

    Attributes:
        mean_by_grade: [F, 4], NaN for a grade that no item has.
        variance_sum: [F], Σ (x − mean)², zeros included.
        covariance_sum: [F], Σ (x − mean)(label − mean label).
        pearson: [F], NaN where the feature or the label is constant.
        constant: bool [F].
    """

    mean_by_grade: F64
    variance_sum: F64
    covariance_sum: F64
    pearson: F64
    constant: npt.NDArray[np.bool_]


def moments(data: SortedColumns) -> Moments:
    """Return means by grade, variance and Pearson's correlation with the grade.

    Two passes over the entries (the mean first), and Σ over all items = Σ over stored entries + zeros × (their term),
    so that nearly constant columns lose no digits.
    """
    n, grades = data.n_items, np.arange(N_GRADES, dtype=np.float64)
    sums = data.by_grade(data.values)
    mean = sums.sum(axis=1) / max(n, 1)
    deviation = data.values - mean[data.features]
    n_zeros = data.zeros.sum(axis=1)
    variance = _added(data.features, deviation * deviation, data.n_features) + n_zeros * mean * mean
    centred = grades - float(data.grade_counts @ grades) / max(n, 1)
    by_grade = data.by_grade(deviation) - data.zeros * mean[:, None]
    covariance = by_grade @ centred
    constant = is_constant(data)
    spread = np.sqrt(variance * float(data.grade_counts @ (centred * centred)))
    with np.errstate(divide="ignore", invalid="ignore"):
        means = np.where(data.grade_counts > 0, sums / data.grade_counts, np.nan)
        pearson = np.where(constant | (spread == 0), np.nan, np.clip(covariance / spread, -1, 1))
    return Moments(means, np.where(constant, 0.0, variance), covariance, pearson, constant)


def is_constant(data: SortedColumns) -> npt.NDArray[np.bool_]:
    """Return which features have one value on all items, bool [F]."""
    counts = np.diff(data.indptr)
    some = counts > 0
    out = ~some
    if len(data.values):
        first = np.where(some, data.values[np.minimum(data.indptr[:-1], len(data.values) - 1)], 0)
        last = np.where(some, data.values[data.indptr[1:] - 1], 0)
        out |= (counts == data.n_items) & (first == last)
    return out


@dataclass(frozen=True)
class _Ties:
    """Runs of equal value within a feature: the rank of each run among all items (1-based mid-rank), and its length."""

    rank: F64
    length: npt.NDArray[np.int64]
    feature: npt.NDArray[np.int64]
    zero_rank: F64


def _ties(data: SortedColumns) -> _Ties:
    keys = data.keys >> _VALUE_SHIFT
    begins = np.ones(len(keys), dtype=bool)
    np.not_equal(keys[1:], keys[:-1], out=begins[1:])
    start = np.flatnonzero(begins)
    length = np.diff(np.append(start, len(keys)))
    feature = data.features[start]
    n_zeros = data.zeros.sum(axis=1)
    positive = data.values[start] > 0
    rank = start + (length + 1) / 2 - data.indptr[feature] + np.where(positive, n_zeros[feature], 0)
    n_negative = np.bincount(data.features[data.values < 0], minlength=data.n_features)
    return _Ties(rank, length, feature, n_negative + (n_zeros + 1) / 2)


def spearman(data: SortedColumns, constant: npt.NDArray[np.bool_]) -> F64:
    """Return Spearman's rank correlation with the grade (mid-ranks at ties), float64 [F]; NaN where constant."""
    n = data.n_items
    ties = _ties(data)
    below = np.concatenate([[0], np.cumsum(data.grade_counts)[:-1]])
    label_rank = below + (data.grade_counts + 1) / 2 - (n + 1) / 2
    rank = np.repeat(ties.rank, ties.length) - (n + 1) / 2
    zero_rank = ties.zero_rank - (n + 1) / 2
    n_zeros = data.zeros.sum(axis=1)
    cov = _added(data.features, rank * label_rank[data.labels], data.n_features)
    cov += zero_rank * (data.zeros @ label_rank)
    var = _added(data.features, rank * rank, data.n_features) + n_zeros * zero_rank * zero_rank
    spread = np.sqrt(var * float(data.grade_counts @ (label_rank * label_rank)))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(constant | (spread == 0), np.nan, np.clip(cov / spread, -1, 1))


def separation(data: SortedColumns, *, low: int, high: int) -> F64 | None:
    """Return the AUROC of grade ``high`` against ``low`` (ties ½), float64 [F]; None where a grade has no item."""
    n_low, n_high = int(data.grade_counts[low]), int(data.grade_counts[high])
    if not n_low or not n_high:
        return None
    pair = data.of_grades(low, high)
    ties = _ties(pair)
    rank = np.repeat(ties.rank, ties.length)
    is_high = pair.labels == high
    rank_sum = _added(pair.features[is_high], rank[is_high], pair.n_features)
    u = rank_sum + pair.zeros[:, high] * ties.zero_rank - n_high * (n_high + 1) / 2
    return u / (n_low * n_high)


def rank_deviations(columns: ItemColumns, n_items: int) -> F64:
    """Return each stored entry's mid-rank among its feature's ``n_items`` values minus that of a zero, float64 [nnz].

    A sum of ranks over some items is that of these deviations plus a number that depends on how many items alone.
    """
    feature = columns.feature_of_entry()
    order = np.lexsort((columns.values, feature))
    value, of = columns.values[order], feature[order]
    begins = np.ones(len(order), dtype=bool)
    begins[1:] = (value[1:] != value[:-1]) | (of[1:] != of[:-1])
    start = np.flatnonzero(begins)
    length = np.diff(np.append(start, len(order)))
    n_zeros = n_items - columns.counts()
    n_negative = np.bincount(feature[columns.values < 0], minlength=columns.n_features)
    own = of[start]
    rank = start + (length + 1) / 2 - columns.indptr[own] + np.where(value[start] > 0, n_zeros[own], 0)
    out = np.empty(len(order))
    out[order] = np.repeat(rank - (n_negative + (n_zeros + 1) / 2)[own], length)
    return out


def grade_percentile(data: SortedColumns, grade: int) -> F64:
    """Return the 95th percentile of the scores of one grade, float64 [F], bit for bit ``np.percentile(x, 95)``.

    Linear interpolation between the two order statistics around index 0.95 (n − 1), which is computed in float64 (in
    float32 it is off by one item at some n). NaN where no item has the grade.
    """
    n = int(data.grade_counts[grade])
    if not n:
        return np.full(data.n_features, np.nan)
    own = data.of_grades(grade)
    virtual = (n - 1) * (PERCENTILE / 100)
    below = int(np.floor(virtual))
    fraction = virtual - below
    low, high = _order_statistic(own, below), _order_statistic(own, min(below + 1, n - 1))
    step = high - low
    # NumPy interpolates from the nearer end; so do we, or the last bit differs.
    return low + step * fraction if fraction < 0.5 else high - step * (1 - fraction)


def _order_statistic(data: SortedColumns, k: int) -> F64:
    """Return the k-th smallest (from 0) of each feature's N values, zeros included, float64 [F]."""
    n_zeros = data.zeros.sum(axis=1).astype(np.int64)
    n_negative = np.bincount(data.features[data.values < 0], minlength=data.n_features)
    offset = np.where(k < n_negative, k, k - n_zeros)
    is_zero = (k >= n_negative) & (k < n_negative + n_zeros)
    out = np.zeros(data.n_features)
    out[~is_zero] = data.values[(data.indptr[:-1] + offset)[~is_zero]]
    return out


def share_above(data: SortedColumns, threshold: F64) -> F64:
    """Return the share of each grade's items that score strictly above ``threshold`` [F], float64 [F, 4].

    NaN where no item has the grade.
    """
    above = data.values > threshold[data.features]
    counts = np.bincount(data.cells[above], minlength=data.n_features * N_GRADES).reshape(-1, N_GRADES)
    counts = counts + np.where((threshold < 0)[:, None], data.zeros, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(data.grade_counts > 0, counts / data.grade_counts, np.nan)


def is_monotonic(mean_by_grade: F64, present: npt.NDArray[np.bool_], *, falling: bool) -> npt.NDArray[np.bool_]:
    """Return where the means of the grades present never fall (or never rise), bool [F].

    Differences below 1e-12 of the greatest mean are rounding, and count as equal.
    """
    means = mean_by_grade[:, present]
    steps = np.diff(-means if falling else means, axis=1)
    slack = 1e-12 * np.abs(means).max(axis=1, keepdims=True)
    return np.asarray((steps >= -slack).all(axis=1))
