"""Sparse activations by column: for each feature, the rows on which it is not zero. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class SparseColumns(NamedTuple):
    """Compressed sparse columns of a [T, F] activation matrix (rows are token positions, columns are features).

    What is stored is what is not zero; values can be negative (AbsTopK).
    """

    indptr: npt.NDArray[np.int64]
    """int64 [F+1]: the entries of feature f are ``rows[indptr[f]:indptr[f+1]]``."""
    rows: npt.NDArray[np.int32]
    """int32 [nnz]: row of each entry, ascending within a feature."""
    values: npt.NDArray[np.float32]
    """float32 [nnz]: activation of each entry, in the SAE's own units."""

    @property
    def n_features(self) -> int:
        """Return F, the number of columns."""
        return len(self.indptr) - 1

    @property
    def nnz(self) -> int:
        """Return the number of stored entries."""
        return len(self.rows)

    def counts(self) -> npt.NDArray[np.int64]:
        """Return the number of entries of each column, int64 [F]."""
        return np.diff(self.indptr)

    def feature(self, index: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Return rows and values of one feature: views, not copies."""
        start, stop = int(self.indptr[index]), int(self.indptr[index + 1])
        return self.rows[start:stop], self.values[start:stop]

    def column(self, feature: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Return rows and values of one column."""
        part = slice(self.indptr[feature], self.indptr[feature + 1])
        return self.rows[part], self.values[part]

    def first_rows(self, n_rows: int) -> SparseColumns:
        """Return the entries of the first ``n_rows`` rows, without going over the others."""
        low, high = self.indptr[:-1].copy(), self.indptr[1:].copy()
        while (searching := low < high).any():  # a binary search in all columns at once
            middle = (low + high)[searching] // 2
            before = self.rows[middle] < n_rows
            low[searching] = np.where(before, middle + 1, low[searching])
            high[searching] = np.where(before, high[searching], middle)
        counts = low - self.indptr[:-1]
        indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        take = np.repeat(self.indptr[:-1] - indptr[:-1], counts) + np.arange(indptr[-1])
        return SparseColumns(indptr, self.rows[take], self.values[take])

    def to_dense(self, n_rows: int) -> npt.NDArray[np.float32]:
        """Return the dense float32 [n_rows, F] matrix (for tests and small cases)."""
        dense = np.zeros((n_rows, self.n_features), dtype=np.float32)
        dense[self.rows, np.repeat(np.arange(self.n_features), np.diff(self.indptr))] = self.values
        return dense


def empty_columns(n_features: int) -> SparseColumns:
    """Return ``n_features`` columns with nothing in them."""
    return SparseColumns(np.zeros(n_features + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))


def beside(parts: Sequence[SparseColumns]) -> SparseColumns:
    """Put blocks of columns of the same rows side by side (features of the second after those of the first)."""
    if not parts:
        return empty_columns(0)
    counts = [np.diff(part.indptr) for part in parts]
    indptr = np.zeros(sum(len(count) for count in counts) + 1, np.int64)
    np.cumsum(np.concatenate(counts), out=indptr[1:])
    return SparseColumns(
        indptr, np.concatenate([part.rows for part in parts]), np.concatenate([part.values for part in parts])
    )


def below(parts: Sequence[SparseColumns], first_rows: Sequence[int]) -> SparseColumns:
    """Put blocks of rows of the same columns below each other; ``first_rows`` says where each begins, ascending."""
    if len(parts) == 1 and first_rows[0] == 0:
        return parts[0]
    counts = np.array([part.counts() for part in parts])
    indptr = np.zeros(counts.shape[1] + 1, np.int64)
    np.cumsum(counts.sum(axis=0), out=indptr[1:])
    rows, values = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], np.float32)
    free = indptr[:-1].copy()  # of each column, where the next block's entries go
    for part, first, count in zip(parts, first_rows, counts, strict=True):
        place = np.repeat(free - part.indptr[:-1], count) + np.arange(part.nnz)
        rows[place], values[place] = part.rows + np.int32(first), part.values
        free += count
    return SparseColumns(indptr, rows, values)


def from_entries(
    rows: npt.NDArray[np.integer],
    features: npt.NDArray[np.integer],
    values: npt.NDArray[np.float32],
    n_features: int,
) -> SparseColumns:
    """Build columns from entries in any order, rows ascending within each feature."""
    order = np.lexsort((rows, features))
    indptr = np.zeros(n_features + 1, np.int64)
    np.cumsum(np.bincount(features, minlength=n_features), out=indptr[1:])
    return SparseColumns(indptr, rows[order].astype(np.int32, copy=False), values[order].astype(np.float32, copy=False))


def spread_columns(columns: SparseColumns, features: Sequence[int], n_features: int) -> SparseColumns:
    """Give columns that were encoded for some ``features`` only their places among all ``n_features``."""
    where = np.asarray(features, np.int64)
    counts = np.zeros(n_features, np.int64)
    counts[where] = np.diff(columns.indptr)
    order = np.argsort(where, kind="stable")
    pieces = [np.arange(columns.indptr[i], columns.indptr[i + 1]) for i in order]
    take = np.concatenate(pieces) if pieces else np.zeros(0, np.int64)
    return SparseColumns(
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), columns.rows[take], columns.values[take]
    )
