"""Feature sets: members found where they are planted, nothing seen of the hold-out, the figures of a slow loop."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

import conceptatlas as ca
from conceptatlas.ranking.baselines import Contest
from conceptatlas.ranking.design import Design
from conceptatlas.ranking.efficiency import label_efficiency, sizes_for
from conceptatlas.ranking.every_baseline import all_baselines
from conceptatlas.ranking.options import RankOptions
from conceptatlas.ranking.search import Source
from conceptatlas.ranking.sets import _l1_fit, feature_sets, greedy, l1_path, set_table
from conceptatlas.ranking.strongest import strongest_features
from tests.helpers.recordings import write_synthetic_recording

PARTS = 4


def parted(path, n=400, seed=0, flip=None):
    """The concept is the sum of four features, each weak on its own, over two SAEs; a dense state has it whole."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, n)
    parts = rng.normal(0, 1, (n, PARTS)) + 0.45 * labels[:, None]
    columns = {}
    for number in range(2):
        x = np.maximum(rng.normal(0, 1, (n, 60)), 0)
        x[:, :2] = parts[:, 2 * number : 2 * number + 2]
        columns[f"sae_{number}"] = x
    hidden = np.column_stack([parts, rng.normal(0, 1, (n, 6))])
    held = rng.random(n) < 0.3
    if flip:
        labels = np.where(held, 3 - labels, labels)
    return write_synthetic_recording(
        path,
        columns,
        labels.tolist(),
        [1] * n,
        splits=["holdout" if h else "discovery" for h in held],
        hidden={f"blocks.{i}.hook_resid_post": hidden for i in range(2)},
    )


def found_sets(rec):
    source, options = Source(rec, "final"), RankOptions()
    contest = Contest(Design.of_items(rec.items, share=0.3), 0)
    baselines = all_baselines(source, contest, options)
    return source, contest, baselines, feature_sets(source, contest, baselines.strongest, baselines.entries)


def test_the_parts_are_found_and_beat_any_of_them(tmp_path):
    found = found_sets(parted(tmp_path / "rec"))[3]
    members = {(m["slug"], m["feature_id"]) for m in found["members"]}
    planted = {(f"sae_{s}", f) for s in (0, 1) for f in (0, 1)}
    assert len(members & planted) >= 3
    assert found["k"] == len(found["members"]) >= 3
    one = found["paths"]["greedy"][0]
    assert one["k"] == 1
    assert found["figures"]["auroc_holdout"] > one["auroc_holdout"] + 0.05
    assert found["figures"]["concordance_holdout"] > one["concordance_holdout"]
    assert all(m["weight"] > 0 for m in found["members"] if (m["slug"], m["feature_id"]) in planted)
    assert max(m["drop"] for m in found["members"]) > 0.005
    against = found["against"]
    assert against["low"] <= against["difference"] <= against["high"]
    assert against["difference"] == pytest.approx(found["figures"]["auroc_holdout"] - against["auroc_baseline"])
    assert set_table(found).height == found["k"]


def test_the_holdout_decides_nothing(tmp_path):
    _, _, _, found = found_sets(parted(tmp_path / "rec"))
    _, _, _, turned = found_sets(parted(tmp_path / "turned", flip=True))
    assert [m["feature_id"] for m in found["members"]] == [m["feature_id"] for m in turned["members"]]
    assert found["k"] == turned["k"]
    assert found["figures"]["auroc_holdout"] == pytest.approx(1 - turned["figures"]["auroc_holdout"])


def test_noise_is_no_better_than_chance_on_discovery(tmp_path):
    """Candidates chosen outside of the folds would give far more than one half here."""
    rng = np.random.default_rng(0)
    n = 200
    noise = rng.normal(0, 1, (n, 2000))
    rec = write_synthetic_recording(tmp_path / "rec", {"sae": noise}, rng.integers(0, 4, n).tolist(), [1] * n)
    source, contest = Source(rec, "final"), Contest(Design.of_items(rec.items, share=0.3), 0)
    strongest = [strongest_features(source, contest, [0], contest.fitted_sets())]
    found = feature_sets(source, contest, strongest, [])
    assert all(step["auroc_discovery"] < 0.7 for path in found["paths"].values() for step in path)
    assert found["against"] is None


def test_greedy_takes_the_largest_gain_in_log_likelihood_first():
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (300, 8))
    y = x @ np.array([2, 0, 0, 1.0, 0, 0, 0, -1.5]) + rng.logistic(0, 1, 300) > 0
    assert set(greedy(x, y, 3)[3]) == {0, 3, 6 + 1}
    assert greedy(x, y, 3)[1] == [0]
    assert greedy(np.zeros((10, 2)), np.arange(10) < 5, 3) == {}


