"""Baselines: fitted on discovery alone, right where the answer is planted, equal to scikit-learn where it does the same."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

import conceptatlas as ca
from conceptatlas.ranking import dense
from conceptatlas.ranking import random_directions as random_directions_module
from conceptatlas.ranking.baselines import Contest, rounded
from conceptatlas.ranking.dense import _ledoit_wolf, whitened_difference
from conceptatlas.ranking.design import Design
from conceptatlas.ranking.hidden import Pooled
from conceptatlas.ranking.options import RankOptions
from conceptatlas.ranking.random_directions import (
    best_random_direction,
    draw_directions,
    random_directions,
    threshold_for,
)
from conceptatlas.ranking.strongest import mean_differences
from conceptatlas.ranking.text_baselines import bag_of_words, sentence_length
from conceptatlas.statistics import auroc
from conceptatlas.statistics.folds import group_folds
from conceptatlas.statistics.logistic import fit_logistic
from tests.helpers.recordings import write_synthetic_recording
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


def difference_of_means(contest, hidden, site, **options):
    return dense.difference_of_means(contest, Pooled(hidden.astype(np.float64)), site, "final", **options)


def logistic_probe(contest, hidden, site):
    return dense.logistic_probe(contest, Pooled(hidden.astype(np.float64)), site, "final")


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
        lambda c: difference_of_means(c, hidden, "s", whitened=True),
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


def test_ledoit_wolf_is_scikit_learns():
    from sklearn.covariance import ledoit_wolf

    rng = np.random.default_rng(0)
    for shape in ((40, 7), (12, 30)):
        x = rng.normal(0, 1, shape) @ np.diag(np.linspace(0.2, 3, shape[1]))
        x -= x.mean(axis=0)
        assert _ledoit_wolf(x)[0] == pytest.approx(ledoit_wolf(x, assume_centered=True)[1])


def test_the_whitened_direction_is_the_plain_formula():
    from sklearn.covariance import ledoit_wolf

    rng = np.random.default_rng(0)
    for n, d in ((60, 5), (20, 45)):
        x, y = rng.normal(0, 1, (n, d)) * np.linspace(1, 9, d), rng.random(n) < 0.5
        x[:, 0] = 3  # constant: is not read
        centred = x - np.where(y[:, None], x[y].mean(0), x[~y].mean(0))
        scale = centred.std(axis=0)
        scale[0] = np.inf
        sigma = ledoit_wolf(centred / scale, assume_centered=True)[0]
        sigma[0, 0] = max(sigma[0, 0], 1.0)
        expected = np.linalg.solve(sigma, (x[y].mean(0) - x[~y].mean(0)) / scale) / scale
        got = whitened_difference(x, y)
        assert np.allclose(got / np.linalg.norm(got), expected / np.linalg.norm(expected), atol=1e-8)


def test_whitening_undoes_a_massive_activation():
    here = contest(n=400)
    rng = np.random.default_rng(0)
    hidden = rng.normal(0, 1, (400, 20))
    hidden[:, 0] += here.design.labels / 2
    hidden[:, 1] = rng.normal(0, 500, 400)
    plain, whitened = difference_of_means(here, hidden, "s"), difference_of_means(here, hidden, "s", whitened=True)
    assert plain.auroc_holdout < 0.65
    assert whitened.auroc_holdout > 0.8


def test_rounding_keeps_ties_that_the_last_bit_breaks():
    assert len(np.unique(rounded(np.array([0.1 + 0.2, 0.3, -0.3])))) == 2
    assert not rounded(np.zeros(3)).any()


def test_random_directions_are_active_as_often_as_the_features():
    rng = np.random.default_rng(0)
    x = rng.normal(0, 3, (300, 16)).astype(np.float32)
    threshold = threshold_for(0.1, x, np.random.default_rng(1))
    w = np.random.default_rng(2).normal(0, 1, (3000, 16))
    w /= np.linalg.norm(w, axis=1, keepdims=True)
    assert (w @ x.T > threshold).mean() == pytest.approx(0.1, rel=0.15)


def test_random_directions_are_the_median_of_five_draws():
    here = contest(n=300)
    rng = np.random.default_rng(0)
    hidden = rng.normal(0, 1, (300, 12))
    hidden[:, 0] += here.design.labels
    found = random_directions(
        here, Pooled(hidden), "s", [(500, 0.3), (700, 0.1)], RankOptions(), pool="final", seed=(0, 2)
    )
    assert found.baseline == "random_directions"
    assert found.draws == 5
    assert found.draws_min <= found.auroc_holdout <= found.draws_max
    assert "best of 1,200 random directions" in found.detail
    singles = [
        random_directions(
            here, Pooled(hidden), "s", [(500, 0.3), (700, 0.1)], RankOptions(), pool="final", seed=(0, 2), draws=n
        )
        for n in (1, 2, 3, 4, 5)
    ]
    assert found == singles[-1]
    each = [
        best_random_direction(
            here, Pooled(hidden), [(500, 0.3), (700, 0.1)], RankOptions(), np.random.default_rng([0, 2, draw])
        )[0]
        for draw in range(5)
    ]
    aurocs = [auroc(scores[here.test], here.is_high[here.test]) for scores in each]
    assert len(set(aurocs)) == 5
    assert found.auroc_holdout == pytest.approx(np.median(aurocs), abs=1e-9)
    assert (found.draws_min, found.draws_max) == pytest.approx((min(aurocs), max(aurocs)), abs=1e-9)
    assert (found.name, "frozen" in found.detail) == ("random directions", False)  # no published control's name
    assert found.auroc_holdout == pytest.approx(auroc(found.scores[here.test], here.is_high[here.test]))


def test_as_many_directions_are_searched_as_features(monkeypatch):
    drawn = []

    def draw(count, width, rng):
        drawn.append(count)
        return draw_directions(count, width, rng)

    monkeypatch.setattr(random_directions_module, "draw_directions", draw)
    monkeypatch.setattr(random_directions_module, "_PER_TILE", 300)
    here = contest(n=60)
    hidden = np.random.default_rng(0).normal(0, 1, (60, 5))
    rng = np.random.default_rng(0)
    best_random_direction(here, Pooled(hidden), [(500, 0.3), (700, 0.1)], RankOptions(), rng)
    assert drawn == [512, 300, 200, 512, 300, 300, 100]  # of each SAE: a sample for the threshold, then the tiles


def test_the_sentence_embedding_reads_the_token_embeddings(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 240)
    vectors = rng.normal(0, 1, (240, 6)) + np.where(np.arange(6) == 2, labels[:, None], 0)
    rec = write_synthetic_recording(
        tmp_path / "rec", {"s": np.maximum(rng.normal(0, 1, (240, 5)), 0)}, labels.tolist(), [1] * 240,
        hidden={"embed": rng.normal(0, 1, (240, 6))}, pooled={"mean": {"embed": vectors}},
    )  # fmt: skip
    (found,) = [b for b in ca.rank(rec, permutations=0, resplits=0).baselines if b["baseline"] == "sentence_embedding"]
    assert found["auroc_holdout"] > 0.9
    assert found["detail"].startswith("mean of the model's token embeddings")


def test_every_baseline_of_a_recording(tmp_path):
    rec = planted(tmp_path / "rec", n=240, n_saes=2, hidden=True)
    ranking = ca.rank(rec, tmp_path / "out", permutations=0, resplits=0)
    kinds = {(b["baseline"], b["site"]) for b in ranking.baselines}
    assert {(kind, "") for kind in ("bag_of_words", "word_ngrams", "char_ngrams", "length")} < kinds
    for number in (0, 1):
        site = f"blocks.{number}.hook_resid_post"
        assert {
            (k, site)
            for k in (
                "difference_of_means",
                "difference_of_means_whitened",
                "logistic",
                "random_directions",
                "k_sparse",
            )
        } < kinds
    sparse = {b["k"]: b for b in ranking.baselines if b["baseline"] == "k_sparse" and b["layer"] == 0}
    assert list(sparse) == [1, 2, 5, 10, 20]
    assert sparse[1]["auroc_holdout"] == pytest.approx(ranking.features["auroc_holdout"][0], abs=1e-9)
    first = ranking.features.row(0, named=True)
    assert (sparse[1]["slug"], sparse[1]["feature_id"]) == (first["slug"], first["feature_id"])
    assert all(sparse[k]["feature_id"] is None for k in (2, 5, 10, 20))
    against = {entry["k"] for entry in ranking.comparisons if entry["baseline"] == "k_sparse"}
    assert 1 not in against
    assert len(against) == 1
    noise = next(b for b in ranking.baselines if b["baseline"] == "k_sparse" and b["layer"] == 1)
    assert noise["auroc_discovery"] < 0.75


def test_no_hidden_states_is_said(tmp_path):
    rec = planted(tmp_path / "rec", n=60)
    ranking = ca.rank(rec, permutations=0, resplits=0)
    assert any("missing at blocks.0.hook_resid_post" in warning for warning in ranking.facts["warnings"])
    missing = [b for b in ranking.baselines if not b["comparable"]]
    assert {b["baseline"] for b in missing} == {
        "difference_of_means", "difference_of_means_whitened", "logistic", "random_directions",
    }  # fmt: skip
    assert all(b["auroc_holdout"] is None and "record again" in b["why_not"] for b in missing)


def pooled_recording(path, *, kept: str, n: int = 300, sinks: bool = False, sink_norm: float = 1.0):
    """Grades stand in the mean (and in the maximum) of an item's rows, and not in its final row."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 4, n)
    rows = rng.normal(0, 1, (n, 4, 8))
    rows[:, :3, 0] += 1.5 * labels[:, None]
    rows[::2, 0] *= sink_norm
    site, options = "blocks.0.hook_resid_post", {}
    if kept == "all":
        options = {"hidden": {site: rows.reshape(-1, 8)}, "hidden_rows": "all"}
    else:
        options = {"hidden": {site: rows[:, -1]}}
    if kept == "pooled":
        options["pooled"] = {"mean": {site: rows.mean(axis=1)}, "max": {site: rows.max(axis=1)}}
    features = np.maximum(rng.normal(0, 1, (n * 4, 30)), 0)
    return write_synthetic_recording(
        path, {"sae": features}, labels.tolist(), [4] * n, sinks=range(0, 4 * n, 8) if sinks else (), **options
    )


