"""Joining shards, against stacking dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from conceptatlas.recording import merge
from conceptatlas.recording.merge import feature_blocks, join_arrays, join_columns, open_part
from tests.helpers.recordings import columns_of


@settings(deadline=None, max_examples=40)
@given(
    heights=st.lists(st.integers(0, 6), min_size=1, max_size=5),
    features=st.integers(1, 12),
    density=st.sampled_from([0.0, 0.15, 1.0]),
    entries=st.sampled_from([1, 3, 1000]),
    seed=st.integers(0, 99),
)
def test_joined_columns_equal_the_stacked_matrix(tmp_path_factory, heights, features, density, entries, seed):
    generator = np.random.default_rng(seed)
    dense = [sp.random(h, features, density=density, random_state=generator).toarray() for h in heights]
    parts, first = [], 0
    for matrix in dense:
        columns = columns_of(matrix)
        parts.append(columns._replace(rows=columns.rows + np.int32(first)))
        first += len(matrix)
    folder = tmp_path_factory.mktemp("joined") / "a"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merge, "MERGE_ENTRIES", entries)
        nnz, checks = join_columns(parts, folder)
    found = open_part(folder)
    assert (found.n_features, found.nnz) == (features, nnz)
    expected = columns_of(np.concatenate(dense))
    for mine, theirs in zip(found, expected, strict=True):
        assert np.array_equal(mine, theirs)
    assert {name: (folder / name).stat().st_size for name in checks} == {n: c.bytes for n, c in checks.items()}


@settings(deadline=None, max_examples=50)
@given(counts=st.lists(st.integers(0, 9), min_size=1, max_size=20), entries=st.integers(1, 15))
def test_blocks_cover_all_features_and_are_bounded(counts, entries):
    indptr = np.concatenate([[0], np.cumsum(counts)])
    blocks = feature_blocks(indptr, entries)
    assert [f for first, last in blocks for f in range(first, last)] == list(range(len(counts)))
    for first, last in blocks:
        assert indptr[last] - indptr[first] <= entries or last - first == 1


def test_joined_arrays(tmp_path):
    parts = [np.arange(6, dtype=np.float32).reshape(2, 3), np.zeros((0, 3), np.float32), np.ones((1, 3), np.float32)]
    for i, part in enumerate(parts):
        (tmp_path / str(i)).mkdir()
        np.save(tmp_path / str(i) / "x.npy", part)
    join_arrays([tmp_path / str(i) for i in range(3)], "x.npy", tmp_path / "out" / "x.npy")
    assert np.array_equal(np.load(tmp_path / "out" / "x.npy"), np.concatenate(parts))
