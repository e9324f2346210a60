"""The compiled loops against plain NumPy, with whatever may lie in the memory behind what counts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conceptatlas.saes import _kernels
from conceptatlas.saes._masks import LANES

F32 = npt.NDArray[np.float32]
WIDTHS = st.sampled_from([1, 7, 63, 64, 65, 127, 128, 130, 200])


def followed_by(array: F32, junk: float) -> F32:
    """Return the same numbers, [..., F], in memory that goes on with ``LANES`` others."""
    flat = np.concatenate([array.reshape(-1), np.full(LANES, junk, np.float32)])
    return flat[: array.size].reshape(array.shape)


@settings(deadline=None, max_examples=40)
@given(
    n_rows=st.integers(0, 9),
    n_features=WIDTHS,
    junk=st.sampled_from([0.0, -0.0, 1e30, np.inf, np.nan]),
    seed=st.integers(0, 99),
)
def test_take_above_and_into_columns(n_rows: int, n_features: int, junk: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tile = followed_by(rng.integers(-3, 4, (n_rows, n_features)).astype(np.float32), junk)  # ties with the threshold
    bias = followed_by(rng.integers(-2, 3, n_features).astype(np.float32), junk)
    threshold = followed_by(rng.integers(0, 3, n_features).astype(np.float32), junk)
    counts, ends = np.zeros(n_features, np.int64), np.empty(n_rows, np.int32)
    features, values = np.empty(tile.size, np.uint16), np.empty(tile.size, np.float32)
    n = _kernels.take_above(tile, bias, threshold, counts, ends, features, values)
    expected = tile + bias > threshold
    assert n == expected.sum()
    np.testing.assert_array_equal(counts, expected.sum(axis=0))
    np.testing.assert_array_equal(ends, expected.sum(axis=1).cumsum())
    np.testing.assert_array_equal(features[:n], expected.nonzero()[1])
    np.testing.assert_array_equal(values[:n], (tile + bias)[expected])
    at = np.concatenate([[0], counts.cumsum()[:-1]])
    rows, columns = np.empty(n, np.int32), np.empty(n, np.float32)
    _kernels.into_columns(100, ends, features[:n], values[:n], at, rows, columns)
    np.testing.assert_array_equal(rows, expected.T.nonzero()[1] + 100)
    np.testing.assert_array_equal(columns, (tile + bias).T[expected.T])
    np.testing.assert_array_equal(at, counts.cumsum())


@settings(deadline=None, max_examples=40)
@given(
    n_features=st.integers(1, 5),
    n_rows=WIDTHS,
    junk=st.sampled_from([0.0, 1e30, np.inf, np.nan]),
    bad=st.sampled_from([None, np.inf, -np.inf, np.nan]),
    seed=st.integers(0, 99),
)
def test_take_few(n_features: int, n_rows: int, junk: float, bad: float | None, seed: int) -> None:
    rng = np.random.default_rng(seed)
    numbers = rng.integers(-3, 4, (n_features, n_rows)).astype(np.float32)
    if bad is not None:
        numbers[:, rng.integers(n_rows)] = bad  # what a row that is not finite makes of every product
    products = followed_by(numbers, junk)
    bias = rng.integers(-2, 3, n_features).astype(np.float32)
    threshold = rng.integers(0, 3, n_features).astype(np.float32)
    ends = np.empty(n_features, np.int64)
    rows, values = np.empty(products.size, np.int32), np.empty(products.size, np.float32)
    assert _kernels.take_few(products, bias, threshold, ends, rows, values) == (bad is None)
    expected = products + bias[:, None] > threshold[:, None]
    np.testing.assert_array_equal(ends, expected.sum(axis=1).cumsum())
    np.testing.assert_array_equal(rows[: ends[-1]], expected.nonzero()[1])
    np.testing.assert_array_equal(values[: ends[-1]], (products + bias[:, None])[expected])


@settings(deadline=None, max_examples=40)
@given(n_rows=st.integers(1, 9), n_features=WIDTHS, block=st.integers(1, 4), seed=st.integers(0, 99))
def test_take_decided(n_rows: int, n_features: int, block: int, seed: int) -> None:
    """What lies within the margin is decided by the exact product, whatever the rounded one says; the rest by that."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-3, 4, (n_rows, 5)).astype(np.float32)
    weights = rng.integers(-3, 4, (n_features, 5)).astype(np.float32)
    bias = np.pad(rng.integers(-2, 3, n_features).astype(np.float32), (0, LANES))
    threshold = np.pad(rng.integers(0, 3, n_features).astype(np.float32), (0, LANES))
    pre = x @ weights.T + bias[:n_features]
    margin = np.where(np.arange(n_rows) < block, 2, 4)  # of each row; the first block's is the least
    exact = threshold[:n_features] - pre
    wrong = rng.integers(-margin[:, None], margin[:, None] + 1, exact.shape)
    short = (exact + wrong).astype(np.float32)  # integers this small are exact in bfloat16
    bits = (followed_by(short, -0.0).view(np.int32) >> 16).astype(np.int16)
    bits = np.concatenate([bits.reshape(-1), np.full(LANES, -32768, np.int16)])[: short.size].reshape(short.shape)
    # w_norms[f, 0] x_norms[t, 1] is the bound that always holds; the other one is made to hold nothing back.
    x_norms = np.tile(np.array([0.0, 0.0, 0.0, 1e6], np.float32), (n_rows, 1))
    x_norms[:, 1] = margin
    x_maxima = x_norms[::block].copy()
    norms_of_w = np.tile(np.array([1.0, 0.0, 1e6, 0.0], np.float32), (n_features, 1))
    w_norms = np.hstack([np.zeros((4, 3), np.float32), norms_of_w.T])  # of all features, the tile's from the fourth on
    bounds = np.full(n_features + LANES, 32767, np.int16)
    counts, ends = np.zeros(n_features, np.int64), np.empty(n_rows, np.int32)
    features, values = np.empty(short.size, np.uint16), np.empty(short.size, np.float32)
    unsure = np.empty((short.size, 2), np.int32)
    n = _kernels.take_decided(
        bits, block, x_maxima, x_norms, w_norms, norms_of_w, 3, (1.0, 1.0), x, weights, bias, threshold,
        bounds, unsure, counts, ends, features, values,
    )  # fmt: skip
    expected = pre > threshold[:n_features]
    np.testing.assert_array_equal(counts, expected.sum(axis=0))
    assert n == expected.sum()
    begin = 0
    for t, end in enumerate(ends):
        assert sorted(features[begin:end].tolist()) == expected[t].nonzero()[0].tolist()
        near = np.abs(short[t][features[begin:end]]) <= margin[t]
        np.testing.assert_array_equal(values[begin:end][near], pre[t][features[begin:end]][near])
        np.testing.assert_array_equal(
            values[begin:end][~near], (threshold[:n_features] - short[t])[features[begin:end]][~near]
        )
        begin = end


