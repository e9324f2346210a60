"""Pooling rows to items, against a dense loop."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from conceptatlas.base.errors import InputError
from conceptatlas.ranking.columns import ItemColumns, RowMap, column_chunks, pool_columns


def row_map(lengths: list[int], left_out: np.ndarray | None = None) -> RowMap:
    item_of_row = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    return RowMap.build(item_of_row, np.cumsum(lengths) - 1, left_out)


def pooled_densely(dense: np.ndarray, lengths: list[int], how: str, left_out: np.ndarray | None = None) -> np.ndarray:
    out, at = [], 0
    for n in lengths:
        rows = dense[at : at + n].astype(np.float64)
        if left_out is not None and how != "final":
            rows = rows[~left_out[at : at + n]]
        out.append(
            {"final": lambda r: r[-1], "max": lambda r: r.max(0), "mean": lambda r: r.sum(0) / len(r)}[how](rows)
        )
        at += n
    return np.array(out).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=8),
    n_features=st.integers(0, 6),
    share=st.sampled_from([0, 0.2, 0.7, 1]),
    seed=st.integers(0, 2**32 - 1),
    how=st.sampled_from(["final", "max", "mean"]),
    leave_out=st.booleans(),
)
def test_pooling_equals_the_dense_loop(lengths, n_features, share, seed, how, leave_out):
    rng = np.random.default_rng(seed)
    shape = (sum(lengths), n_features)
    dense = np.where(rng.random(shape) < share, rng.integers(-2, 3, shape), 0).astype(np.float32)
    csc = sp.csc_matrix(dense)
    csc.sort_indices()
    left_out = rng.random(sum(lengths)) < 0.3 if leave_out else None
    if left_out is not None:
        left_out[np.cumsum(lengths) - rng.integers(1, np.array(lengths) + 1)] = False  # some row of each item counts
    rows_of = row_map(lengths, left_out)
    got = pool_columns(csc.indptr.astype(np.int64), csc.indices.astype(np.int32), csc.data, rows_of, how=how)
    expected = pooled_densely(dense, lengths, how, left_out).reshape(len(lengths), -1)
    assert np.array_equal(got.dense(len(lengths)), expected)
    assert (got.values != 0).all()
    assert got.indptr[-1] == len(got.items) == len(got.values)
    for f in range(n_features):
        assert (np.diff(got.items[got.indptr[f] : got.indptr[f + 1]]) > 0).all()


def test_an_unknown_pooling_names_the_valid_ones():
    empty = np.zeros(0, np.int32)
    with pytest.raises(InputError, match="Unknown pooling 'median'; nearest: "):
        pool_columns(np.zeros(1, np.int64), empty, empty.astype(np.float32), row_map([1]), how="median")


def test_select_takes_columns_in_the_order_asked():
    dense = np.array([[1, 0, 2, 0], [0, 0, 3, -4]], dtype=np.float32)
    csc = sp.csc_matrix(dense)
    columns = ItemColumns(csc.indptr.astype(np.int64), csc.indices.astype(np.int32), csc.data)
    assert np.array_equal(columns.select(np.array([3, 0, 1, 2, 2])).dense(2), dense[:, [3, 0, 1, 2, 2]])
    assert columns.select(np.zeros(0, np.int64)).n_features == 0


@given(counts=st.lists(st.integers(0, 9), max_size=30), limit=st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_chunks_cover_every_feature_once_and_keep_to_the_limit(counts, limit):
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    chunks = list(column_chunks(indptr, limit))
    assert [f for a, b in chunks for f in range(a, b)] == list(range(len(counts)))
    assert all(b == a + 1 or indptr[b] - indptr[a] <= limit for a, b in chunks)
