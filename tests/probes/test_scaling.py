"""Scalers fitted chunk by chunk equal scikit-learn's, fitted at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from conceptatlas.base.errors import InputError
from conceptatlas.probes.scaling import ColumnStats, Scaler, find_normalization

ORACLES = {"standardize": StandardScaler, "minmax": MinMaxScaler}


def stats_of(rows, cuts):
    stats = ColumnStats(rows.shape[1])
    for chunk in np.split(rows, cuts):
        stats.add(chunk)
    return stats


@settings(deadline=None, max_examples=60)
@given(st.data(), st.integers(1, 30), st.integers(1, 5), st.sampled_from(["standardize", "minmax"]))
def test_chunks_give_what_all_rows_give(data, n, width, method):
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    rows = rng.normal(size=(n, width)) * rng.choice([1e-3, 1.0, 1e4], size=width) + rng.normal(size=width) * 100
    rows[:, 0] = rows[0, 0]  # constant
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=4)))
    scaler = Scaler.fitted(method, stats_of(rows, cuts))
    oracle = ORACLES[method]().fit(rows)
    np.testing.assert_allclose(scaler.apply(rows), oracle.transform(rows), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["standardize", "minmax", "none"])
def test_undo_gives_back_the_rows(method):
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(40, 6)) * 7 + 3).astype(np.float32)
    rows[:, 2] = 4.0
    scaler = Scaler.fitted(method, stats_of(rows, [13]))
    np.testing.assert_allclose(scaler.undo(scaler.apply(rows)), rows, rtol=1e-5, atol=1e-5)
    assert (scaler.scale != 0).all()


def test_an_unknown_normalization_lists_the_names():
    with pytest.raises(InputError, match=r"Unknown normalization 'standard'; nearest: standardize"):
        find_normalization("standard")
