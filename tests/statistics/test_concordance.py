"""Concordance and its interval: counted pair by pair, Newcombe's equation, monotone, of the coverage it claims."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import norm, rankdata
from sklearn.metrics import roc_auc_score

from conceptatlas.statistics import adjacent_aurocs, auroc, auroc_interval, concordance, mid_ranks


def test_the_concordance_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(0)
    for n in (2, 9, 40):
        grades, x = rng.integers(0, 4, n), rng.integers(0, 6, n).astype(float)
        grades[:2] = 0, 3
        pairs = [(i, j) for i, j in itertools.product(range(n), range(n)) if grades[i] > grades[j]]
        slow = np.mean([np.sign(x[i] - x[j]) / 2 + 0.5 for i, j in pairs])
        found = concordance(x, grades)
        assert found.concordance == pytest.approx(slow)
        assert found.low <= slow <= found.high
    adjacent = adjacent_aurocs(x, grades)
    assert list(adjacent) == [(1, 0), (2, 1), (3, 2)]
    pair = np.isin(grades, (1, 2))
    assert adjacent[2, 1].auroc == pytest.approx(auroc(x[pair], grades[pair] == 2))


def test_the_bounds_solve_newcombes_equation():
    rng = np.random.default_rng(1)
    y = np.arange(50) < 20
    x = rng.normal(0, 1, 50) + y
    found = auroc_interval(x, y)
    assert found.auroc == pytest.approx(roc_auc_score(y, x))
    for t in found[1:]:
        half = (50 / 2 - 1) * ((1 - t) / (2 - t) + t / (1 + t))
        assert (found.auroc - t) ** 2 == pytest.approx(1.959964**2 * t * (1 - t) * (1 + half) / (20 * 30), rel=1e-4)


@pytest.mark.parametrize("per_group", [1, 5])
def test_an_inversion_never_raises_the_lower_bound(per_group):
    y = np.arange(100) >= 50
    order = np.arange(100.0)
    lows = [auroc_interval(order, y, np.arange(100) // per_group).low]
    for inversions in range(1, 30):
        x = order.copy()
        x[50] = 50 - inversions - 0.5
        lows.append(auroc_interval(x, y, np.arange(100) // per_group).low)
    assert (np.diff(lows) < 0).all()
    assert auroc_interval(-order, y).high == pytest.approx(1 - auroc_interval(order, y).low)


def test_nan_only_where_a_class_is_missing():
    assert np.isnan(auroc_interval(np.arange(4.0), np.ones(4, bool))).all()
    assert np.isnan(concordance(np.arange(4.0), np.ones(4, int))).all()
    flat = auroc_interval(np.zeros(8), np.arange(8) > 3)
    assert 0 < flat.low < 0.5 < flat.high < 1
    assert not np.isnan(auroc_interval(np.array([1.0, 0, 2, 3]), np.array([True, False, False, False]))).any()


def test_a_grade_counts_for_no_more_than_its_groups():
    y = np.repeat([False, True], 40)
    grouped = auroc_interval(np.arange(80.0), y, np.arange(80) // 10)
    assert grouped == pytest.approx(auroc_interval(np.arange(8.0), np.repeat([False, True], 4)))


def test_coverage_where_the_two_of_a_pair_move_apart():
    """High and low of a pair score d and -d: each grade has as many groups as items, and the variance is twice as large."""
    rng = np.random.default_rng(4)
    y, pairs = np.arange(80) % 2 == 0, np.arange(80) // 2
    covered = alone = 0
    for _ in range(300):
        x = rng.normal(0, 1, 40)[pairs] * np.where(y, 1, -1)
        found, as_items = auroc_interval(x, y, pairs), auroc_interval(x, y)
        covered += found.low <= 0.5 <= found.high
        alone += as_items.low <= 0.5 <= as_items.high
    assert covered / 300 >= 0.92
    assert alone / 300 < 0.88


@pytest.mark.parametrize("truth", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("per_group", [1, 4])
def test_coverage(truth, per_group):
    rng = np.random.default_rng(round(truth * 100))
    groups = np.arange(160) // per_group
    y = groups % 2 == 0
    shift = np.sqrt(2) * norm.ppf(truth)
    covered = 0
    for _ in range(400):
        x = np.sqrt(0.8) * rng.normal(0, 1, 160)[groups] + np.sqrt(0.2) * rng.normal(0, 1, 160) + shift * y
        found = auroc_interval(x, y, groups)
        covered += found.low <= truth <= found.high
    assert covered / 400 >= 0.92  # 0.93 and more aimed at; one standard error is 0.012


def test_mid_ranks_are_scipys():
    rng = np.random.default_rng(0)
    for n in (0, 1, 30):
        x = rng.integers(0, 5, n).astype(float)
        assert np.array_equal(mid_ranks(x), rankdata(x))


def test_the_bound_at_1_is_newcombes():
    """(1 − t)² = z² t (1 − t) (1 + 9 ((1 − t)/(2 − t) + t/(1 + t))) / 100, solved on a grid of a million points."""
    found = auroc_interval(np.arange(20.0), np.arange(20) >= 10)
    t = np.linspace(0, 1, 1_000_001)[:-1]
    variance = t * (1 - t) * (1 + 9 * ((1 - t) / (2 - t) + t / (1 + t))) / 100
    assert found.auroc == found.high == 1
    assert found.low == pytest.approx(t[np.flatnonzero((1 - t) ** 2 > 1.959964**2 * variance)[-1]], abs=1e-5)
    assert 0.7 < found.low < 0.9
