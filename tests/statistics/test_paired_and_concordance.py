"""Concordance against a loop over pairs; paired differences against DeLong's variance; Holm by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from conceptatlas.statistics import (
    Exchange,
    adjacent_aurocs,
    auroc,
    auroc_interval,
    concordance,
    holm,
    paired_difference,
    score_bounds,
)


def slow_concordance(scores, grades):
    pairs = [(i, j) for i, j in itertools.combinations(range(len(scores)), 2) if grades[i] != grades[j]]
    if not pairs:
        return np.nan
    right = 0.0
    for i, j in pairs:
        step = (scores[i] - scores[j]) * (int(grades[i]) - int(grades[j]))
        right += 1.0 if step > 0 else 0.5 if step == 0 else 0.0
    return right / len(pairs)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 14), st.integers(0, 10**6))
def test_concordance_is_that_of_a_loop_over_pairs(n, seed):
    rng = np.random.default_rng(seed)
    scores, grades = rng.integers(0, 4, n).astype(float), rng.integers(0, 4, n)
    found = concordance(scores, grades)
    assert found.estimate == pytest.approx(slow_concordance(scores, grades), nan_ok=True)
    if not np.isnan(found.estimate):
        assert found.low <= found.estimate <= found.high


def test_of_two_grades_it_is_the_auroc():
    rng = np.random.default_rng(0)
    grades = rng.integers(0, 2, 60) * 3
    scores = rng.normal(0, 1, 60) + grades / 3
    assert concordance(scores, grades).estimate == pytest.approx(auroc(scores, grades == 3))
    assert adjacent_aurocs(scores, grades)[3, 0] == auroc_interval(scores, grades == 3)


def test_one_inversion_never_has_the_higher_lower_bound():
    """The fault: logit-DeLong gave .993 to one inversion and .884 to none."""
    for m, n in ((5, 5), (20, 20), (8, 200)):
        is_high = np.arange(m + n) >= n
        lows = []
        for swaps in range(min(m, n)):
            scores = np.arange(m + n, dtype=float)
            scores[n : n + 1] -= swaps + 0.5 if swaps else 0
            lows.append(auroc_interval(scores, is_high).low)
        assert (np.diff(lows) < 0).all()


def test_score_bounds_solve_their_equation():
    theta, m, n, z = np.array([0.7, 0.93, 1.0]), 20.0, 35.0, stats.norm.ppf(0.975)
    for bound in score_bounds(theta, m, n):
        spread = 1 + ((m + n) / 2 - 1) * ((1 - bound) / (2 - bound) + bound / (1 + bound))
        half = z * np.sqrt(bound * (1 - bound) * spread / (m * n))
        inside = bound < 1 - 1e-9
        assert np.allclose(np.abs(theta - bound)[inside], half[inside], atol=1e-9)


def test_groups_of_copies_are_worth_one_item_each():
    rng = np.random.default_rng(2)
    scores, is_high = rng.normal(0, 1, 30), np.arange(30) % 2 == 0
    scores[is_high] += 1
    alone = auroc_interval(scores, is_high)
    copied = auroc_interval(np.repeat(scores, 5), np.repeat(is_high, 5), np.repeat(np.arange(30), 5))
    assert copied.estimate == pytest.approx(alone.estimate)
    assert copied.low <= alone.low + 1e-9
    assert copied.high >= alone.high - 1e-9


@pytest.mark.parametrize("grouped", [False, True])
def test_intervals_of_the_paired_difference_are_near_delongs(grouped):
    rng = np.random.default_rng(4)
    n = 600
    is_high, groups = np.arange(n) % 2 == 0, np.arange(n) // (3 if grouped else 1)
    common = rng.normal(0, 1, n)
    a = is_high * 1.2 + common + rng.normal(0, 0.7, n)
    b = is_high * 0.9 + common + rng.normal(0, 0.7, n)
    found = paired_difference(a, b, is_high, groups if grouped else None)
    high = [[(a_ > b_) for b_ in s[~is_high]] for s in (a, b) for a_ in s[is_high]]
    placed = np.array(high, dtype=float).reshape(2, is_high.sum(), -1)
    thetas = placed.mean(axis=(1, 2))
    v10, v01 = placed.mean(axis=2), placed.mean(axis=1)
    contrast = np.array([1, -1])
    variance = contrast @ (np.cov(v10) / is_high.sum() + np.cov(v01) / (~is_high).sum()) @ contrast
    assert found.difference == pytest.approx(thetas[0] - thetas[1])
    if not grouped:
        half = 1.96 * variance**0.5
        assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.15)
        assert found.p_value == pytest.approx(2 * stats.norm.sf(abs(found.difference) / variance**0.5), rel=0.6)


def test_two_perfect_scores_cannot_be_told_apart():
    is_high = np.arange(40) >= 20
    found = paired_difference(is_high * 1.0, is_high * 5.0 + np.arange(40), is_high)
    assert (found.difference, found.p_value) == (0.0, 1.0)
    assert found.low < 0 < found.high


def test_the_p_value_and_the_interval_agree():
    rng = np.random.default_rng(5)
    is_high = np.arange(80) >= 40
    for _ in range(30):
        a, b = rng.normal(0, 1, (2, 80)) + is_high * rng.uniform(0, 1.5, (2, 1))
        found = paired_difference(a, b, is_high)
        assert (found.p_value <= 0.05) == (found.low > 0 or found.high < 0)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, np.nan])[:3].tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]).tolist() == pytest.approx([1.0, 1.0])
    assert np.isnan(holm([np.nan]))[0]


def test_pairs_change_sides_within_pairs_only():
    labels, groups = np.array([0, 3, 1, 0, 0, 2]), np.array([0, 0, 1, 1, 2, 2])
    exchange = Exchange.of(labels, groups)
    assert exchange.unit == "pairs"
    assert exchange.n_units == 3
    drawn = exchange.draw(64, np.random.default_rng(0))
    for g in range(3):
        assert (np.sort(drawn[2 * g : 2 * g + 2], axis=0) == np.sort(labels[2 * g : 2 * g + 2])[:, None]).all()
    assert len(np.unique(drawn, axis=1).T) == 8 == round(np.exp(exchange.log_arrangements))


def test_groups_of_unequal_size_do_not_exchange():
    exchange = Exchange.of(np.array([0, 0, 0, 3]), np.array([0, 0, 0, 1]))
    assert exchange.unit == "groups"
    assert exchange.n_units == 0
    assert exchange.log_arrangements == pytest.approx(0)
