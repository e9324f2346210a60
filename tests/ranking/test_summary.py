"""What a ranking says of itself: each rule of the summary on a planted ranking."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

import conceptatlas as ca
from conceptatlas.ranking import Ranking
from conceptatlas.ranking.baselines import Contest
from conceptatlas.ranking.design import Design
from conceptatlas.ranking.legends import legend
from conceptatlas.ranking.summary import rising, shuffles, summarise
from conceptatlas.ranking.truth import truth_of
from tests.helpers.recordings import write_synthetic_recording
from tests.ranking.synthetic import planted

QUICK = {"resplits": 0, "baselines": False, "families": False}


def said(ranking: Ranking, kind: str) -> str:
    return " ".join(sentence.text for sentence in summarise(ranking) if sentence.kind == kind)


def noise(path, n=20, **options):
    """The case of the audit: 20 sentences, random SAEs."""
    rng = np.random.default_rng(4)
    x = np.maximum(rng.normal(0, 1, (n, 400)), 0).astype(np.float32)
    return write_synthetic_recording(path, {"s": x}, (np.arange(n) % 4).tolist(), [1] * n, **options)


def test_noise_is_not_a_finding(tmp_path):
    ranking = ca.rank(noise(tmp_path / "rec"), permutations=200, **QUICK)
    assert ranking.facts["counts"]["passed"] > 5  # the classic filters pass noise
    assert ranking.features["p_max"].min() > 0.05
    first = summarise(ranking)[0]
    assert first.text.startswith("Nothing here exceeds chance: in ")
    assert "of 200 shuffles of the grades over 12 items, some feature of the 400 searched follows" in first.text
    best, limit = ranking.features["pearson_corr"].max(), ranking.null["pearson_95"]
    assert first.text.endswith(
        f"(the Pearson correlation of activation at the last token and grade on the 12 discovery items: {best:.2f}; "
        f"chance ends at {limit:.2f}, below which the best of all features stays in 95% of the shuffles)."
    )
    assert "best feature" not in " ".join(sentence.text for sentence in summarise(ranking)).lower()
    assert "holds" not in [sentence.kind for sentence in summarise(ranking)]
    assert "has only" in said(ranking, "caution")
    assert ranking.facts["counts"]["beyond_chance"] == 0


def test_of_noise_nothing_is_claimed(tmp_path):
    """No AUROC of the first feature, no baseline that it beats: it stands first by chance."""
    ranking = ca.rank(planted(tmp_path / "rec", strengths=(), hidden=True), permutations=100, resplits=0)
    assert ranking.features["p_max"].min() > 0.05
    assert ranking.comparisons
    assert ranking.sets
    assert [s.kind for s in ranking.summary() if s.kind != "caution"] == ["chance", "best"]
    assert "none of them is a finding" in said(ranking, "best")
    assert "AUROC" not in said(ranking, "chance") + said(ranking, "best")


def test_where_labels_allow_few_shuffles_it_says_so(tmp_path):
    """Two groups a grade have six arrangements, so that no feature, however good, reaches p ≤ .05."""
    labels = np.repeat([0, 0, 3, 3], 15)
    rec = write_synthetic_recording(
        tmp_path / "rec", {"s": labels[:, None] + 1.0}, labels.tolist(), [1] * 60,
        groups=[f"g{i // 15}" for i in range(60)],
    )  # fmt: skip
    ranking = ca.rank(rec, holdout=0, permutations=200, **QUICK)
    assert ranking.null["smallest_p"] == pytest.approx(1 / 6)
    assert "from chance" in said(ranking, "chance")
    assert "p cannot fall below 0.17" in said(ranking, "chance")
    assert "AUROC" not in " ".join(s.text for s in ranking.summary())


def test_a_planted_feature_is(tmp_path):
    ranking = ca.rank(planted(tmp_path / "rec", n=400), permutations=200, **QUICK)
    assert said(ranking, "chance").startswith(
        "3 of the 80 features searched follow the grades more closely than chance"
    )
    n, limit = ranking.facts["n_discovery"], ranking.null["pearson_95"]
    assert said(ranking, "chance").endswith(
        f"explains: the Pearson correlation of activation at the last token and grade on the {n} discovery items "
        f"exceeds {limit:.2f}, below which the best of all features stays in 95% of the shuffles of the grades over {n} "
        f"items. "
        f"The best one's {ranking.features['pearson_corr'].max():.2f} is reached in 0 of 200 shuffles."
    )
    ends = " of grade 3, ".join(str(ranking.facts["holdout_items"][grade]) for grade in "30")
    assert said(ranking, "holds") == (
        "Of these 3, 3 hold on the hold-out: the 95% interval of the AUROC of grade 3 against grade 0, on held-out items "
        f"({ends} of grade 0), lies beyond 0.5 in the same direction (of 3 that follow nothing, about 0.075 would)."
    )
    best = said(ranking, "best")
    items, row = ranking.facts["holdout_items"], ranking.features.row(0, named=True)
    assert f"tells grade 3 from grade 0 with AUROC {row['auroc_holdout']:.3f} (95% interval " in best
    assert f"({items['3']} of grade 3, {items['0']} of grade 0)" in best
    assert f"over all grades its concordance is {row['concordance_holdout']:.3f} (95% interval " in best
    assert "has only" not in said(ranking, "caution")


def test_grades_are_named_as_they_are_in_the_data(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.array([1, 2] * 60)
    x = np.maximum(rng.normal(0, 1, (120, 4)) + 2 * labels[:, None] * [1, 0, 0, 0], 0)
    rec = write_synthetic_recording(tmp_path / "rec", {"s": x}, labels.tolist(), [1] * 120)
    ranking = ca.rank(rec, permutations=50, **QUICK)
    assert "tells grade 2 from grade 1" in said(ranking, "best")
    assert "concordance" not in said(ranking, "best")  # of two grades it is the AUROC itself


def test_nothing_held_out_is_no_evidence(tmp_path):
    ranking = ca.rank(planted(tmp_path / "rec"), holdout=0, permutations=20, **QUICK)
    assert "nothing was held out, so that this is no evidence for new items" in said(ranking, "best")


def test_chance_that_was_not_judged_is_said(tmp_path):
    ranking = ca.rank(planted(tmp_path / "rec"), permutations=0, **QUICK)
    assert said(ranking, "chance").startswith("Chance was not judged")


def test_few_independent_groups_are_counted_by_grade(tmp_path):
    rec = planted(tmp_path / "rec", n=160, groups=True)
    ranking = ca.rank(rec, permutations=20, **QUICK)
    groups = ranking.facts["holdout_groups"]
    hashes, held = rec.items["split_hash"].to_numpy(), _holdout(rec)
    for grade in (0, 3):
        own = held & (rec.items["label"].to_numpy() == grade)
        assert groups[str(grade)] == len(np.unique(hashes[own]))


def _holdout(rec):
    from conceptatlas.concepts import holdout_mask

    return holdout_mask(rec.items["label"].to_numpy().astype(int), rec.items["split_hash"].to_numpy(), share=0.3)


def test_the_most_confounded_feature_is_called_confounded(tmp_path):
    """A feature that *is* the number of tokens leaves nothing beside it: its partial correlation is empty."""
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1, 2, 3], 30)
    lengths = labels * 2 + rng.integers(1, 3, 120)
    rows = int(lengths.sum())
    x = np.zeros((rows, 2), np.float32)
    ends = np.cumsum(lengths) - 1
    x[ends, 0] = lengths
    x[ends, 1] = labels + rng.normal(0, 0.2, 120) + 1
    rec = write_synthetic_recording(tmp_path / "rec", {"s": x}, labels.tolist(), lengths.tolist())
    ranking = ca.rank(rec, permutations=20, **QUICK)
    by_feature = {row["feature_id"]: row for row in ranking.features.iter_rows(named=True)}
    assert by_feature[0]["confounded"]
    assert by_feature[0]["partial_corr"] is None


def test_comparisons_name_the_strongest_baseline_and_the_control(tmp_path):
    ranking = ca.rank(planted(tmp_path / "rec"), permutations=20, **QUICK)
    entry = {
        "baseline": "logistic", "name": "logistic probe", "site": "blocks.1.hook_resid_post", "k": None,
        "relation": "falls short of", "auroc_baseline": 0.95, "difference": -0.05, "low": -0.09, "high": -0.01,
        "p_value": 0.01, "p_holm": 0.02, "strongest": True, "control": False, "tied": False,
    }  # fmt: skip
    control = entry | {
        "name": "random directions", "relation": "beats", "auroc_baseline": 0.55, "difference": 0.35, "low": 0.2,
        "high": 0.5, "p_holm": 0.001, "strongest": False, "control": True,
    }  # fmt: skip
    tied = [entry | {"name": f"rival {n}", "strongest": False, "tied": True} for n in range(6)]
    ranking.comparisons = [entry, control, *tied[:1], entry | {"name": "bag of words", "strongest": False}]
    first = ranking.features.row(0, named=True)
    draws = {
        "name": "random directions",
        "site": "blocks.1.hook_resid_post",
        "draws": 5,
        "draws_min": 0.51,
        "draws_max": 0.6,
    }
    same = {"name": "k-sparse probe, k = 1", "site": "", "slug": first["slug"], "feature_id": first["feature_id"]}
    ranking.baselines = [draws, same, same | {"name": "k-sparse probe, k = 2", "feature_id": None}]
    assert said(ranking, "baselines") == (
        "It falls short of the strongest baseline on discovery, logistic probe at blocks.1.hook_resid_post (AUROC 0.950 on "
        "the "
        "same items; difference -0.050, 95% interval -0.09 to -0.01, p = 0.02 after Holm over 4 baselines), and beats the "
        "control, random directions at blocks.1.hook_resid_post (median of 5 draws, 0.51 to 0.60; AUROC 0.550 on the "
        "same "
        "items; difference +0.350, 95% interval +0.20 to +0.50, p = 0.001 after Holm over 4 baselines). The strongest "
        "baseline "
        "cannot be told apart, by the same test, from: rival 0. Of each kind of baseline, the site and k that are best on "
        "discovery are compared. Left out, because it reads the best feature and nothing else: "
        "k-sparse probe, k = 1."
    )
    ranking.comparisons = [entry, *tied]
    assert "from: rival 0; rival 1; rival 2; rival 3; and 2 more." in said(ranking, "baselines")
    ranking.baselines = [
        {
            "name": "logistic probe",
            "site": "",
            "comparable": False,
            "why_not": "hidden states were kept at final rows only",
        }
    ]
    assert "Some baselines are compared with nothing: hidden states were kept at final rows only." in said(
        ranking, "caution"
    )


def test_what_holds_is_counted_in_the_direction_of_each_feature(tmp_path):
    """One rises on both sides, one falls on both, one follows the grade on discovery alone."""
    rng = np.random.default_rng(5)
    labels = np.arange(400) % 4
    rec = write_synthetic_recording(
        tmp_path / "probe", {"s": np.ones((400, 1), np.float32)}, labels.tolist(), [1] * 400
    )
    held = _holdout(rec)
    follows = labels + rng.normal(0, 0.5, 400)
    x = np.column_stack([follows + 5, 8 - follows, np.where(held, rng.permutation(follows), follows) + 5])
    x = np.hstack([x, rng.gamma(1, 1, (400, 20))]).astype(np.float32)
    rec = write_synthetic_recording(tmp_path / "rec", {"s": x}, labels.tolist(), [1] * 400)
    ranking = ca.rank(rec, permutations=100, direction="both", **QUICK)
    counts = ranking.facts["counts"]
    assert (counts["beyond_chance"], counts["held_of"], counts["holds"]) == (3, 3, 2)
    assert said(ranking, "holds").startswith("Of these 3, 2 hold on the hold-out: ")
    assert (2, "of those 3 hold on the") in [(count, words[:22]) for count, words in ranking.counted()]
    ranking.facts["counts"] = counts | {"beyond_chance": 5000}
    assert said(ranking, "holds").startswith("Of the 3 closest of these, 2 hold")
    assert "holds" not in ca.rank(rec, permutations=100, holdout=0, **QUICK).facts["counts"]


def test_the_truth_of_built_in_sentences_is_said_with_its_intervals(tmp_path):
    ranking = ca.rank(planted(tmp_path / "rec"), permutations=20, **QUICK)
    assert ranking.facts["truth"] == {}  # not of the built-in model
    assert said(ranking, "truth") == ""
    ranking.facts["truth"] = {
        "auroc_holdout": 0.99, "low": 0.9, "high": 1.0, "concordance_holdout": 0.942, "concordance_low": 0.9,
        "concordance_high": 0.97,
    }  # fmt: skip
    assert said(ranking, "truth") == (
        "The truth (the degree that each built-in sentence was made with, before the graders' errors were added) reaches "
        "AUROC "
        "0.990 (95% interval 0.90–1.00) and concordance 0.942 (95% interval 0.90–0.97) on the same held-out items: about "
        "the most that a method "
        "can be expected to reach."
    )


def test_the_truth_is_known_of_the_built_in_model_only():
    rng = np.random.default_rng(6)
    labels = np.repeat([0, 3], 40)
    contest = Contest(Design.build(labels, np.arange(80) % 2 == 0), 0)
    degrees = labels + rng.normal(0, 2, 80)

    def recording(subject, values):
        manifest = SimpleNamespace(subject=SimpleNamespace(id=subject))
        return SimpleNamespace(manifest=manifest, items=pl.DataFrame(values))

    column = {"degree": [str(value) for value in degrees]}
    found = truth_of(recording("organism", column), contest)
    assert found == contest.held_out(degrees)
    assert 0.5 < found["low"] < found["auroc_holdout"] < 1
    assert truth_of(recording("gpt2", column), contest) == {}
    assert truth_of(recording("organism", {"label": labels}), contest) == {}
    assert truth_of(recording("organism", {"degree": [None, *column["degree"][1:]]}), contest) == {}


@pytest.mark.parametrize(
    ("direction", "pearson"), [("up", "Pearson ≥ 0.3"), ("down", "Pearson ≤ -0.3"), ("both", "beyond ±0.3")]
)
def test_the_legend_gives_items_limits_and_formula(tmp_path, direction, pearson):
    rec = planted(tmp_path / "rec")
    ranking = ca.rank(rec, permutations=20, direction=direction, min_pearson=0.3, min_tpr=0.6, max_fpr=0.1, **QUICK)
    found = legend(ranking)
    assert set(found) == {"held-out", "C", "L0", "discovery", "Pearson", "score", "fails", "shuffles", "marks"}
    assert f"{pearson}, means monotonic from grade to grade, TPR ≥ 0.6, FPR ≤ 0.1" in found["fails"]
    assert found["score"].startswith("0.4 × Pearson + 0.3 × separation (mean of grade 3 − mean of grade 0")
    items = f"{ranking.facts['n_discovery']} discovery items"
    assert all(items in found[name] for name in ("discovery", "Pearson", "score", "fails", "shuffles"))
    assert ("signs and grades turned" in found["score"]) == (direction != "up")
    without = ca.rank(rec, permutations=0, holdout=0, **QUICK)
    assert set(legend(without)) == {"discovery", "L0", "Pearson", "score", "fails", "marks"}


def test_a_falling_feature_is_turned_round():
    row = {"direction": "down", "auroc": 0.1, "auroc_holdout": 0.2, "auroc_holdout_low": 0.1, "auroc_holdout_high": 0.4}
    turned = rising(row)
    assert turned["auroc"] == pytest.approx(0.9)
    assert [turned[f"auroc_holdout{part}"] for part in ("_low", "", "_high")] == pytest.approx([0.6, 0.8, 0.9])
    assert rising(row | {"direction": "up"})["auroc"] == 0.1
    empty = dict.fromkeys(row, None) | {"direction": "down"}
    assert rising(empty) == empty


@pytest.mark.parametrize(("exceedances", "count"), [(0, 1000), (17, 1000), (1000, 1000), (0, 20)])
def test_a_permutation_p_reads_as_what_was_counted(exceedances, count):
    assert shuffles((1 + exceedances) / (1 + count), count) == f"{exceedances:,} of {count:,} shuffles"


def test_the_same_words_after_saving(tmp_path):
    made = ca.rank(planted(tmp_path / "rec"), tmp_path / "out", permutations=20, **QUICK)
    assert Ranking.open(tmp_path / "out").summary() == made.summary()
    assert json.loads((tmp_path / "out" / "run.json").read_text())["counts"] == made.facts["counts"]
