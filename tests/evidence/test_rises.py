"""Intervals by group and places among like tokens, against SciPy and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from conceptatlas.evidence.rises import grouped_interval, like_tokens, percentile_among


@given(st.integers(2, 40), st.integers(0, 10**6))
def test_without_groups_it_is_the_usual_t_interval(n: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(3, 2, n)
    found = grouped_interval(values, np.arange(n))
    expected = stats.t.interval(0.95, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert found == pytest.approx(expected)


@given(st.lists(st.integers(0, 5), min_size=3, max_size=30), st.integers(0, 10**6))
def test_groups_are_counted_as_in_the_formula(groups: list[int], seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=len(groups))
    found = grouped_interval(values, np.array(groups))
    names = sorted(set(groups))
    if len(names) < 2:
        assert found is None
        return
    mean = sum(values) / len(values)
    meat = sum(sum(v - mean for v, g in zip(values, groups, strict=True) if g == name) ** 2 for name in names)
    error = (len(names) / (len(names) - 1) * meat) ** 0.5 / len(values)
    half = stats.t.ppf(0.975, len(names) - 1) * error
    assert found == pytest.approx((mean - half, mean + half), abs=1e-12)


def test_copies_of_an_item_add_no_certainty() -> None:
    values = np.random.default_rng(0).normal(1, 1, 12)
    once = grouped_interval(values, np.arange(12))
    assert grouped_interval(np.repeat(values, 5), np.repeat(np.arange(12), 5)) == pytest.approx(once)


def test_it_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(1000):
        groups = np.repeat(np.arange(12), 3)
        values = rng.normal(size=12)[groups] + 0.5 * rng.normal(size=36)
        low, high = grouped_interval(values, groups) or (np.nan, np.nan)
        hits += low <= 0 <= high
    assert hits == pytest.approx(950, abs=25)


@given(st.integers(8, 900), st.integers(0, 10**6))
def test_like_tokens_are_the_nearest_that_are_no_targets(size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    base = np.round(rng.normal(-8, 2, size), 1)  # ties
    excluded = rng.choice(size, size=min(5, size // 2), replace=False)
    found = like_tokens(base, -7.0, excluded)
    wanted = sorted((abs(base[v] + 7.0), v) for v in range(size) if v not in set(excluded.tolist()))
    assert found.tolist() == [v for _, v in wanted][: min(200, size // 4)]


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30), st.integers(-4, 4))
def test_the_percentile_is_scipys(others: list[int], value: int) -> None:
    expected = stats.percentileofscore(others, value, kind="mean")
    assert percentile_among(value, np.array(others)) == pytest.approx(expected)


def test_without_others_there_is_no_percentile() -> None:
    assert percentile_among(1.0, np.zeros(0)) is None