DENSE_KINDS = ("difference_of_means", "difference_of_means_whitened", "logistic", "random_directions")


@pytest.mark.parametrize("pool", ["mean", "max"])
@pytest.mark.parametrize("kept", ["all", "pooled"])
def test_baselines_are_pooled_as_the_features_are(tmp_path, pool, kept):
    rec = pooled_recording(tmp_path / "rec", kept=kept)
    final, alike = (ca.rank(rec, pool=how, permutations=0, resplits=0).baselines for how in ("final", pool))
    for kind in DENSE_KINDS:
        at_final = next(b for b in final if b["baseline"] == kind)
        pooled = next(b for b in alike if b["baseline"] == kind)
        assert at_final["pool"] == "final"
        assert pooled["pool"] == pool
        assert pooled["comparable"]
        assert at_final["auroc_holdout"] < 0.7 < 0.9 < pooled["auroc_holdout"]
    if pool == "max":
        detail = next(b for b in alike if b["baseline"] == "logistic")["detail"]
        assert ("direction's score" if kept == "all" else "each coordinate") in detail


def test_mean_pooled_baselines_are_the_same_from_rows_and_from_means(tmp_path):
    one, two = (
        {b["baseline"]: b for b in ca.rank(rec, pool="mean", permutations=0, resplits=0).baselines}
        for rec in (pooled_recording(tmp_path / kept, kept=kept) for kept in ("all", "pooled"))
    )
    for kind in DENSE_KINDS[:3]:
        assert one[kind]["auroc_holdout"] == pytest.approx(two[kind]["auroc_holdout"], abs=1e-3)


