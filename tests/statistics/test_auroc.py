"""The AUROC's interval: the clustered variance behind it, what groups are worth, and the coverage that it claims."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm, rankdata
from sklearn.metrics import roc_auc_score

from conceptatlas.statistics import auroc, auroc_interval, mid_ranks, placements, score_bounds
from conceptatlas.statistics.auroc import clustered_covariance


def delong_covariance(x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> float:
    """DeLong 1988 (Obuchowski 1997 with groups), pair by pair."""
    high, low = np.flatnonzero(y), np.flatnonzero(~y)
    psi = np.array([[1.0 if x[i] > x[j] else 0.5 if x[i] == x[j] else 0.0 for j in low] for i in high])
    theta, m, n = psi.mean(), len(high), len(low)
    v10, v01 = psi.mean(axis=1), psi.mean(axis=0)
    names = np.unique(groups)
    a = np.array([(v10[groups[high] == g] - theta).sum() for g in names])
    b = np.array([(v01[groups[low] == g] - theta).sum() for g in names])
    i10, i01, i = len(np.unique(groups[high])), len(np.unique(groups[low])), len(names)
    s10, s01 = i10 / ((i10 - 1) * m) * (a**2).sum(), i01 / ((i01 - 1) * n) * (b**2).sum()
    s11 = i / (i - 1) * (a * b).sum()
    return s10 / m + s01 / n + 2 * s11 / (m * n)


@pytest.mark.parametrize("per_group", [1, 3])
def test_the_clustered_variance_is_that_of_a_loop_over_pairs(per_group):
    rng = np.random.default_rng(0)
    for _ in range(20):
        y = rng.random(48) < 0.4
        x = np.round(rng.normal(0, 1, 48) + y, 1)
        groups = np.arange(48) // per_group
        place = placements(x, y)
        theta = place[y].mean()
        assert theta == pytest.approx(roc_auc_score(y, x)) == pytest.approx(auroc(x, y))
        found = clustered_covariance(place - theta, place - theta, y, groups)
        assert found == pytest.approx(delong_covariance(x, y, groups))


def test_groups_count_for_no_more_than_they_are():
    y = np.arange(30) >= 20
    alone = auroc_interval(np.arange(30.0), y)
    grouped = auroc_interval(np.arange(30.0), y, np.arange(30) // 5)
    assert alone.estimate == grouped.estimate == alone.high == 1.0
    assert grouped.low < alone.low < 1
    low, _ = score_bounds(np.array([1.0]), 2.0, 4.0)
    assert grouped.low == pytest.approx(low[0])
    turned = auroc_interval(-np.arange(30.0), y)
    assert turned == pytest.approx((0.0, 0.0, 1 - alone.low))


def test_nan_only_where_a_class_is_missing():
    assert np.isnan(auroc_interval(np.arange(4.0), np.ones(4, bool))).all()
    flat = auroc_interval(np.zeros(8), np.arange(8) > 3)
    assert flat.estimate == 0.5
    assert 0 < flat.low < 0.5 < flat.high < 1
    one = auroc_interval(np.array([1.0, 0, 2, 3]), np.array([True, False, False, False]))
    assert one.low < one.estimate < one.high


@pytest.mark.parametrize("truth", [0.70, 0.80, 0.90, 0.95])
def test_coverage(truth):
    """At least 93% of intervals hold the truth at 40 items per class (2,000 trials: ±1% is two standard errors)."""
    rng = np.random.default_rng(round(truth * 100))
    shift = np.sqrt(2) * norm.ppf(truth)
    y = np.repeat([True, False], 40)
    covered = 0
    for _ in range(2000):
        found = auroc_interval(rng.normal(0, 1, 80) + shift * y, y)
        covered += found.low <= truth <= found.high
    assert 0.93 <= covered / 2000 <= 0.995


def test_coverage_with_groups_where_items_alone_would_claim_too_much():
    rng = np.random.default_rng(0)
    truth, per_group, n_groups = 0.8, 4, 80
    shift = np.sqrt(2) * norm.ppf(truth)
    y = np.repeat(np.arange(n_groups) % 2 == 0, per_group)
    groups = np.repeat(np.arange(n_groups), per_group)
    grouped = alone = 0
    for _ in range(1000):
        shared = rng.normal(0, 1, n_groups)[groups]
        x = np.sqrt(0.8) * shared + np.sqrt(0.2) * rng.normal(0, 1, len(y)) + shift * y
        for by in (groups, None):
            found = auroc_interval(x, y, by)
            inside = found.low <= truth <= found.high
            grouped, alone = grouped + (by is not None and inside), alone + (by is None and inside)
    assert 0.93 <= grouped / 1000 <= 0.995
    assert alone / 1000 < 0.85


def test_mid_ranks_are_scipys():
    rng = np.random.default_rng(0)
    for n in (0, 1, 30):
        x = rng.integers(0, 5, n).astype(float)
        assert np.array_equal(mid_ranks(x), rankdata(x))
