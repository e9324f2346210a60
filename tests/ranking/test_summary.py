"""What a ranking says of itself: each rule of the summary on a planted ranking."""

from __future__ import annotations

import json

import numpy as np
import pytest

import conceptatlas as ca
from conceptatlas.ranking import Ranking
from conceptatlas.ranking.summary import rising, shuffles, summarise
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
    assert "of 200 shuffles of the grades over 12 items" in first.text
    assert "has only" in said(ranking, "caution")
    assert ranking.facts["counts"]["beyond_chance"] == 0


def test_a_planted_feature_is(tmp_path):
    ranking = ca.rank(planted(tmp_path / "rec", n=400), permutations=200, **QUICK)
    assert said(ranking, "chance").startswith(
        "3 of the 80 features searched follow the grades more closely than chance"
    )
    assert "in 0 of 200 shuffles" in said(ranking, "chance")
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
        "p_value": 0.01, "p_holm": 0.02, "strongest": True, "control": False,
    }  # fmt: skip
    control = entry | {
        "name": "random directions", "relation": "beats", "auroc_baseline": 0.55, "difference": 0.35, "low": 0.2,
        "high": 0.5, "p_holm": 0.001, "strongest": False, "control": True,
    }  # fmt: skip
    ranking.comparisons = [entry, control, entry | {"name": "bag of words", "strongest": False}]
    assert said(ranking, "baselines") == (
        "It falls short of the strongest baseline, logistic probe at blocks.1.hook_resid_post (AUROC 0.950 on the same "
        "items; difference -0.050, 95% interval -0.09 to -0.01, p = 0.02 after Holm over 3 baselines), and beats the "
        "control, random directions at blocks.1.hook_resid_post (AUROC 0.550 on the same items; difference +0.350, 95% "
        "interval +0.20 to +0.50, p = 0.001 after Holm over 3 baselines)."
    )
    ranking.baselines = [{"comparable": False, "why_not": "hidden states were kept at final rows only"}]
    assert "Some baselines are compared with nothing: hidden states were kept at final rows only." in said(
        ranking, "caution"
    )


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
