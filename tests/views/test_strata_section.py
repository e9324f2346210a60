"""The report's section on strata: every figure of strata.json that it shows, and nothing where there is no column."""

from __future__ import annotations

import json

import polars as pl

import conceptatlas as ca
from conceptatlas.base.kinds import RANKING
from conceptatlas.views.html import figure, interval
from conceptatlas.views.sections.strata import strata
from conceptatlas.views.study_folder import Study
from tests.helpers.artefacts import seal
from tests.ranking.test_strata import QUICK, kinds


def study_of(tmp_path, **options):
    rec = kinds(tmp_path / "rec")
    ca.rank(rec, tmp_path / "rank", **QUICK, **options)
    return Study.open(tmp_path)


def test_the_section_shows_features_and_baselines_by_kind(tmp_path):
    study = study_of(tmp_path)
    section = strata(study)
    assert section.title == "By kind"
    rows = json.loads((tmp_path / "rank" / "strata.json").read_text())["rows"]
    best = [row for row in rows if row.get("feature_id") == 0] + [r for r in rows if r.get("name") == "bag of words"]
    assert len(best) == 6
    for row in best:
        assert f"<b>{figure(row['auroc'])}</b>" in section.body
        assert interval(row["low"], row["high"]) in section.body
        low, high = row["grades"]
        assert f"{row['n_high']} of grade {high} v {row['n_low']} of {low}" in section.body
    assert section.body.count("<details") == 1
    assert "other trait" in section.body
    assert "logistic probe" in section.body


def test_there_is_none_without_a_column_and_values_are_escaped(tmp_path):
    assert strata(study_of(tmp_path, strata=None)) is None
    path = tmp_path / "rank" / "strata.json"
    nasty = "<script>alert(1)</script>"
    row = {
        "slug": "s", "feature_id": 0, "site": "", "value": nasty, "comparison": "against", "grades": [0, 3],
        "auroc": 0.5, "low": None, "high": None, "n_high": 3, "n_low": 1, "n_groups": 4,
    }  # fmt: skip
    path.write_text(json.dumps({"column": nasty, "values": [nasty], "left_out": [nasty], "rows": [row]}))
    seal(RANKING, tmp_path / "rank")
    assert pl.read_csv(tmp_path / "rank" / "ranked_features.csv").height
    section = strata(Study.open(tmp_path))
    assert "<script>" not in section.body
    assert "&lt;script&gt;" in section.body
