"""Comparisons on the same items: nothing told apart that is not, everything that is."""

from __future__ import annotations

import numpy as np
import pytest

from conceptatlas.statistics import holm, paired_difference


def test_two_perfect_scores_cannot_be_told_apart():
    y = np.arange(40) >= 20
    found = paired_difference(np.arange(40.0), np.arange(40.0) ** 2, y)
    assert found.difference == 0
    assert found.p_value == 1
    assert found.low < 0 < found.high


def test_interval_and_p_value_agree_and_turn_round():
    rng = np.random.default_rng(0)
    grades = rng.integers(0, 4, 80)
    a, b = grades + rng.normal(0, 1, 80), rng.normal(0, 1, 80)
    found, turned = paired_difference(a, b, grades), paired_difference(b, a, grades)
    assert found.p_value == pytest.approx(turned.p_value)
    assert found.low == pytest.approx(-turned.high)
    edge = paired_difference(a, b, grades, confidence=1 - found.p_value)
    assert edge.low == pytest.approx(0, abs=1e-6)
    assert found.p_value < 0.01


@pytest.mark.parametrize("noise", [0.1, 0.5, 2.0])
def test_equal_truth_is_seldom_called_a_difference(noise):
    rng = np.random.default_rng(round(10 * noise))
    y = np.repeat([False, True], 20)
    hits = 0
    for _ in range(300):
        shared = rng.normal(0, 1, 40) + 1.5 * y
        hits += paired_difference(*(shared + noise * rng.normal(0, 1, 40) for _ in "ab"), y).p_value <= 0.05
    assert hits / 300 <= 0.085  # 0.06 and one standard error and a half of 300 runs


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, np.nan]).tolist()[:3] == pytest.approx([0.03, 0.06, 0.06])
    assert np.isnan(holm([np.nan])).all()


def test_copies_of_an_item_in_its_group_add_nothing():
    rng = np.random.default_rng(11)
    is_high = np.arange(60) % 2 == 0
    a, b = rng.normal(0, 1, (2, 60)) + is_high * np.array([[1.5], [0.6]])
    alone = paired_difference(a, b, is_high)
    copies, groups = (np.repeat(x, 6) for x in (is_high, np.arange(60)))
    grouped = paired_difference(np.repeat(a, 6), np.repeat(b, 6), copies, groups)
    counted = paired_difference(np.repeat(a, 6), np.repeat(b, 6), copies)
    assert grouped.p_value >= 0.9 * alone.p_value
    assert grouped.high - grouped.low >= 0.95 * (alone.high - alone.low)
    assert counted.p_value < 0.1 * alone.p_value  # as if there were six times the items


def test_scores_that_agree_are_compared_more_closely_than_scores_that_do_not():
    rng = np.random.default_rng(12)
    is_high = np.arange(200) % 2 == 0
    common = rng.normal(0, 1, 200)
    a, b = common + is_high * 1.0, common + is_high * 0.8 + rng.normal(0, 0.05, 200)
    alike = paired_difference(a, b, is_high)
    apart = paired_difference(a, rng.normal(0, 1, 200) + is_high * 0.8, is_high)
    assert alike.high - alike.low < 0.4 * (apart.high - apart.low)
