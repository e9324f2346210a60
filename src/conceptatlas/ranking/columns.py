"""From rows to items: sparse columns of one score per item and feature, with everything absent being zero.

Shape letters: T rows (tokens), N items, F features, nnz stored entries. Pure arrays in, pure arrays out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from conceptatlas.base.errors import unknown_name

Pool = Literal["final", "max", "mean"]
POOLS: tuple[Pool, ...] = get_args(Pool)

Ints = npt.NDArray[np.int64]
Items = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]


class ItemColumns(NamedTuple):
    """One score per item and feature as compressed sparse columns; what is not stored is zero.

    Attributes:
        indptr: int64 [F + 1], where each feature's entries begin.
        items: int32 [nnz], ascending within a feature.
        values: float32 [nnz], never zero, negative allowed.
    """

    indptr: Ints
    items: Items
    values: Floats

    @property
    def n_features(self) -> int:
        """F."""
        return len(self.indptr) - 1

    def counts(self) -> Ints:
        """Return the stored entries per feature, int64 [F]."""
        return np.diff(self.indptr)

    def feature_of_entry(self) -> Ints:
        """Return the feature of each entry, int64 [nnz]."""
        return np.repeat(np.arange(self.n_features), self.counts())

    def keep(self, wanted: npt.NDArray[np.bool_]) -> ItemColumns:
        """Return the entries where ``wanted`` (bool [nnz]) holds."""
        return ItemColumns(recount(self.indptr, wanted), self.items[wanted], self.values[wanted])

    def select(self, features: npt.NDArray[np.integer[Any]]) -> ItemColumns:
        """Return the columns of ``features`` (int [K]), in that order."""
        counts = self.counts()[features]
        indptr = np.concatenate([[0], np.cumsum(counts)])
        entries = np.repeat(self.indptr[features] - indptr[:-1], counts) + np.arange(indptr[-1])
        return ItemColumns(indptr, self.items[entries], self.values[entries])

    def dense(self, n_items: int) -> npt.NDArray[np.float32]:
        """Return the columns as a dense float32 [N, F]; for a few features only."""
        out = np.zeros((n_items, self.n_features), dtype=np.float32)
        out[self.items, self.feature_of_entry()] = self.values
        return out


def recount(indptr: Ints, wanted: npt.NDArray[np.bool_]) -> Ints:
    """Return ``indptr`` after only the entries with ``wanted`` (bool [nnz]) have been kept, int64 [F + 1]."""
    before = np.zeros(len(wanted) + 1, dtype=np.int64)
    np.cumsum(wanted, out=before[1:])
    return before[indptr]


@dataclass(frozen=True)
class RowMap:
    """How rows belong to items.

    Attributes:
        item_of_row: int32 [T].
        rows_per_item: int64 [N], of the rows that are pooled over.
        final_item: int32 [T], the item at its final row and -1 elsewhere.
        left_out: bool [T], rows that are not pooled over; None where all are. Final rows are read whether in it or not.
    """

    item_of_row: npt.NDArray[np.int32]
    rows_per_item: npt.NDArray[np.int64]
    final_item: npt.NDArray[np.int32]
    left_out: npt.NDArray[np.bool_] | None = None

    @classmethod
    def build(
        cls, item_of_row: npt.NDArray[np.int32], final_rows: Ints, left_out: npt.NDArray[np.bool_] | None = None
    ) -> RowMap:
        """Build the map from the item of each row, the final row of each item, and the rows not to be pooled over."""
        final_item = np.full(len(item_of_row), -1, dtype=np.int32)
        final_item[final_rows] = np.arange(len(final_rows), dtype=np.int32)
        pooled = item_of_row if left_out is None else item_of_row[~left_out]
        return cls(item_of_row, np.bincount(pooled, minlength=len(final_rows)), final_item, left_out)


def _final(indptr: Ints, rows: Items, values: Floats, rows_of: RowMap) -> ItemColumns:
    items = rows_of.final_item[rows]
    return ItemColumns(indptr, items, values).keep((items >= 0) & (values != 0))


def _segments(indptr: Ints, items: Items) -> tuple[Ints, Ints]:
    """Return where each run of one (feature, item) begins, and the indptr that counts runs."""
    begins = np.ones(len(items), dtype=bool)
    np.not_equal(items[1:], items[:-1], out=begins[1:])
    begins[indptr[:-1][np.diff(indptr) > 0]] = True
    return np.flatnonzero(begins), recount(indptr, begins)


def _max(indptr: Ints, rows: Items, values: Floats, rows_of: RowMap) -> ItemColumns:
    items = rows_of.item_of_row[rows]
    starts, counts = _segments(indptr, items)
    if not len(starts):
        return ItemColumns(counts, items, values)
    top = np.maximum.reduceat(values, starts)
    of = items[starts]
    lengths = np.diff(np.append(starts, len(items)))
    # A row that is not stored is zero, and zero is above any negative value.
    top = np.where((lengths < rows_of.rows_per_item[of]) & (top < 0), np.float32(0), top)
    return ItemColumns(counts, of, top).keep(top != 0)


def _mean(indptr: Ints, rows: Items, values: Floats, rows_of: RowMap) -> ItemColumns:
    items = rows_of.item_of_row[rows]
    starts, counts = _segments(indptr, items)
    if not len(starts):
        return ItemColumns(counts, items, values)
    of = items[starts]
    total = np.add.reduceat(values.astype(np.float64), starts)
    mean = (total / rows_of.rows_per_item[of]).astype(np.float32)
    return ItemColumns(counts, of, mean).keep(mean != 0)


# Each takes (indptr, rows, values, row map) of some columns and returns one score per item.
_POOLS: dict[str, Callable[[Ints, Items, Floats, RowMap], ItemColumns]] = {"final": _final, "max": _max, "mean": _mean}


def pool_columns(indptr: Ints, rows: Items, values: Floats, rows_of: RowMap, *, how: str) -> ItemColumns:
    """Return one score per item and feature from entries per row.

    ``final`` takes the item's last row, ``max`` the greatest over all of its rows (rows that are not stored count as
    zero), ``mean`` the sum over its rows divided by their number, added in float64 and rounded to float32. Rows that
    the map leaves out do not count for ``max`` and ``mean``.

    Args:
        indptr: int64 [F + 1], from 0.
        rows: int32 [nnz], ascending within a feature.
        values: float32 [nnz].
        rows_of: How rows belong to items.
        how: One of ``POOLS``.

    Raises:
        InputError: ``how`` is not a pooling.
    """
    if how not in _POOLS:
        raise unknown_name("pooling", how, _POOLS)
    if rows_of.left_out is not None and how != "final":
        counted = ~rows_of.left_out[rows]
        indptr, rows, values = recount(indptr, counted), rows[counted], values[counted]
    return _POOLS[how](indptr, rows, values, rows_of)


def column_chunks(indptr: Ints, limit: int) -> Iterator[tuple[int, int]]:
    """Yield half-open ranges of features with at most ``limit`` entries each (one feature may have more)."""
    start, n_features = 0, len(indptr) - 1
    while start < n_features:
        stop = int(np.searchsorted(indptr, indptr[start] + limit, side="right")) - 1
        stop = min(max(stop, start + 1), n_features)
        yield start, stop
        start = stop
