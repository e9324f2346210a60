"""Figures of the norms, read block by block, against NumPy over all of them."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from conceptatlas.recording import norms
from conceptatlas.recording.norms import norm_figures
from conceptatlas.subjects.norms import SINK_FACTOR

SITES = 4


def some_norms(n_rows: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    found = rng.lognormal(4, 1, (n_rows, SITES)).astype(np.float32)
    found[rng.random(found.shape) < 0.01] *= 100  # sinks
    found[:, 1] = np.round(found[:, 1])  # ties
    found[:, 2] = 0.0
    return found


@pytest.mark.parametrize("n_rows", [1, 2, 7, 8, 8191, 8192, 16385, 40_000])
@pytest.mark.parametrize("block_rows", [8192, 1 << 17])
def test_the_same_to_the_last_bit(n_rows, block_rows, monkeypatch):
    monkeypatch.setattr(norms, "BLOCK_ROWS", block_rows)
    norms_TS = some_norms(n_rows, n_rows)
    cuts = np.sort(np.random.default_rng(1).integers(0, n_rows + 1, 5))
    found = norm_figures(np.split(norms_TS, cuts))
    is_sink = np.zeros(n_rows, dtype=bool)
    for site in range(SITES):
        column = np.ascontiguousarray(norms_TS[:, site])
        sinks = column > SINK_FACTOR * float(np.median(column))
        is_sink |= sinks
        assert found.medians[site] == np.median(column)
        assert found.means[site] == column.mean(dtype=np.float64)
        assert found.sinks[site] == sinks.sum()
    assert np.array_equal(found.is_sink, is_sink)


def test_no_sites():
    found = norm_figures([np.zeros((3, 0), np.float32)])
    assert len(found.medians) == 0
    assert found.is_sink.tolist() == [False] * 3


def test_memory_does_not_grow_with_the_rows(tmp_path):
    """Beyond one flag a row."""
    peaks = []
    for n_rows in (1 << 17, 1 << 20):
        path = tmp_path / f"{n_rows}.npy"
        np.save(path, some_norms(n_rows, 0))
        part = np.load(path, mmap_mode="r")
        tracemalloc.start()
        norm_figures([part])
        peaks.append(tracemalloc.get_traced_memory()[1] - n_rows)
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]
