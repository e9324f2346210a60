"""p-values of features by pooled permutation: against enumeration, SciPy and the exact hypergeometric tail."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from conceptatlas.ranking.design import Design
from conceptatlas.ranking.kernels import rank_deviations
from conceptatlas.ranking.null import benjamini_hochberg
from conceptatlas.ranking.significance import (
    N_BINS,
    RankTest,
    bin_of,
    n_strata,
    pooled_p,
    rank_statistics,
    stratum_of,
)
from conceptatlas.statistics import Exchange
from tests.ranking.oracles import columns_of


def p_values(dense: np.ndarray, design: Design, seed: int = 0) -> np.ndarray:
    columns = columns_of(dense.astype(np.float32))
    test = RankTest.of(design, dense.shape[1], np.random.default_rng(seed))
    n_active = (dense[design.discovery] != 0).sum(axis=0)
    statistic, strata, counts = rank_statistics(columns, n_active, test)
    return pooled_p(statistic, strata, counts)


def two_grades(n_low: int, n_high: int) -> Design:
    labels = np.repeat([0, 3], [n_low, n_high])
    return Design.build(labels, np.zeros(len(labels), bool))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 10**6))
def test_rank_deviations_are_those_of_scipy_up_to_a_shift(n, n_features, seed):
    rng = np.random.default_rng(seed)
    dense = rng.integers(-2, 4, (n, n_features)).astype(np.float32)
    columns = columns_of(dense)
    found = rank_deviations(columns, n)
    for f in range(n_features):
        own = np.zeros(n)
        part = slice(columns.indptr[f], columns.indptr[f + 1])
        own[columns.items[part]] = found[part]
        ranks = stats.rankdata(dense[:, f])
        assert np.allclose(np.diff(own - ranks), 0)


@pytest.mark.parametrize("kind", ["items", "groups", "mixed", "pairs"])
def test_moments_and_statistics_equal_the_enumeration_of_all_arrangements(kind):
    labels = {
        "items": [0, 0, 1, 1, 1],
        "groups": [0, 0, 1, 1, 1, 1],
        "mixed": [0, 1, 1, 1, 0, 0],
        "pairs": [0, 1, 1, 0, 0, 1],
    }[kind]
    groups = np.arange(5) if kind == "items" else np.array([0, 0, 1, 1, 2, 2])
    labels = np.array(labels)
    exchange = Exchange.of(labels, groups)
    drawn = np.unique(exchange.draw(4000, np.random.default_rng(0)), axis=1)
    expected = (
        {tuple(labels[list(order)]) for order in itertools.permutations(range(len(labels)))}
        if kind == "items"
        else None
    )
    if expected is not None:
        assert {tuple(column) for column in drawn.T} == expected
    assert np.log(drawn.shape[1]) == pytest.approx(exchange.log_arrangements)
    x = np.array([1.0, 4.0, 0.5, 2.0, 3.0, 7.0][: len(labels)])
    dense = x[:, None]
    design = Design.build(np.where(labels == 1, 3, 0), np.zeros(len(labels), bool), groups=groups)
    test = RankTest.of(design, 1, np.random.default_rng(1))
    statistic, _, _ = rank_statistics(columns_of(dense.astype(np.float32)), np.array([9]), test)
    # Over many draws (arrangements are equally likely under each rule) mean and deviation are those of the formula.
    many = exchange.draw(200_000, np.random.default_rng(2))
    sums = stats.rankdata(x) @ many
    assert statistic[0] == pytest.approx((stats.rankdata(x) @ labels - sums.mean()) / sums.std(), abs=0.02)


def test_sparse_features_get_the_exact_tail():
    """The fault: five active items, all of the rare grade: 3.5e-8 by the normal approximation, 4.6e-5 exactly."""
    design = two_grades(60, 12)
    rng = np.random.default_rng(0)
    dense = np.zeros((72, 4000))
    for f in range(dense.shape[1]):
        dense[rng.choice(72, 5, replace=False), f] = rng.random(5) + 1
    dense[:, 0] = 0
    dense[60:65, 0] = rng.random(5) + 1
    found = p_values(dense, design)[0]
    upper = stats.hypergeom.sf(4, 72, 12, 5)
    assert upper < found < 6 * upper
    assert stats.mannwhitneyu(dense[60:, 0], dense[:60, 0], method="asymptotic").pvalue < upper / 20


def test_dense_features_get_the_exact_mann_whitney_p():
    design = two_grades(20, 20)
    rng = np.random.default_rng(1)
    dense = rng.normal(0, 1, (40, 400))
    found = p_values(dense, design)
    exact = [stats.mannwhitneyu(x[20:], x[:20], method="exact").pvalue for x in dense.T]
    assert np.allclose(np.log(found), np.log(exact), atol=0.15)


@pytest.mark.parametrize("kind", ["items", "groups", "mixed", "pairs", "unbalanced"])
def test_nulls_are_uniform_at_most(kind):
    rng = np.random.default_rng(3)
    groups = np.arange(120) // {"groups": 6, "mixed": 6, "pairs": 2}.get(kind, 1)
    labels = np.where(rng.random(20) < 0.5, 3, 0)[np.arange(120) // 6]
    if kind == "mixed":
        labels[:6] = [0, 3] * 3
    if kind == "pairs":
        labels = np.tile([0, 3], 60)
    if kind == "unbalanced":
        labels = np.where(np.arange(120) < 12, 3, 0)
    shared = rng.normal(0, 1, (120, 3000))[groups] + rng.normal(0, 0.3, (120, 3000))
    dense = np.where(shared > rng.choice([0.5, 1.5], 3000), shared, 0)
    found = p_values(dense, Design.build(labels, np.zeros(120, bool), groups=groups))
    found = found[~np.isnan(found)]
    for level in (0.05, 0.01):
        assert (found <= level).mean() <= level * 1.35 + 0.002
    assert (benjamini_hochberg(found) <= 0.05).sum() == 0


def test_a_statistic_that_cannot_vary_has_p_1():
    design = two_grades(10, 10)
    dense = np.ones((20, 2))
    dense[:, 1] = np.arange(20)
    found = p_values(dense, design)
    assert found[0] == 1.0
    assert found[1] < 1e-3


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=20))
def test_strata_rise_with_the_number_of_active_items(numbers):
    ordered = np.sort(np.array(numbers))
    strata = stratum_of(ordered)
    assert (np.diff(strata) >= 0).all()
    assert strata.max() < n_strata(5000)
    assert (strata[ordered <= 20] == ordered[ordered <= 20]).all()


def test_pooled_p_by_hand():
    counts = np.zeros((2, N_BINS), dtype=np.int64)
    for value in (-2.0, -1.0, 0.5, 1.0, 3.0):
        counts[1, bin_of(np.array([value]))[0]] += 1
    statistic = np.array([0.9, 3.5, -1.5, np.nan])
    found = pooled_p(statistic, np.array([1, 1, 1, 1]), counts)
    assert found[:3].tolist() == pytest.approx([min(1, 2 * 3 / 6), 2 * 1 / 6, 2 * 2 / 6])
    assert np.isnan(found[3])