def test_l1_is_scikit_learns():
    rng = np.random.default_rng(0)
    n = 200
    x = rng.normal(0, 1, (n, 10))
    y = x[:, 0] - x[:, 1] + rng.logistic(0, 1, n) > 0
    step = 4 * n / float(np.linalg.norm(np.column_stack([x, np.ones(n)]), 2) ** 2)
    w, b = np.zeros(10), 0.0
    for _ in range(20):
        w, b = _l1_fit(x, y, w, b, penalty=0.05, step=step)
    theirs = LogisticRegression(l1_ratio=1, C=1 / (n * 0.05), solver="saga", tol=1e-8, max_iter=20_000).fit(x, y)
    assert np.allclose(w, theirs.coef_[0], atol=2e-3)
    path = l1_path(x, y, 20)
    assert set(path[2]) == {0, 1}
    assert all(len(members) <= k for k, members in path.items())


def test_set_scores_are_those_of_a_plain_fit(tmp_path):
    source, contest, _, found = found_sets(parted(tmp_path / "rec"))
    slugs = [sae.slug for sae in source.recording.saes]
    refs = [(slugs.index(m["slug"]), m["feature_id"]) for m in found["members"]]
    x = source.gather(*np.array(refs).T).dense(contest.design.n_items).astype(float)
    x = (x - x[contest.train].mean(0)) / x[contest.train].std(0)
    fitted = LogisticRegression(C=1, tol=1e-9).fit(x[contest.train], contest.is_high[contest.train])
    auroc = roc_auc_score(contest.is_high[contest.test], fitted.decision_function(x[contest.test]))
    assert found["figures"]["auroc_holdout"] == pytest.approx(auroc)


def test_more_labels_are_better_and_five_draws_stand_behind_each_figure(tmp_path):
    rec = parted(tmp_path / "rec", n=600)
    source, contest, baselines, _ = found_sets(rec)
    curve = label_efficiency(source, contest, rec.items["text"].to_list(), baselines.entries)
    methods = {line["method"] for line in curve}
    assert methods == {
        "best feature", "set of 5", "difference of means", "difference of means, whitened", "logistic probe",
        "bag of words",
    }  # fmt: skip
    sizes = sizes_for(contest)
    assert sizes[:3] == [10, 20, 40]
    assert {line["n_per_grade"] for line in curve} == set(sizes)
    assert all(line["draws"] == 5 and line["low"] <= line["median"] <= line["high"] for line in curve)
    assert all(
        line["low"] < line["high"] for line in curve if line["n_per_grade"] == 10 and "words" not in line["method"]
    )
    by = {(line["method"], line["n_per_grade"]): line["median"] for line in curve}
    assert by["logistic probe", sizes[-1]] > by["logistic probe", 10]
    assert by["set of 5", sizes[-1]] > by["set of 5", 10]


def test_a_ranking_with_no_feature_has_no_set(tmp_path):
    rec = write_synthetic_recording(tmp_path / "rec", {"sae": np.zeros((40, 3))}, [0, 3] * 20, [1] * 40)
    source, contest = Source(rec, "final"), Contest(Design.of_items(rec.items, share=0.3), 0)
    strongest = [strongest_features(source, contest, [0], contest.fitted_sets())]
    assert feature_sets(source, contest, strongest, []) == {}
    assert set_table({}).height == 0
    assert ca.rank(rec, permutations=0, resplits=0).baselines


def test_how_active_features_are_is_counted_on_discovery_alone(tmp_path):
    """The control's threshold comes from it: the hold-out must have no say."""
    labels = np.tile([0, 3], 20)
    held = np.arange(40) >= 28
    x = np.zeros((40, 4), np.float32)
    x[~held, 0] = labels[~held] + 1  # active on the 28 discovery items
    x[held, 1:] = 1 + np.arange(12)[:, None]  # active on hold-out items only
    splits = ["holdout" if h else "discovery" for h in held]
    rec = write_synthetic_recording(tmp_path / "rec", {"s": x}, labels.tolist(), [1] * 40, splits=splits)
    contest = Contest(Design.of_items(rec.items, share=0.3), 0)
    assert (contest.design.holdout == held).all()
    found = strongest_features(Source(rec, "final"), contest, [0], contest.fitted_sets())
    assert found.shares == {0: (4, 28 / (4 * 28))}
