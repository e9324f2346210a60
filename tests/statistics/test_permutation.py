"""Exchange of labels: what may move, how many ways there are, and that only allowed moves are drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest

from conceptatlas.statistics import exchange

CASES = {
    "items": ([0, 0, 1, 1, 1], [0, 1, 2, 3, 4], "items", 5, 10),
    "constant groups": ([0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 2, 2], "groups", 3, 3),
    "pairs": ([0, 1, 1, 0, 0, 1], [0, 0, 1, 1, 2, 2], "pairs", 3, 8),
    "one mixed": ([0, 0, 1, 1, 0, 1], [0, 0, 1, 1, 2, 2], "groups and items within them", 3, 12),
    "unequal sizes": ([0, 0, 1, 1, 1, 0, 1], [0, 0, 1, 1, 1, 2, 3], "groups", 2, 2),
}


@pytest.mark.parametrize("name", CASES)
def test_units_and_arrangements(name):
    labels, groups, unit, n_units, count = CASES[name]
    labels, groups = np.array(labels), np.array(groups)
    found = exchange(labels, groups)
    assert (found.unit, found.n_units) == (unit, n_units)
    assert math.exp(found.log_arrangements) == pytest.approx(count)
    assert found.smallest_p == pytest.approx(1 / count)
    orders = found.orders(2000, np.random.default_rng(0))
    assert (np.sort(orders, axis=1) == np.arange(len(labels))).all()
    drawn, times = np.unique(labels[orders], axis=0, return_counts=True)
    assert len(drawn) == count
    assert times.min() > 2000 / count * 0.6  # every arrangement is as likely as every other


def test_groups_stay_whole():
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(12), rng.integers(1, 4, 12))
    orders = exchange(rng.integers(0, 2, len(groups)), groups).orders(50, rng)
    for order in orders:
        for g in np.unique(groups):
            assert len(np.unique(groups[order[groups == g]])) == 1