def test_where_the_rows_are_missing_nothing_is_compared(tmp_path):
    rec = pooled_recording(tmp_path / "rec", kept="final")
    ranking = ca.rank(rec, pool="mean", permutations=0, resplits=0)
    for kind in DENSE_KINDS:
        entry = next(b for b in ranking.baselines if b["baseline"] == kind)
        assert not entry["comparable"]
        assert entry["auroc_holdout"] is None
        assert "hidden states of final rows only" in entry["why_not"]


@pytest.mark.parametrize(("kept", "comparable"), [("pooled", False), ("all", True)])
def test_sinks_are_left_out_of_baselines_too(tmp_path, kept, comparable):
    rec = pooled_recording(tmp_path / "rec", kept=kept, sinks=True)
    ranking = ca.rank(rec, pool="mean", without_sinks=True, permutations=0, resplits=0)
    entries = [b for b in ranking.baselines if b["baseline"] in DENSE_KINDS]
    assert all(b["comparable"] is comparable for b in entries)
    assert comparable or "without attention sinks" in entries[0]["why_not"]


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_a_sink_that_is_left_out_moves_no_baseline(tmp_path, pool):
    plain, massive = (
        ca.rank(
            pooled_recording(tmp_path / f"{norm}", kept="all", sinks=True, sink_norm=norm),
            pool=pool, without_sinks=True, permutations=0, resplits=0,
        ).baselines
        for norm in (1.0, 1000.0)
    )  # fmt: skip
    assert [b["auroc_holdout"] for b in plain] == [b["auroc_holdout"] for b in massive]
    assert next(b for b in plain if b["baseline"] == "logistic")["auroc_holdout"] > 0.9


def test_figures_over_all_grades_stand_in_every_entry(tmp_path):
    rec = planted(tmp_path / "rec", n=240, n_saes=1, hidden=True)
    for entry in ca.rank(rec, permutations=0, resplits=0).baselines:
        assert entry["concordance_low"] <= entry["concordance_holdout"] <= entry["concordance_high"]
        assert [(step["high"], step["low"]) for step in entry["adjacent"]] == [(1, 0), (2, 1), (3, 2)]
        assert all(step["ci_low"] <= step["auroc"] <= step["ci_high"] for step in entry["adjacent"])
        assert "scores" not in entry
