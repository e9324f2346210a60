"""Every weighted figure equals scikit-learn's or SciPy's on the resampled rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from conceptatlas.probes import metrics
from conceptatlas.probes.calibration import SigmoidMap, brier, reliability
from conceptatlas.statistics import auroc_interval

LABELS = [0, 1, 2, 3]


def one_hot_like(rng, n, n_classes):
    scores = rng.integers(0, 4, size=(n, n_classes)) / 4 + 0.01  # many ties
    return scores / scores.sum(axis=1, keepdims=True)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(6, 40), st.integers(2, 4))
def test_figures_of_classes_equal_the_oracle_s(seed, n, n_classes):
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.arange(n) % n_classes)
    scores = one_hot_like(rng, n, n_classes)
    said = rng.integers(0, n_classes, size=n)
    weights = rng.integers(0, 3, size=(4, n)).astype(float)
    weights[:, :n_classes] = 1
    truth[:n_classes] = np.arange(n_classes)  # every class occurs in every resample
    outcome = metrics.Outcome(truth.astype(float), said.astype(float), scores, np.arange(n_classes))
    for b, counts in enumerate(weights.astype(int)):
        t, s, p = np.repeat(truth, counts), np.repeat(said, counts), np.repeat(scores, counts, axis=0)
        auc = sk.roc_auc_score(t, p[:, 1]) if n_classes == 2 else sk.roc_auc_score(t, p, multi_class="ovr")
        expected = {
            metrics.accuracy: sk.accuracy_score(t, s),
            metrics.f1_macro: sk.f1_score(t, s, average="macro"),
            metrics.roc_auc: auc,
            metrics.mae: sk.mean_absolute_error(t, s),
        }
        for metric, value in expected.items():
            assert metric(outcome, weights)[b] == pytest.approx(value, abs=1e-12), metric.__name__
        labels = np.arange(n_classes)
        kappa = metrics.quadratic_kappa(outcome, weights)[b]
        if not np.isnan(kappa):
            assert kappa == pytest.approx(sk.cohen_kappa_score(t, s, weights="quadratic", labels=labels), abs=1e-9)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(5, 40))
def test_figures_of_values_equal_the_oracle_s(seed, n):
    rng = np.random.default_rng(seed)
    truth = np.maximum(rng.integers(-3, 4, size=n), 0) / 2.0
    said = rng.integers(-2, 5, size=n) / 2.0
    truth[:2], said[:2] = [0, 1.5], [0.5, 1.0]
    weights = rng.integers(0, 3, size=(4, n)).astype(float)
    weights[:, :2] = 1
    outcome = metrics.Outcome(truth, said)
    for b, counts in enumerate(weights.astype(int)):
        t, s = np.repeat(truth, counts), np.repeat(said, counts)
        expected = {
            metrics.mae: sk.mean_absolute_error(t, s),
            metrics.mse: sk.mean_squared_error(t, s),
            metrics.r2: sk.r2_score(t, s),
            metrics.spearman: stats.spearmanr(t, s).statistic,
            metrics.active_auroc: sk.roc_auc_score(t > 0, s),
        }
        for metric, value in expected.items():
            assert metric(outcome, weights)[b] == pytest.approx(value, abs=1e-9), metric.__name__


def test_a_figure_that_is_not_defined_is_none():
    constant = metrics.Outcome(np.ones(4), np.ones(4), np.ones((4, 2)), np.array([0, 1]))
    for metric in (metrics.roc_auc, metrics.r2, metrics.spearman, metrics.quadratic_kappa, metrics.active_auroc):
        assert metrics.point(metric, constant) is None
        assert metrics.interval(metric, constant, np.arange(4), resamples=10, rng=np.random.default_rng(0)) is None


def test_the_bootstrap_draws_whole_groups():
    # Ten groups of ten copies: the interval is that of ten items, not of a hundred.
    right = np.repeat([1, 1, 1, 1, 1, 1, 1, 0, 0, 0], 10)
    outcome = metrics.Outcome(np.ones(100), right.astype(float))
    rng = np.random.default_rng(0)
    low, high = metrics.interval(metrics.mae, outcome, np.repeat(np.arange(10), 10), resamples=4000, rng=rng)
    exact = stats.binom(10, 0.3)
    assert low == pytest.approx(exact.ppf(0.025) / 10, abs=0.101)
    assert high == pytest.approx(exact.ppf(0.975) / 10, abs=0.101)
    _, high_items = metrics.interval(metrics.mae, outcome, np.arange(100), resamples=4000, rng=rng)
    assert high_items < high - 0.1


def test_a_perfect_score_has_the_exact_lower_bound():
    outcome = metrics.Outcome(np.arange(20) % 2.0, np.arange(20) % 2.0)
    low, high = metrics.interval(metrics.accuracy, outcome, np.arange(20), resamples=50, rng=np.random.default_rng(0))
    assert high == 1
    assert low == pytest.approx(stats.beta.ppf(0.025, 20, 1))


def bounds(metric, outcome, groups):
    return metrics.interval(metric, outcome, groups, resamples=1, rng=np.random.default_rng(0))


@pytest.mark.parametrize("per_group", [1, 4])
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("metric", [metrics.accuracy, metrics.roc_auc, metrics.active_auroc])
def test_an_error_more_never_raises_the_lower_bound(metric, n_classes, per_group):
    """A bootstrap did: an AUROC of 0.9975 had the bound 0.985, and 1 had 0.83."""
    n, classes = 60, np.arange(n_classes)
    truth = (np.arange(n) // per_group % n_classes).astype(float)
    said, scores = truth.copy(), np.eye(n_classes)[truth.astype(int)] + np.linspace(0, 0.1, n)[:, None]
    lows = [bounds(metric, metrics.Outcome(truth, said, scores, classes), np.arange(n) // per_group)[0]]
    wrong = np.flatnonzero(truth == n_classes - 1)[::per_group]  # in a group of its own each time
    for item in wrong[:4]:
        said[item], scores[item] = 0, np.eye(n_classes)[0]
        found = metrics.Outcome(truth, said, scores, classes)
        lows.append(bounds(metric, found, np.arange(n) // per_group)[0])
    assert (np.diff(lows) < 0).all(), lows


def test_accuracy_has_clopper_and_pearsons_bounds():
    right = (np.arange(40) % 8 > 0).astype(float)
    outcome = metrics.Outcome(np.ones(40), right)
    expected = stats.binomtest(35, 40).proportion_ci(method="exact")
    assert bounds(metrics.accuracy, outcome, np.arange(40)) == pytest.approx((expected.low, expected.high), rel=1e-9)
    whole = metrics.Outcome(np.ones(80), np.repeat(np.array([1.0] * 7 + [0.0]), 10))
    expected = stats.binomtest(7, 8).proportion_ci(method="exact")
    assert bounds(metrics.accuracy, whole, np.repeat(np.arange(8), 10)) == pytest.approx((expected.low, expected.high))
    perfect = metrics.Outcome(np.ones(80), np.ones(80))
    assert bounds(metrics.accuracy, perfect, np.arange(80) // 10) == pytest.approx((0.025 ** (1 / 8), 1))
    none = metrics.Outcome(np.ones(9), np.zeros(9))
    assert bounds(metrics.accuracy, none, np.arange(9)) == pytest.approx((0, stats.beta.ppf(0.975, 1, 9)))


@pytest.mark.parametrize("per_group", [1, 4])
@pytest.mark.parametrize("truth", [0.5, 0.9])
def test_the_bounds_of_accuracy_cover(truth, per_group):
    rng, covered = np.random.default_rng(7), 0
    for _ in range(300):
        shared = rng.random(80 // per_group)[np.arange(80) // per_group]
        right = np.where(rng.random(80) < 0.6, shared, rng.random(80)) < truth
        low, high = bounds(metrics.accuracy, metrics.Outcome(np.ones(80), right * 1.0), np.arange(80) // per_group)
        covered += low <= truth <= high
    assert covered / 300 >= 0.93


def test_aurocs_have_the_score_interval():
    rng = np.random.default_rng(2)
    truth, groups = (np.arange(60) % 3).astype(float), np.arange(60) // 2
    scores = np.eye(3)[truth.astype(int)] + rng.normal(0, 1, (60, 3))
    each = [auroc_interval(scores[:, c], truth == c, groups) for c in range(3)]
    outcome = metrics.Outcome(truth, truth, scores, np.arange(3))
    assert bounds(metrics.roc_auc, outcome, groups) == pytest.approx(
        tuple(np.mean([found[1:] for found in each], axis=0))
    )
    two = metrics.Outcome((truth > 0) * 1.0, truth, np.column_stack([-scores[:, 1], scores[:, 1]]), np.arange(2))
    assert bounds(metrics.roc_auc, two, groups) == pytest.approx(
        tuple(auroc_interval(scores[:, 1], truth > 0, groups)[1:])
    )
    values = metrics.Outcome(truth, scores[:, 2])
    assert bounds(metrics.active_auroc, values, groups) == pytest.approx(
        tuple(auroc_interval(scores[:, 2], truth > 0, groups)[1:])
    )


def test_blocks_of_resamples_change_nothing(monkeypatch):
    rng = np.random.default_rng(1)
    outcome = metrics.Outcome(rng.normal(size=50), rng.normal(size=50))
    whole = metrics.interval(metrics.mse, outcome, np.arange(50), resamples=99, rng=np.random.default_rng(5))
    monkeypatch.setattr(metrics, "_BLOCK", 7 * 50)
    parts = metrics.interval(metrics.mse, outcome, np.arange(50), resamples=99, rng=np.random.default_rng(5))
    assert whole == pytest.approx(parts, abs=1e-12)


def test_brier_and_reliability_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.2, 0.8]])
    truth = np.array([0, 1, 1, 0])
    classes = np.array([0, 1])
    assert brier(probabilities, truth, classes) == pytest.approx((0.01 + 0.16 + 0.04 + 0.64) / 4)
    assert brier(probabilities, truth, classes) == pytest.approx(sk.brier_score_loss(truth, probabilities[:, 1]))
    bins = reliability(probabilities[:, 1], truth == 1)
    assert [(round(b.low, 6), b.n, b.observed) for b in bins] == [(0.0, 1, 0.0), (0.5, 1, 1.0), (0.7, 2, 0.5)]
    assert bins[2].mean_probability == pytest.approx(0.8)
    three = np.array([[1.0, 0, 0], [0, 0.5, 0.5]])
    assert brier(three, np.array([0, 9]), np.arange(3)) == pytest.approx((0 + 0.5 + 1) / 2)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_sigmoid_map_finds_the_probabilities(n_classes):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, n_classes, size=20000)
    if n_classes == 2:
        scores = rng.normal(size=20000)[:, None] + truth[:, None]
        posterior = 1 / (1 + np.exp(-(scores[:, 0] - 0.5)))  # two unit normals one apart
    else:
        scores = rng.normal(size=(20000, 3)) + 2 * np.eye(3)[truth]
        posterior = np.exp(2 * scores[:, 1]) / np.exp(2 * scores).sum(axis=1)
    found = SigmoidMap.fitted(scores, truth, np.arange(n_classes))
    again = SigmoidMap.from_json(found.as_json())
    np.testing.assert_allclose(again.apply(scores)[:, 1], posterior, atol=0.05)
    np.testing.assert_allclose(again.apply(scores).sum(axis=1), 1)
