"""p-values of features by exchange of labels: exact where that can be counted, and honest with groups."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from conceptatlas.ranking.design import Design
from conceptatlas.ranking.rank_null import RankNull
from conceptatlas.statistics import benjamini_hochberg
from tests.ranking.oracles import columns_of


def p_values(dense: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None, count: int = 1000) -> np.ndarray:
    design = Design.build(labels, np.zeros(len(labels), bool), groups=groups)
    null = RankNull(design, dense.shape[1], np.random.default_rng(0), count)
    return null.p_values(*null.observe(columns_of(dense.astype(np.float32))))


def test_dense_scores_have_the_p_values_of_mann_and_whitney():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 3], [30, 20])
    dense = rng.normal(0, 1, (50, 300)) + np.linspace(0, 1, 300) * (labels == 3)[:, None]
    found = p_values(dense, labels)
    exact = [stats.mannwhitneyu(x[labels == 3], x[labels == 0], method="exact").pvalue for x in dense.T]
    assert np.allclose(found, exact, rtol=0.25, atol=2e-4)


def test_five_active_items_of_the_rare_grade_are_counted_not_approximated():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 3], [192, 32])
    dense = np.zeros((224, 400))
    for f in range(400):
        dense[rng.choice(224, 5, replace=False), f] = 1 + rng.random(5)
    dense[:, 0] = 0
    dense[192:197, 0] = 1 + rng.random(5)
    exact = stats.hypergeom(224, 32, 5).pmf(5)
    normal = stats.mannwhitneyu(dense[labels == 3, 0], dense[labels == 0, 0], method="asymptotic").pvalue
    assert exact == pytest.approx(4.6e-5, rel=0.05)
    assert normal < 1e-7
    assert p_values(dense, labels)[0] == pytest.approx(exact, rel=0.5)


def test_a_sparse_feature_is_judged_among_sparse_ones():
    """Its rank sum is never normal: pooled with the dense, five of the rare grade would look a hundred times rarer."""
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 3], [192, 32])
    dense = rng.normal(0, 1, (224, 1800))
    dense[:, :300] = 0
    for f in range(300):
        dense[rng.choice(224, 5, replace=False) if f else np.arange(192, 197), f] = 1 + rng.random(5)
    assert p_values(dense, labels)[0] == pytest.approx(stats.hypergeom(224, 32, 5).pmf(5), rel=0.5)


def test_features_active_on_few_items_are_not_tested_and_flat_ones_have_p_1():
    labels = np.repeat([0, 1, 3], 10)
    dense = np.zeros((30, 3))
    dense[:4, 0], dense[10:20, 1], dense[:, 2] = 1, 2, 5
    found = p_values(dense, labels)
    assert np.isnan(found[0])
    assert found[1:].tolist() == [1, 1]


def test_groups_are_respected():
    """Scores shared by the items of a group: q ≤ .05 in about 5% of searches, not in all of them."""
    hits = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        groups = np.arange(120) // 6
        labels = rng.permutation(np.arange(20) % 2 * 3)[groups]
        dense = rng.gamma(2, 2, (20, 200))[groups] + 0.1 * rng.random((120, 200))
        hits += (benjamini_hochberg(p_values(dense, labels, groups, 200)) <= 0.05).any()
    assert hits <= 9


def test_blocks_and_permutations_beyond_the_body_change_little():
    rng = np.random.default_rng(2)
    labels = np.repeat([0, 3], 40)
    dense = rng.normal(0, 1, (80, 100)) + np.linspace(0, 1.5, 100) * (labels == 3)[:, None]
    design = Design.build(labels, np.zeros(80, bool))
    columns = columns_of(dense.astype(np.float32))
    found = []
    for n_features in (100, 10_000_000):
        null = RankNull(design, n_features, np.random.default_rng(0), 600)
        found.append(null.p_values(*null.observe(columns)))
    assert np.allclose(*found, rtol=0.2, atol=0.02)
