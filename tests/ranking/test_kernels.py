"""Kernels against SciPy, scikit-learn and NumPy, one feature at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conceptatlas.ranking import kernels as k
from tests.ranking.oracles import columns_of, slow_figures

SETTINGS = settings(max_examples=60, deadline=None)


def fast_figures(dense: np.ndarray, labels: np.ndarray, *, low: int = 0, high: int = 3):
    data, _ = k.sort_columns(columns_of(dense), labels, np.zeros(len(labels), bool))
    m = k.moments(data)
    threshold = k.grade_percentile(data, low)
    above = k.share_above(data, threshold)
    sep = k.separation(data, low=low, high=high)
    std = np.sqrt(m.variance_sum / len(labels))
    with np.errstate(divide="ignore", invalid="ignore"):
        separation = (m.mean_by_grade[:, high] - m.mean_by_grade[:, low]) / std
    tpr, fpr = above[:, high], above[:, low]
    return m.constant, {
        "pearson": m.pearson,
        "spearman": k.spearman(data, m.constant),
        **{f"mean_{g}": m.mean_by_grade[:, g] for g in range(4)},
        "threshold": threshold,
        "tpr": tpr,
        "fpr": fpr,
        "separation": separation,
        "monotonic": k.is_monotonic(m.mean_by_grade, data.grade_counts > 0, falling=False).astype(float),
        "score": 0.4 * m.pearson + 0.3 * separation + 0.3 * (tpr - fpr),
        "auroc": sep,
        "n_active": data.stored.sum(axis=1),
    }


def check(dense: np.ndarray, labels: np.ndarray, **ends) -> None:
    constant, fast = fast_figures(dense, labels, **ends)
    for f in range(dense.shape[1]):
        slow = slow_figures(dense[:, f], labels, **ends)
        assert constant[f] == (slow is None)
        if slow is None:
            continue
        for name, value in slow.items():
            assert fast[name][f] == pytest.approx(value, abs=1e-6, rel=1e-9, nan_ok=True), (name, f)


@st.composite
def cases(draw):
    n = draw(st.integers(2, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = rng.integers(0, 4, n)
    labels[:2] = (0, 3)
    kind = draw(st.sampled_from(["integers", "signed", "gamma", "dense", "huge mean"]))
    shape = (n, draw(st.integers(1, 6)))
    values = {
        "integers": lambda: rng.integers(1, 4, shape),
        "signed": lambda: rng.integers(-2, 3, shape),
        "gamma": lambda: rng.gamma(2, 2, shape),
        "dense": lambda: rng.normal(5, 1, shape),
        "huge mean": lambda: 1000 + rng.integers(0, 3, shape) / 1024,
    }[kind]()
    share = 1.0 if kind in ("dense", "huge mean") else draw(st.sampled_from([0.05, 0.3, 0.8, 1.0]))
    return np.where(rng.random(shape) < share, values, 0).astype(np.float32), labels


@SETTINGS
@given(cases())
def test_every_figure_equals_the_slow_one(case):
    check(*case)


@pytest.mark.parametrize("n_low", range(1, 201))
def test_the_percentile_is_numpys_bit_for_bit_at_every_count(n_low):
    rng = np.random.default_rng(n_low)
    labels = np.concatenate([np.zeros(n_low, int), np.full(7, 3), [1, 2]])
    dense = np.where(rng.random((len(labels), 5)) < [0.02, 0.1, 0.5, 0.97, 1], rng.gamma(2, 2, (len(labels), 5)), 0)
    dense[:, 2] *= -1
    dense[:, 4] -= 4
    dense = dense.astype(np.float32)
    data, _ = k.sort_columns(columns_of(dense), labels, np.zeros(len(labels), bool))
    expected = np.percentile(dense[labels == 0].astype(np.float64), 95, axis=0)
    assert np.array_equal(k.grade_percentile(data, 0), expected)
    check(dense, labels)


def test_one_item_per_label_and_constant_columns():
    labels = np.array([3, 0, 2, 1])
    dense = np.array([[3, 0, 2, 1], [0, 0, 0, 0], [5, 5, 5, 5], [-1, -1, -1, -1], [0, 0, 7, 0]], dtype=np.float32).T
    check(dense, labels)
    constant, fast = fast_figures(dense, labels)
    assert constant.tolist() == [False, True, True, True, False]
    assert fast["pearson"][0] == pytest.approx(1)
    assert np.isnan(fast["pearson"][1:4]).all()


def test_ends_other_than_0_and_3():
    rng = np.random.default_rng(1)
    labels = rng.integers(1, 3, 30)
    check(rng.integers(0, 3, (30, 4)).astype(np.float32), labels, low=1, high=2)


def test_no_features_and_no_entries():
    labels = np.array([0, 3, 3])
    for dense in (np.zeros((3, 0), np.float32), np.zeros((3, 4), np.float32)):
        constant, fast = fast_figures(dense, labels)
        assert len(constant) == dense.shape[1]
        assert constant.all()
        assert (fast["auroc"] == 0.5).all()


def test_the_split_keeps_sides_apart():
    rng = np.random.default_rng(2)
    dense = np.where(rng.random((50, 8)) < 0.4, rng.normal(0, 1, (50, 8)), 0).astype(np.float32)
    labels, holdout = rng.integers(0, 4, 50), rng.random(50) < 0.3
    both = k.sort_columns(columns_of(dense), labels, holdout)
    for data, mask in zip(both, (~holdout, holdout), strict=True):
        alone, _ = k.sort_columns(columns_of(dense[mask]), labels[mask], np.zeros(mask.sum(), bool))
        assert np.array_equal(data.indptr, alone.indptr)
        assert np.array_equal(data.values, alone.values)
        assert np.array_equal(data.labels, alone.labels)
        assert np.array_equal(data.grade_counts, alone.grade_counts)


def test_spearman_and_auroc_turn_round_when_the_labels_do():
    rng = np.random.default_rng(3)
    dense = rng.integers(-1, 3, (40, 6)).astype(np.float32)
    labels = rng.integers(0, 4, 40)
    _, up = fast_figures(dense, labels)
    _, down = fast_figures(dense, 3 - labels)
    assert np.allclose(up["spearman"], -down["spearman"])
    assert np.allclose(up["pearson"], -down["pearson"])
    assert np.allclose(up["auroc"], 1 - down["auroc"])


def test_share_above_a_negative_threshold_counts_the_zeros():
    dense = np.array([[-1], [-2], [0], [0], [-3], [1]], dtype=np.float32)
    labels = np.array([0, 0, 3, 3, 3, 3])
    data, _ = k.sort_columns(columns_of(dense), labels, np.zeros(6, bool))
    threshold = k.grade_percentile(data, 0)
    assert threshold[0] == np.percentile([-1.0, -2.0], 95)
    assert k.share_above(data, threshold)[0, 3] == 0.75