@pytest.mark.parametrize("width", [1, 5, 300])
def test_add_decoded_and_the_sums(width: int) -> None:
    rng = np.random.default_rng(0)
    acts = np.where(rng.random((9, 12)) < 0.3, rng.random((9, 12)), 0).astype(np.float32)
    where, rows = acts.T.nonzero()
    indptr = np.concatenate([[0], np.bincount(where, minlength=12).cumsum()])
    W_dec = rng.standard_normal((12, 310)).astype(np.float32)
    out = np.ones((7, width), np.float32)  # the last two rows are left out
    _kernels.add_decoded(indptr, rows.astype(np.int32), acts[rows, where], W_dec, 10, out)
    np.testing.assert_allclose(out, 1 + acts[:7] @ W_dec[:, 10 : 10 + width], rtol=1e-5, atol=1e-6)
    counts = np.zeros(7, np.int64)
    _kernels.count_rows(rows.astype(np.int32), counts)
    np.testing.assert_array_equal(counts, (acts[:7] != 0).sum(axis=1))
    a, b = W_dec[:5], W_dec[5:10]
    assert _kernels.squared_distance(a, b) == pytest.approx(((a - b).astype(np.float64) ** 2).sum(), rel=1e-6)


@settings(deadline=None, max_examples=40)
@given(bits=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=70))
def test_rounding_is_that_of_torch(bits: list[int]) -> None:
    numbers = np.array(bits, np.uint32).view(np.float32)
    numbers = np.where(np.abs(numbers) < 1e9, numbers, np.float32(1.5))[None]  # squares of squares stay finite
    low, norms = np.zeros((1, numbers.size + 3), np.int16), np.empty((4, 1), np.float32)
    _kernels.round_numbers(numbers, low, norms)
    expected = torch.from_numpy(numbers).bfloat16()
    np.testing.assert_array_equal(low[:, : numbers.size], expected.view(torch.int16).numpy())
    assert not low[:, numbers.size :].any()
    kept, lost = expected.double().numpy(), numbers - expected.double().numpy()
    wanted = [np.sqrt((part**power).sum()) for power in (2, 4) for part in (kept, lost)]
    np.testing.assert_allclose(norms[:, 0], wanted, rtol=1e-4, atol=1e-18)
