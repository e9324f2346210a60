"""Comparisons with baselines: paired on the hold-out, corrected, and silent where nothing can be told."""

from __future__ import annotations

import numpy as np
import pytest

from conceptatlas.ranking.baselines import Baseline, Contest
from conceptatlas.ranking.comparisons import BEATS, FALLS_SHORT, SAME, compare, relation
from conceptatlas.ranking.design import Design
from conceptatlas.statistics import holm, paired_difference


def contest(n: int, rng: np.random.Generator, groups: int = 1) -> Contest:
    units = rng.integers(0, 2, n // groups) * 3
    labels = np.repeat(units, groups)
    held = np.repeat(rng.random(n // groups) < 0.5, groups)
    return Contest(Design.build(labels, held, groups=np.arange(len(labels)) // groups), 0)


def noisy(here: Contest, rng: np.random.Generator, strength: float) -> np.ndarray:
    return strength * here.is_high + rng.normal(0, 1, here.design.n_items)


def test_figures_are_those_of_the_paired_difference():
    rng = np.random.default_rng(0)
    here = contest(400, rng, groups=2)
    best = noisy(here, rng, 2.5)
    rivals = [
        here.entry("bag_of_words", "bag of words", noisy(here, rng, 0.3), 0.6),
        here.entry("logistic", "logistic probe", noisy(here, rng, 2.5), 0.9, site="blocks.1.hook_resid_post"),
        here.entry("logistic", "logistic probe", noisy(here, rng, 4), 0.8, site="blocks.2.hook_resid_post"),
        here.entry("random_directions", "random directions", noisy(here, rng, 0.5), 0.97),
        Baseline.missing("difference_of_means", "difference of means", "blocks.1.hook_resid_post", "no rows"),
    ]
    found = compare(best, rivals, here)
    assert [c.baseline for c in found] == ["logistic", "bag_of_words", "random_directions"]
    assert found[0].site == "blocks.1.hook_resid_post"  # best on discovery, not on the hold-out
    assert [c.strongest for c in found] == [True, False, False]
    assert [c.control for c in found] == [False, False, True]
    y, groups = here.is_high[here.test], here.design.groups[here.test]
    expected = [
        paired_difference(best[here.test], r.scores[here.test], y, groups) for r in (rivals[1], rivals[0], rivals[3])
    ]
    assert [c.difference for c in found] == pytest.approx([e.difference for e in expected])
    assert [c.p_holm for c in found] == pytest.approx(holm([e.p_value for e in expected]).tolist())
    assert found[1].relation == found[2].relation == BEATS
    assert set(found[0].as_dict()) >= {"auroc_baseline", "p_holm", "relation", "strongest", "control"}


def test_an_equal_score_cannot_be_told_apart():
    rng = np.random.default_rng(0)
    here = contest(100, rng)
    best = noisy(here, rng, 1)
    found = compare(best, [here.entry("logistic", "logistic probe", best, 0.9)], here)
    assert found[0].relation == SAME
    assert found[0].difference == 0


def test_baselines_as_strong_as_the_strongest_are_tied():
    """Tied by the paired test on the hold-out: the equal one is, the weak one and the control are not."""
    rng = np.random.default_rng(3)
    here = contest(300, rng)
    strong = noisy(here, rng, 3)
    rivals = [
        here.entry("logistic", "logistic probe", strong, 0.95),
        here.entry("difference_of_means", "difference of means", strong + rng.normal(0, 0.1, 300), 0.94),
        here.entry("length", "sentence length", noisy(here, rng, 0), 0.55),
        here.entry("random_directions", "random directions", strong, 0.9),
    ]
    found = compare(noisy(here, rng, 1), rivals, here)
    assert {c.baseline: (c.strongest, c.tied) for c in found} == {
        "logistic": (True, False),
        "difference_of_means": (False, True),
        "length": (False, False),
        "random_directions": (False, False),
    }


def test_a_probe_that_is_the_feature_itself_is_compared_with_nothing():
    rng = np.random.default_rng(4)
    here = contest(200, rng)
    best = noisy(here, rng, 1)
    one = here.entry("k_sparse", "k-sparse probe, k = 1", best, 0.9, k=1, slug="s", feature_id=7)
    two = here.entry("k_sparse", "k-sparse probe, k = 2", noisy(here, rng, 1), 0.8, k=2)
    assert [c.k for c in compare(best, [one, two], here)] == [1]
    assert [c.k for c in compare(best, [one, two], here, best=("s", 7))] == [2]
    assert [c.k for c in compare(best, [one, two], here, best=("s", 8))] == [1]


def test_words():
    assert relation(0.2, 0.01) == BEATS
    assert relation(-0.2, 0.05) == FALLS_SHORT
    assert relation(-0.2, 0.06) == relation(0.2, float("nan")) == SAME


def test_no_grade_on_the_holdout_no_comparison():
    labels = np.array([0, 3, 0, 3, 0])
    here = Contest(Design.build(labels, np.array([False] * 4 + [True])), 0)
    assert compare(np.zeros(5), [here.entry("length", "sentence length", np.zeros(5), 0.5)], here) == []


def test_equal_truth_seldom_beats():
    """Three rivals as good as the feature: some rival is called beaten in 6% of the runs at most (2.5% nominal)."""
    rng = np.random.default_rng(1)
    beats, runs = 0, 50
    for _ in range(runs):
        here = contest(120, rng)
        rivals = [
            Baseline(kind, kind, "", None, None, 0.7, None, None, None, scores=noisy(here, rng, 1))
            for kind in ("logistic", "bag_of_words", "k_sparse")
        ]
        beats += any(c.relation == BEATS for c in compare(noisy(here, rng, 1), rivals, here))
    assert beats / runs <= 0.06


def test_a_real_gap_is_found():
    rng = np.random.default_rng(2)
    here = contest(300, rng)
    found = compare(noisy(here, rng, 0.3), [here.entry("logistic", "logistic probe", noisy(here, rng, 3), 0.9)], here)
    assert found[0].relation == FALLS_SHORT
    assert found[0].high < 0
