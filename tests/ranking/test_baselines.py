"""Baselines: fitted on discovery alone, right where the answer is planted, equal to scikit-learn where it does the same."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

import conceptatlas as ca
from conceptatlas.ranking.baselines import Contest, bag_of_words, difference_of_means, logistic_probe, sentence_length
from conceptatlas.ranking.design import Design
from conceptatlas.ranking.sparse_probes import mean_differences, random_columns
from conceptatlas.statistics import auroc
from conceptatlas.statistics.folds import group_folds
from conceptatlas.statistics.logistic import fit_logistic
from tests.ranking.oracles import columns_of
from tests.ranking.synthetic import planted


def contest(n: int = 120, seed: int = 0, groups: np.ndarray | None = None, chars: np.ndarray | None = None) -> Contest:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, n)
    groups = np.arange(n) if groups is None else groups
    held = np.isin(groups, rng.choice(np.unique(groups), len(np.unique(groups)) // 3, replace=False))
    chars = rng.integers(5, 50, n) if chars is None else chars
    confounds = np.column_stack([chars, chars]).astype(float)
    return Contest(Design.build(labels, held, groups=groups, confounds=confounds), seed)


@pytest.mark.parametrize("shape", [(40, 3), (40, 40), (20, 60), (15, 0)])
@pytest.mark.parametrize("c", [0.01, 1.0, 100.0])
def test_logistic_regression_is_scikit_learns(shape, c):
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 1, shape), rng.random(shape[0]) < 0.4
    ours = fit_logistic(x, y, c=c)
    if shape[1]:
        theirs = LogisticRegression(C=c, tol=1e-10, max_iter=10_000).fit(x, y)
        assert np.allclose(ours.weights, theirs.coef_[0], atol=1e-4)
        assert ours.intercept == pytest.approx(theirs.intercept_[0], abs=1e-4)
    else:
        assert ours.scores(x) == pytest.approx(np.full(15, np.log(y.mean() / (1 - y.mean()))))


def test_logistic_regression_stands_separable_classes():
    x = np.array([[0.0], [1.0], [10.0], [11.0]])
    fitted = fit_logistic(x, np.array([False, False, True, True]), c=1e6)
    assert np.isfinite(fitted.weights).all()
    assert auroc(fitted.scores(x), np.array([False, False, True, True])) == 1


def test_auroc_is_scikit_learns_with_ties():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 4, 50), rng.random(50) < 0.5
    assert auroc(x, y) == pytest.approx(roc_auc_score(y, x))
    assert np.isnan(auroc(x, np.ones(50, bool)))


def test_folds_keep_groups_whole_and_spread_labels():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 3)
    labels = np.repeat(rng.integers(0, 2, 40), 3)
    fold = group_folds(labels, groups, rng)
    assert all(len(np.unique(fold[groups == g])) == 1 for g in range(40))
    counts = np.array([[(labels[fold == f] == k).sum() for k in (0, 1)] for f in range(5)])
    assert np.ptp(counts, axis=0).max() <= 3


def test_no_baseline_looks_at_the_holdout_labels():
    rng = np.random.default_rng(0)
    here = contest()
    hidden = rng.normal(0, 1, (120, 10))
    texts = [f"word{k}" for k in rng.integers(0, 9, 120)]
    other = np.where(here.design.holdout, 3 - here.design.labels, here.design.labels)
    turned = Contest(Design.build(other, here.design.holdout, confounds=here.design.confounds), 0)
    for make in (
        lambda c: difference_of_means(c, hidden, "s"),
        lambda c: logistic_probe(c, hidden, "s"),
        lambda c: bag_of_words(c, texts),
        sentence_length,
    ):
        a, b = make(here), make(turned)
        assert a.auroc_discovery == b.auroc_discovery
        assert a.auroc_holdout == pytest.approx(1 - b.auroc_holdout)


def test_planted_directions_are_found_and_noise_is_not():
    here = contest(n=400)
    rng = np.random.default_rng(1)
    hidden = rng.normal(0, 1, (400, 20))
    noise = difference_of_means(here, hidden, "blocks.7.hook_resid_post")
    assert noise.auroc_discovery == pytest.approx(0.5, abs=0.12)
    assert noise.layer == 7
    hidden[:, 3] += 2 * here.design.labels
    for make in (difference_of_means, logistic_probe):
        found = make(here, hidden, "s")
        assert found.auroc_discovery > 0.98
        assert found.low <= found.auroc_holdout <= found.high
    words = ["bad" if label == 3 else "good" for label in here.design.labels]
    assert bag_of_words(here, words).auroc_holdout == 1
    assert bag_of_words(here, ["…"] * 400).auroc_holdout == 0.5


def test_length_takes_the_better_direction():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 80)
    here = Contest(Design.build(labels, rng.random(80) < 0.3, confounds=np.column_stack([50 - labels, labels])), 0)
    assert sentence_length(here).auroc_holdout == 1


def test_wide_and_rotated_probes_agree():
    here = contest(n=60)
    rng = np.random.default_rng(0)
    hidden = rng.normal(0, 1, (60, 200))
    hidden[:, 0] += here.design.labels
    found = logistic_probe(here, hidden, "s")
    x = (hidden - hidden[here.train].mean(0)) / hidden[here.train].std(0)
    c = float(found.detail.removeprefix("C = "))
    fitted = LogisticRegression(C=c, tol=1e-8, max_iter=10_000).fit(x[here.train], here.is_high[here.train])
    expected = roc_auc_score(here.is_high[here.test], fitted.decision_function(x[here.test]))
    assert found.auroc_holdout == pytest.approx(expected)


def test_mean_differences_equal_the_dense_ones():
    here = contest()
    rng = np.random.default_rng(0)
    dense = np.where(rng.random((120, 6)) < 0.4, rng.normal(0, 1, (120, 6)), 0).astype(np.float32)
    dense[:, 5] = 3
    sets = [here.train, here.train[::2]]
    got = mean_differences(columns_of(dense), here, sets)
    for s, items in enumerate(sets):
        x, y = dense[items].astype(float), here.is_high[items]
        std = x.std(axis=0)
        expected = np.abs(x[y].mean(0) - x[~y].mean(0)) / np.where(std > 0, std, np.inf)
        assert np.allclose(got[:, s], expected, atol=1e-9)


def test_the_random_sae_has_the_l0_asked_for():
    rng = np.random.default_rng(0)
    hidden = rng.normal(0, 3, (200, 16)) + 5
    inside = np.arange(200) < 150
    columns = random_columns(hidden, inside, d_sae=3000, l0=60, rng=np.random.default_rng(1))
    assert columns.n_features == 3000
    assert inside[columns.items].sum() / 150 == pytest.approx(60, rel=0.15)
    assert (columns.values > 0).all()


def test_every_baseline_of_a_recording(tmp_path):
    rec = planted(tmp_path / "rec", n=240, n_saes=2, hidden=True)
    ranking = ca.rank(rec, tmp_path / "out", permutations=0, resplits=0)
    kinds = {(b["baseline"], b["site"]) for b in ranking.baselines}
    assert {("bag_of_words", ""), ("length", "")} < kinds
    for number in (0, 1):
        site = f"blocks.{number}.hook_resid_post"
        assert {(k, site) for k in ("difference_of_means", "logistic", "random_sae", "k_sparse")} < kinds
    sparse = {b["k"]: b for b in ranking.baselines if b["baseline"] == "k_sparse" and b["layer"] == 0}
    assert list(sparse) == [1, 2, 5, 10, 20]
    assert sparse[1]["auroc_holdout"] == pytest.approx(ranking.features["auroc_holdout"][0], abs=1e-9)
    noise = next(b for b in ranking.baselines if b["baseline"] == "k_sparse" and b["layer"] == 1)
    assert noise["auroc_discovery"] < 0.75


def test_no_hidden_states_is_said(tmp_path):
    rec = planted(tmp_path / "rec", n=60)
    ranking = ca.rank(rec, permutations=0, resplits=0)
    assert "No hidden states were kept at blocks.0.hook_resid_post" in ranking.facts["warnings"][0]
    assert {b["baseline"] for b in ranking.baselines} == {"bag_of_words", "length", "k_sparse"}
