"""Strata against a slow loop, a planted feature that fails against one kind only, and the column's errors."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import conceptatlas as ca
from conceptatlas.ranking import Ranking
from conceptatlas.ranking.design import Design
from conceptatlas.ranking.strata import MAX_VALUES, strata, worst_stratum
from conceptatlas.ranking.summary import summarise
from conceptatlas.statistics import auroc_interval
from tests.helpers.cli import invoke
from tests.helpers.recordings import write_synthetic_recording

QUICK = {"permutations": 20, "resplits": 0, "families": False}


def slow_auroc(above, below):
    return np.mean([(a > b) + 0.5 * (a == b) for a in above for b in below])


@settings(deadline=None, max_examples=40)
@given(st.integers(12, 60), st.integers(1, 5), st.integers(0, 1000))
def test_the_rows_equal_a_slow_loop(n, n_values, seed):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % 4)
    values = [None if rng.random() < 0.1 else f"v{v}" for v in rng.integers(0, n_values, n)]
    design = Design.build(labels, rng.random(n) < 0.4 if n > 20 else np.arange(n) % 2 == 0)
    scores = np.round(rng.normal(labels, 2), 1)
    found = strata("kind", values, design, [({"slug": "s", "feature_id": 3}, scores)])
    expected = {}
    held = np.flatnonzero(design.holdout)
    for value in sorted({values[i] for i in held if values[i] is not None}):
        own = [i for i in held if values[i] == value]
        above = [scores[i] for i in held if labels[i] == design.high]
        below = [scores[i] for i in own if labels[i] == design.low]
        if above and below:
            expected[value, "against"] = (slow_auroc(above, below), len(above), len(below), [design.low, design.high])
        grades = sorted({labels[i] for i in own})
        if len(grades) > 1:
            above = [scores[i] for i in own if labels[i] == grades[-1]]
            below = [scores[i] for i in own if labels[i] == grades[0]]
            expected[value, "within"] = (slow_auroc(above, below), len(above), len(below), [grades[0], grades[-1]])
    got = {(r["value"], r["comparison"]): (r["auroc"], r["n_high"], r["n_low"], r["grades"]) for r in found["rows"]}
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        assert got[key][0] == pytest.approx(value[0])
        assert got[key][1:] == value[1:]
    assert all(r["slug"] == "s" and r["n_groups"] == r["n_high"] + r["n_low"] for r in found["rows"])


def test_intervals_go_by_group():
    rng = np.random.default_rng(0)
    labels, groups = np.repeat(np.arange(40) % 2 * 3, 5), np.repeat(np.arange(40), 5)
    scores = labels + rng.normal(0, 3, 40)[groups]
    design = Design.build(labels, groups >= 4, groups=groups)
    (row,) = [r for r in strata("kind", ["a"] * 200, design, [({}, scores)])["rows"] if r["comparison"] == "against"]
    held = groups >= 4
    by_group = auroc_interval(scores[held], labels[held] == 3, groups[held])
    assert (row["auroc"], row["low"], row["high"]) == pytest.approx(tuple(by_group))
    assert row["n_groups"] == 36
    assert by_group.low < auroc_interval(scores[held], labels[held] == 3).low - 0.05


def test_only_the_commonest_values_are_compared():
    labels = np.arange(200) % 2 * 3
    values = ["common" if i < 120 else f"rare {i}" for i in range(200)]
    design = Design.build(labels, np.ones(200, bool) & (np.arange(200) > 3))
    found = strata("source", values, design, [({"baseline": "length", "site": ""}, np.arange(200.0))])
    assert len(found["left_out"]) == 81 - MAX_VALUES
    assert "common" in found["values"]


def kinds(path, n=400, **options):
    """Grade 0 is half neutral, half of another trait; the feature fires on that trait as on the concept."""
    rng = np.random.default_rng(3)
    labels = np.arange(n) % 4
    kind = np.where(labels > 0, "trait", np.where(np.arange(n) % 8 < 4, "neutral", "other trait"))
    drive = np.where(kind == "other trait", 3, labels) * 2.0
    x = np.maximum(np.column_stack([drive + rng.normal(0, 1, n), rng.normal(0, 1, (n, 3))]), 0).astype(np.float32)
    hidden = {"blocks.0.hook_resid_post": np.column_stack([labels + rng.normal(0, 0.1, n), rng.normal(0, 1, (n, 7))])}
    extra = pl.DataFrame({"kind": kind, "source": [f"s{i // 20}" for i in range(n)]})
    return write_synthetic_recording(path, {"s": x}, labels.tolist(), [1] * n, extra=extra, hidden=hidden, **options)


def test_a_feature_that_another_trait_drives_is_found_out(tmp_path):
    rec = kinds(tmp_path / "rec")
    ranking = ca.rank(rec, tmp_path / "rank", **QUICK)
    rows = {r["value"]: r for r in ranking.strata["rows"] if r.get("feature_id") == 0 and r["comparison"] == "against"}
    assert rows["neutral"]["auroc"] > 0.99
    assert rows["other trait"]["low"] < 0.5 < rows["other trait"]["high"]
    assert rows["other trait"]["n_low"] + rows["neutral"]["n_low"] == ranking.facts["holdout_items"]["0"]
    logistic = [r for r in ranking.strata["rows"] if r.get("baseline") == "logistic" and r["comparison"] == "against"]
    assert {r["value"] for r in logistic} == {"neutral", "other trait"}
    assert min(r["auroc"] for r in logistic) > 0.95
    within = [r for r in ranking.strata["rows"] if r.get("feature_id") == 0 and r["comparison"] == "within"]
    assert [(r["value"], r["grades"]) for r in within] == [("trait", [1, 3])]
    (said,) = [s.text for s in summarise(ranking) if s.kind == "strata"]
    row = worst_stratum(ranking.strata, slug="s", feature_id=0)
    assert row == rows["other trait"]
    assert (
        f"by kind, rank 1 does least well where that is “other trait”: AUROC {row['auroc']:.3f} (95% interval " in said
    )
    assert f"{row['n_high']} held-out items of grade 3 against {row['n_low']} such ones, the lowest of 2 values" in said
    strongest = {"strongest": True, "control": False, "name": "logistic probe", "site": "blocks.0.hook_resid_post"}
    ranking.comparisons = [strongest]
    from conceptatlas.ranking.summary import _strata, rising

    (sentence,) = _strata(ranking, rising(ranking.features.row(0, named=True)))
    assert "; logistic probe reaches " in sentence.text
    again = Ranking.open(tmp_path / "rank")
    assert again.strata == json.loads((tmp_path / "rank" / "strata.json").read_text()) == ranking.strata


def test_a_falling_feature_is_counted_in_its_own_direction(tmp_path):
    n = 200
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 4
    x = np.maximum(np.column_stack([6 - 2 * labels + rng.normal(0, 1, n), rng.normal(0, 1, n)]), 0)
    rec = write_synthetic_recording(
        tmp_path / "rec", {"s": x}, labels.tolist(), [1] * n, extra=pl.DataFrame({"kind": ["a"] * n})
    )
    ranking = ca.rank(rec, direction="down", baselines=False, **QUICK)
    row = worst_stratum(ranking.strata, slug="s", feature_id=0)
    assert row["auroc"] == pytest.approx(1 - ranking.features.row(0, named=True)["auroc_holdout"])


def test_the_default_column_may_be_absent_and_a_named_one_not(tmp_path):
    rec = write_synthetic_recording(
        tmp_path / "rec", {"s": np.arange(160.0).reshape(40, 4)}, [i % 4 for i in range(40)], [1] * 40,
        extra=pl.DataFrame({"source": [f"s{i // 8}" for i in range(40)]}),
    )  # fmt: skip
    assert ca.rank(rec, baselines=False, **QUICK).strata == {}
    assert ca.rank(rec, baselines=False, strata=None, **QUICK).strata == {}
    assert ca.rank(rec, baselines=False, strata="source", **QUICK).strata["column"] == "source"
    outcome = invoke("rank", rec.path, "--out", tmp_path / "out", "--strata", "sorce")
    assert outcome.code == 2
    assert "--strata names the column 'sorce', which the recorded data lack; their further columns are: source" in (
        outcome.stderr
    )


def test_whole_values_are_held_out_and_every_stage_agrees(tmp_path):
    rec = kinds(tmp_path / "rec", groups=[f"g{i // 2}" for i in range(400)])
    ranking = ca.rank(rec, tmp_path / "rank", holdout_by="source", baselines=False, **QUICK)
    from conceptatlas.concepts import holdout_of
    from conceptatlas.probes.splits import probe_test_mask
    from conceptatlas.views.study_folder import Study

    held = holdout_of(rec.items, share=0.3, by="source")
    source, hashes = rec.items["source"].to_numpy(), rec.items["split_hash"].to_numpy()
    assert not set(source[held]) & set(source[~held])
    assert not set(hashes[held]) & set(hashes[~held])
    assert ranking.facts["n_holdout"] == held.sum() == 120
    study = Study(tmp_path, {"rec": tmp_path / "rec", "rank": tmp_path / "rank"})
    np.testing.assert_array_equal(study.holdout, held)
    test = probe_test_mask(rec.items, share=0.2, by="source")
    assert not (test & ~held).any()
    said = " ".join(s.text for s in ranking.summary())
    assert "(whole values of source were held out)" in said
    by_group = ca.rank(rec, baselines=False, **QUICK)
    assert by_group.facts["split_hash"] != ranking.facts["split_hash"]


def test_resplits_keep_the_values_whole_too(tmp_path):
    from conceptatlas.ranking.stability import resplit

    rec = kinds(tmp_path / "rec")
    design = Design.of_items(rec.items, share=0.3, by="source")
    again = resplit(design, 0.3, np.random.default_rng(0))
    source = rec.items["source"].to_numpy()
    assert not set(source[again.holdout]) & set(source[~again.holdout])
    assert replace(design).units.max() + 1 == 20
