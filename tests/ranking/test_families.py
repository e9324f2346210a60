"""Families, stability, the choice of pooling, and the comparison of two rankings."""

from __future__ import annotations

import json

import numpy as np
import pytest

import conceptatlas as ca
from conceptatlas.base.errors import InputError
from conceptatlas.ranking.baselines import Contest
from conceptatlas.ranking.design import Design
from conceptatlas.ranking.families import group, within_grade_correlation
from conceptatlas.ranking.text_baselines import bag_of_words_scores
from tests.helpers.cli import invoke
from tests.helpers.recordings import write_synthetic_recording
from tests.ranking.synthetic import planted

QUICK = {"baselines": False, "permutations": 0}


def twins(path, **options):
    """Two SAEs: features 0 and 1 of the first follow the grade by themselves, and the second repeats feature 0."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 200)
    x = np.maximum(1.5 * labels[:, None] + rng.normal(0, 1, (200, 2)) + [0.5, 0], 0)
    noise = np.where(rng.random((200, 6)) < 0.2, rng.gamma(2, 2, (200, 6)), 0)
    first = np.hstack([x, noise])
    second = np.hstack([x[:, :1] + rng.normal(0, 0.1, (200, 1)).clip(0), noise[:, ::-1]])
    return write_synthetic_recording(path, {"early": first, "late": second}, labels.tolist(), [1] * 200, **options)


def test_likeness_is_judged_within_grades():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 400)
    a = labels + rng.normal(0, 0.3, 400)
    b = labels + rng.normal(0, 0.3, 400)
    scores = np.column_stack([a, b, a * 2 + 1, labels, labels * 3, np.zeros(400)])
    r = within_grade_correlation(scores, labels)
    assert np.corrcoef(a, b)[0, 1] > 0.9
    assert abs(r[0, 1]) < 0.2
    assert r[0, 2] == pytest.approx(1)
    assert r[3, 4] == 1
    assert r[0, 3] == r[3, 5] == 0


def test_each_joins_the_family_whose_best_it_is_most_like():
    r = np.array([[1, 0.1, 0.7, 0.2], [0.1, 1, 0.8, 0.1], [0.7, 0.8, 1, 0.9], [0.2, 0.1, 0.9, 1.0]])
    unknown = np.full((4, 4), np.nan)
    found = group(r, unknown)
    assert found.family.tolist() == [1, 2, 2, 3]  # the last is like a member, not like a best feature: no chains
    cosine = unknown.copy()
    cosine[3, 0] = cosine[0, 3] = 0.95
    assert group(r, cosine).family.tolist() == [1, 2, 2, 1]
    assert group(np.zeros((0, 0)), np.zeros((0, 0))).family.tolist() == []


def test_a_feature_and_its_repeat_in_another_layer_are_one_family(tmp_path):
    rec = twins(tmp_path / "rec")
    ranking = ca.rank(rec, tmp_path / "out", resplits=0, **QUICK)
    family = {(row["slug"], row["feature_id"]): row["family"] for row in ranking.features.iter_rows(named=True)}
    assert family["early", 0] == family["late", 0] != family["early", 1]
    first = next(f for f in ranking.families if f["family"] == family["early", 0])
    assert (first["first_layer"], first["last_layer"], first["size"]) == (0, 1, 2)
    assert json.loads((tmp_path / "out" / "families.json").read_text()) == ranking.families
    assert ranking.facts["counts"]["passed"] == 3
    assert ranking.top(50).height == len(ranking.families)
    assert ranking.top(50, families=False).height == ranking.features.height == 15
    assert "layers 0–1" in invoke("show", tmp_path / "out").stdout
    flat = json.loads(invoke("show", tmp_path / "out", "--top", 3, "--no-families", "--json").stdout)
    assert [(row["slug"], row["feature_id"]) for row in flat] == list(family)[:3]


def test_no_families_leaves_the_flat_list(tmp_path):
    ranking = ca.rank(twins(tmp_path / "rec"), families=False, resplits=0, **QUICK)
    assert ranking.families == []
    assert ranking.features["family"].null_count() == ranking.features.height == ranking.top(50).height


def test_strong_features_come_back_and_weak_ones_wander(tmp_path):
    rec = planted(tmp_path / "rec", n=200, strengths=(3.0, 0.35))
    ranking = ca.rank(rec, min_pearson=0.2, min_tpr=0.05, resplits=30, **QUICK)
    best = ranking.features.row(0, named=True)
    assert (best["comes_back"], best["rank_low"], best["rank_high"]) == (1.0, 1.0, 1.0)
    others = ranking.features.tail(-1)
    assert (others["comes_back"] < 1).any()
    assert (others["rank_low"] <= others["rank_high"]).all()


def test_auto_takes_the_pooling_that_finds_more_and_pays_for_the_others(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 200)
    x = np.where(rng.random((800, 10)) < 0.2, rng.gamma(2, 1, (800, 10)), 0)
    peak = np.arange(200) * 4 + 1  # the concept is said early, and the final row has forgotten it
    x[peak, 0] = 6 + 3 * labels + rng.normal(0, 1, 200)
    rec = write_synthetic_recording(tmp_path / "rec", {"s": x}, labels.tolist(), [4] * 200)
    options = {"resplits": 0, "baselines": False, "permutations": 100}
    auto = ca.rank(rec, tmp_path / "out", pool="auto", **options)
    assert auto.facts["pool"] == "max"
    assert auto.facts["pool_aurocs"]["max"] > 0.95 > auto.facts["pool_aurocs"]["final"] + 0.2
    assert auto.null["pools"] == ["final", "max", "mean"]
    alone = ca.rank(rec, pool="max", **options)
    assert auto.null["pearson_95"] > alone.null["pearson_95"]
    assert auto.features["pearson_corr"].to_list() == alone.features["pearson_corr"].to_list()


def test_auto_has_nothing_to_choose_from_final_rows_only(tmp_path):
    x = np.eye(6, 3, dtype=np.float32)
    rec = write_synthetic_recording(tmp_path / "rec", {"s": x}, [0, 3, 0, 3, 1, 2], [1] * 6, keep="final")
    ranking = ca.rank(rec, pool="auto", holdout=0, resplits=0, **QUICK)
    assert ranking.facts["pool"] == "final"
    assert any("nothing to choose from" in warning for warning in ranking.facts["warnings"])


def test_a_feature_that_counts_tokens_is_flagged(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 200)
    lengths = 2 + 3 * labels + rng.integers(0, 3, 200)
    x = np.zeros((lengths.sum(), 2))
    final = np.cumsum(lengths) - 1
    x[final, 0] = lengths + rng.normal(0, 0.5, 200)
    x[final, 1] = labels + rng.normal(0, 0.3, 200)
    rec = write_synthetic_recording(tmp_path / "rec", {"s": x}, labels.tolist(), lengths.tolist())
    ranking = ca.rank(rec, resplits=0, **QUICK)
    flags = dict(zip(ranking.features["feature_id"], ranking.features["confounded"], strict=True))
    assert flags == {0: True, 1: False}


def test_partial_correlation_is_that_of_the_residuals(tmp_path):
    rec = planted(tmp_path / "rec", n=150)
    ranking = ca.rank(rec, min_pearson=0.05, min_tpr=0.05, holdout=0, resplits=0, **QUICK)
    contest = Contest(Design.of_items(rec.items, share=0.0), 0)
    words = bag_of_words_scores(contest, rec.items["text"].to_list())
    words[np.isnan(words)] = words[~np.isnan(words)].mean()
    z = np.column_stack([np.ones(150), rec.items["text"].str.len_chars(), rec.items["n_rows"], words]).astype(float)
    residual = np.eye(150) - z @ np.linalg.pinv(z)
    y = residual @ rec.items["label"].to_numpy().astype(float)
    for row in ranking.features.iter_rows(named=True):
        rows, values = rec.columns(row["slug"]).feature(row["feature_id"])
        dense = np.zeros(rec.n_rows)
        dense[rows] = values
        x = residual @ dense[rec.final_rows]
        assert row["partial_corr"] == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y), abs=1e-9)


def test_compare_rankings_tells_what_serves_both(tmp_path):
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 4, 200), rng.integers(0, 4, 200)
    names = {}
    for name, labels in (("a", a), ("b", b)):
        x = np.where(rng.random((200, 8)) < 0.3, rng.gamma(2, 1, (200, 8)), 0)
        x[:, 0] = np.maximum(2 * labels + rng.normal(0, 1, 200), 0)
        x[:, 1 if name == "a" else 2] = np.maximum(labels + rng.normal(0, 0.5, 200), 0)
        names[name] = tmp_path / f"rank-{name}"
        rec = write_synthetic_recording(tmp_path / name, {"s": x}, labels.tolist(), [1] * 200)
        ca.rank(rec, names[name], resplits=0, **QUICK)
    table = ca.compare_rankings(names["a"], names["b"])
    assert table.select("serves", "feature_id").rows() == [("both", 0), ("a", 1), ("b", 2)]
    assert table["rank_b"][1] is None
    done = invoke("compare-rankings", names["a"], names["b"], "--json", "--shared")
    assert [row["feature_id"] for row in json.loads(done.stdout)] == [0]
    shown = invoke("compare-rankings", names["a"], names["b"]).stdout
    assert "1 features pass the filters of both" in shown


def test_rankings_of_other_saes_cannot_be_compared(tmp_path):
    x = np.eye(8, 3, dtype=np.float32)
    labels = [0, 3] * 4
    made = [
        ca.rank(write_synthetic_recording(tmp_path / s, {s: x}, labels, [1] * 8), holdout=0, resplits=0, **QUICK)
        for s in ("a", "b")
    ]
    with pytest.raises(InputError, match="no SAE in common"):
        ca.compare_rankings(*made)


def test_the_kept_column_decides_who_serves(tmp_path):
    rec = twins(tmp_path / "rec")
    ranking = ca.rank(rec, resplits=0, top_n=1, **QUICK)
    table = ca.compare_rankings(ranking, ranking)
    assert table.height == ranking.facts["counts"]["passed"] == 3
    assert table["rank_a"].to_list() == [1, 2, 3]
