"""Chance: against a slow permutation, and calibrated when the labels mean nothing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from conceptatlas.ranking.design import Design
from conceptatlas.ranking.null import benjamini_hochberg, best_of, extreme_correlations, p_of_max, permute
from tests.ranking.oracles import columns_of


def design(n: int = 60, seed: int = 0, per_group: int = 1, held: float = 0.3) -> Design:
    rng = np.random.default_rng(seed)
    groups = np.arange(n) // per_group
    labels = rng.integers(0, 4, groups.max() + 1)[groups]
    return Design.build(labels, rng.random(groups.max() + 1)[groups] < held, groups=groups)


@pytest.mark.parametrize("kind", ["sparse", "dense", "signed", "huge mean"])
def test_extremes_equal_a_loop_over_features_and_permutations(kind):
    here = design()
    rng = np.random.default_rng(1)
    shape = (60, 9)
    dense = {
        "sparse": lambda: np.where(rng.random(shape) < 0.1, rng.gamma(2, 2, shape), 0),
        "dense": lambda: rng.gamma(2, 2, shape),
        "signed": lambda: np.where(rng.random(shape) < 0.5, rng.normal(0, 1, shape), 0),
        "huge mean": lambda: 1000 + rng.integers(0, 4, shape) / 64,
    }[kind]().astype(np.float32)
    dense[:, 0], dense[:, 1] = 0, 7  # never searched: constant
    permutations = permute(here, 300, rng)
    high, low = extreme_correlations(columns_of(dense), permutations, here)
    x = dense[here.discovery].astype(np.float64)
    for p in range(300):
        y = permutations.labels[here.discovery, p].astype(np.float64)
        r = [stats.pearsonr(x[:, f], y)[0] for f in range(2, 9) if np.ptp(x[:, f])]
        assert high[p] == pytest.approx(max(r), abs=2e-6)
        assert low[p] == pytest.approx(min(r), abs=2e-6)


def test_permuted_labels_are_the_labels_in_another_order():
    here = design()
    permutations = permute(here, 20, np.random.default_rng(0))
    assert permutations.unit == "items"
    assert (permutations.labels[here.holdout] == 0).all()
    y = here.labels[here.discovery].astype(float)
    y = np.sort((y - y.mean()) / np.linalg.norm(y - y.mean()))
    assert np.allclose(np.sort(permutations.labels[here.discovery], axis=0), y[:, None], atol=1e-6)
    assert len(np.unique(permutations.labels, axis=1).T) == 20


def test_whole_groups_are_permuted_where_labels_are_constant_within_them():
    here = design(per_group=3)
    permutations = permute(here, 20, np.random.default_rng(0))
    assert permutations.unit == "groups"
    inside = permutations.labels[here.discovery].reshape(-1, 3, 20)
    assert (inside == inside[:, :1]).all()
    assert np.allclose(np.linalg.norm(permutations.labels, axis=0), 1, atol=1e-6)


def test_one_mixed_group_does_not_switch_everything_to_items():
    here = design(per_group=3)
    labels = here.labels.copy()
    first = np.flatnonzero(here.discovery)[:3]
    labels[first] = [0, 1, 2]
    mixed = Design.build(labels, here.holdout, groups=here.groups)
    permutations = permute(mixed, 50, np.random.default_rng(0))
    assert permutations.unit == "groups and the items within them"
    inside = permutations.labels[mixed.discovery].reshape(-1, 3, 50)
    varied = (inside != inside[:, :1]).any(axis=1)
    assert (varied.sum(axis=0) == 1).all()  # one group in each draw holds the mixed pattern, the others stay whole
    assert len(set(np.argmax(varied, axis=0).tolist())) > 5


def test_noise_of_groups_does_not_reach_significance_with_one_mixed_group():
    """The fault: on noise that is shared within groups, 20 of 20 searches reached p ≤ .05."""
    low = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        here = design(n=160, seed=seed, per_group=8, held=0.0)
        labels = here.labels.copy()
        labels[:8] = np.arange(8) % 4
        here = Design.build(labels, here.holdout, groups=here.groups)
        shared = rng.normal(0, 1, (20, 200))[here.groups] + rng.normal(0, 0.3, (160, 200))
        columns = columns_of(shared.astype(np.float32))
        permutations = permute(here, 99, rng)
        high, lowest = extreme_correlations(columns, permutations, here)
        r = np.corrcoef(shared.T, labels)[-1, :-1]
        low += p_of_max(np.array([r.max()]), best_of(high, lowest, "up"))[0] <= 0.05
    assert low <= 5


def test_p_of_max_counts_exceedances_by_hand():
    best = np.array([0.1, 0.2, 0.3, 0.4], dtype=np.float32)
    assert p_of_max(np.array([0.5, 0.3, 0.05, np.nan]), best).tolist()[:3] == [1 / 5, 3 / 5, 1.0]
    assert np.isnan(p_of_max(np.array([np.nan]), best)[0])


def test_both_directions_pay_for_both():
    high, low = np.array([0.2, 0.3], np.float32), np.array([-0.4, -0.1], np.float32)
    assert best_of(high, low, "up").tolist() == pytest.approx([0.2, 0.3])
    assert best_of(high, low, "down").tolist() == pytest.approx([0.4, 0.1])
    assert best_of(high, low, "both").tolist() == pytest.approx([0.4, 0.3])


def test_q_values_are_scipys_and_leave_gaps():
    rng = np.random.default_rng(0)
    p = rng.random(50) ** 2
    p[[3, 17]] = np.nan
    q = benjamini_hochberg(p)
    assert np.isnan(q[[3, 17]]).all()
    tested = ~np.isnan(p)
    assert np.allclose(q[tested], stats.false_discovery_control(p[tested]))
    assert len(benjamini_hochberg(np.zeros(0))) == 0


def smallest_p(seed: int, direction: str, per_group: int) -> float:
    """The best p_max of a search over noise; with groups, noise that the items of a group share."""
    rng = np.random.default_rng([seed, 77])
    n, n_features = 60, 50
    groups = np.arange(n) // per_group
    labels = rng.permutation(np.arange(groups.max() + 1) % 4)[groups]
    share = rng.choice([0.05, 0.3, 1.0], n_features)
    x = rng.gamma(2, 2, (groups.max() + 1, n_features))[groups] + 0.3 * rng.random((n, n_features))
    dense = np.where((rng.random((groups.max() + 1, n_features)) < share)[groups], x, 0).astype(np.float32)
    here = Design.build(labels, np.zeros(n, bool), groups=groups)
    columns = columns_of(dense)
    best = best_of(*extreme_correlations(columns, permute(here, 199, rng), here), direction)
    y = labels - labels.mean()
    r = (dense - dense.mean(0)).T.astype(float) @ y / (np.linalg.norm(dense - dense.mean(0), axis=0) + 1e-12)
    r /= np.linalg.norm(y)
    observed = {"up": r.max(), "down": -r.min(), "both": np.abs(r).max()}[direction]
    return float(p_of_max(np.array([observed]), best)[0])


@pytest.mark.parametrize(("direction", "per_group"), [("up", 1), ("both", 1), ("up", 3)])
def test_shuffled_labels_seldom_look_good(direction, per_group):
    """About 10 of 200 searches over noise reach p_max ≤ 0.05: 4 to 18 is the middle 98% of a binomial."""
    hits = sum(smallest_p(seed, direction, per_group) <= 0.05 for seed in range(200))
    assert 4 <= hits <= 18


def test_permuting_items_where_groups_are_alike_would_find_too_much():
    """The reason for permuting whole groups: items of a group that score alike, permuted one by one, look too good."""
    hits = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        groups = np.arange(60) // 6
        labels = rng.permutation(np.arange(10) % 4)[groups]
        dense = rng.gamma(2, 2, (10, 30))[groups].astype(np.float32)
        alone = Design.build(labels, np.zeros(60, bool))
        best = best_of(*extreme_correlations(columns_of(dense), permute(alone, 99, rng), alone), "up")
        r = max(stats.pearsonr(dense[:, f], labels)[0] for f in range(30))
        hits += p_of_max(np.array([r]), best)[0] <= 0.05
    assert hits > 20
