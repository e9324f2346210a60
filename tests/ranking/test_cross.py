"""Several concepts: the matrix against a slow loop, a specific and a general feature, Holm, files and errors."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from scipy import stats

import conceptatlas as ca
from conceptatlas.base.errors import InputError
from conceptatlas.concepts import holdout_of
from conceptatlas.ranking import Ranking
from conceptatlas.ranking.cross import specificity
from conceptatlas.recording import Recording
from conceptatlas.statistics import Interval, auroc_interval
from tests.helpers.cli import invoke
from tests.helpers.recordings import write_synthetic_recording
from tests.ranking.test_rank import pooled

QUICK = {"permutations": 99, "resplits": 0, "families": False, "baselines": False}
NAMES = ("courage", "care", "anger")


def made(root, n=200):
    """Feature k follows concept k alone; feature 3 rises with courage and care; feature 4 falls with anger."""
    out = []
    for c, name in enumerate(NAMES):
        rng = np.random.default_rng(c)
        labels = rng.permutation(np.arange(n) % 4)
        rows = rng.integers(1, 4, n)
        drive = np.zeros((n, 8))
        drive[:, c] = 1.5 * labels
        drive[:, 3] = 2.5 * labels * (c < 2)
        drive[:, 4] = 6 - 2 * labels * (c == 2)
        of_row = np.repeat(np.arange(n), rows)
        x = np.maximum(drive[of_row] + rng.normal(0, 1, (len(of_row), 8)), 0).astype(np.float32)
        rec = write_synthetic_recording(root / f"rec-{name}", {"s": x}, labels.tolist(), rows.tolist(), name=name)
        ca.rank(rec, root / f"rank-{name}", direction="both", pool="max" if c == 2 else "final", **QUICK)
        out.append(root / f"rank-{name}")
    return out


@pytest.fixture(scope="module")
def rankings(tmp_path_factory):
    return made(tmp_path_factory.mktemp("cross"))


def slow(above, below):
    return np.mean([(a > b) + 0.5 * (a == b) for a in above for b in below])


def test_every_cell_is_the_auroc_on_the_other_concept_s_hold_out(rankings):
    found = ca.compare_concepts(rankings, top=3)
    assert len(found.features) == 9
    assert len(found.matrix) == 27
    by_name = {Ranking.open(path).facts["concept"]: Ranking.open(path) for path in rankings}
    for cell in found.matrix:
        own, on = by_name[cell["concept"]], by_name[cell["on"]]
        rec = Recording.open(on.facts["recording"])
        row = own.features.filter(feature_id=cell["feature_id"]).row(0, named=True)
        sign = -1 if row["direction"] == "down" else 1
        scores = sign * pooled(rec, "s", own.facts["pool"])[:, cell["feature_id"]].astype(float)
        held, labels = holdout_of(rec.items, share=0.3), rec.items["label"].to_numpy()
        above, below = scores[held & (labels == 3)], scores[held & (labels == 0)]
        assert (cell["n_high"], cell["n_low"]) == (len(above), len(below))
        assert cell["auroc"] == pytest.approx(slow(above, below))
        if cell["concept"] == cell["on"]:
            theirs = row["auroc_holdout"] if sign > 0 else 1 - row["auroc_holdout"]
            assert cell["auroc"] == pytest.approx(theirs)


def test_a_general_feature_is_not_specific_and_a_specific_one_is(rankings):
    found = ca.compare_concepts(rankings, top=3)
    rows = {(row["concept"], row["feature_id"]): row for row in found.features}
    general, alone, falling = rows["courage", 3], rows["courage", 0], rows["anger", 4]
    assert general["best_other"] == "care"
    assert general["specificity_low"] < 0 < general["specificity_high"]
    assert alone["specificity_low"] > 0.1
    assert falling["direction"] == "down"
    assert falling["auroc"] > 0.9
    table = found.table
    assert table.filter(concept="courage", feature_id=3)["auroc_on_care"].item() == general["auroc_other"]
    assert found.sentences()[0].startswith("courage: feature 3 of layer 0 has AUROC ")


def test_specificity_covers_and_takes_the_nearest_concept():
    own, near, far = Interval(0.9, 0.8, 0.95), Interval(0.7, 0.6, 0.8), Interval(0.5, 0.1, 0.9)
    name, found = specificity(own, {"far": far, "near": near})
    assert name == "near"
    assert found.auroc == pytest.approx(0.2)
    assert found.high == pytest.approx(0.2 + np.hypot(0.05, 0.1))
    assert found.low == pytest.approx(min(0.2 - np.hypot(0.1, 0.1), 0.4 - np.hypot(0.1, 0.4)))


def test_p_values_are_corrected_over_concepts(rankings):
    found = ca.compare_concepts(rankings)
    p = [entry["p_max"] for entry in found.concepts]
    assert p == [Ranking.open(path).features["p_max"].min() for path in rankings]
    assert [entry["p_holm"] for entry in found.concepts] == pytest.approx([3 * 0.01, 3 * 0.01, 3 * 0.01])
    assert stats.false_discovery_control(p).max() <= max(entry["p_holm"] for entry in found.concepts)


def test_intervals_go_by_group(tmp_path):
    """Ten items a group that score alike: the interval is that of the groups."""
    paths = []
    for c, name in enumerate(NAMES[:2]):
        rng = np.random.default_rng(c)
        group = np.arange(400) // 10
        labels = (group % 2 * 3).tolist()
        x = np.maximum(rng.normal(0, 2, (40, 3))[group] + np.array(labels)[:, None], 0)
        groups = [f"{name}{g}" for g in group]
        rec = write_synthetic_recording(tmp_path / name, {"s": x}, labels, [1] * 400, groups=groups, name=name)
        ca.rank(rec, tmp_path / f"rank-{name}", **QUICK)
        paths.append(tmp_path / f"rank-{name}")
    for cell in ca.compare_concepts(paths, top=1).matrix:
        rec = Recording.open(tmp_path / cell["on"])
        held, y = holdout_of(rec.items, share=0.3), rec.items["label"].to_numpy() == 3
        scores = pooled(rec, "s", "final")[:, cell["feature_id"]].astype(float)
        found = auroc_interval(scores[held], y[held], np.arange(400)[held] // 10)
        assert (cell["low"], cell["high"]) == pytest.approx(found[1:])
        assert cell["n_groups"] == held.sum() // 10
        alone = auroc_interval(scores[held], y[held])
        assert cell["high"] - cell["low"] > 1.3 * (alone.high - alone.low)


def test_files_and_command(rankings, tmp_path):
    outcome = invoke("compare-rankings", *rankings, "--top", 2, "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.stderr
    assert "courage: feature 3 of layer 0 has AUROC " in outcome.stdout
    written = json.loads((tmp_path / "out" / "cross_concepts.json").read_text())
    assert [entry["concept"] for entry in written["concepts"]] == list(NAMES)
    table = pl.read_csv(tmp_path / "out" / "cross_concepts.csv")
    assert table.height == 6
    assert {"auroc_on_courage", "auroc_on_care", "auroc_on_anger"} <= set(table.columns)
    assert (tmp_path / "out" / "cross_concepts.png").stat().st_size > 5000
    assert (tmp_path / "out" / "run.json").is_file()
    printed = json.loads(invoke("compare-rankings", *rankings[:2], "--matrix", "--json", "--top", 1).stdout)
    assert [row["concept"] for row in printed] == ["courage", "care"]
    two = json.loads(invoke("compare-rankings", *rankings[:2], "--json").stdout)
    assert "serves" in two[0]


def test_errors(rankings, tmp_path):
    assert invoke("compare-rankings", *rankings, "--shared").code == 2
    outcome = invoke("compare-rankings", rankings[0])
    assert outcome.code == 2
    assert "needs two rankings or more" in outcome.stderr
    moved = Ranking.open(rankings[0])
    moved.facts["recording"] = str(tmp_path / "gone")
    with pytest.raises(InputError, match=r"is not at .*gone; name the recordings with --rec"):
        ca.compare_concepts([moved, rankings[1]])
    recordings = [Ranking.open(path).facts["recording"] for path in rankings[:2]]
    assert len(ca.compare_concepts([moved, rankings[1]], recordings).concepts) == 2
    rec = Recording.open(recordings[0])
    all_items = ca.rank(rec, tmp_path / "all", holdout=0, **QUICK)
    with pytest.raises(InputError, match="held out no item of grade 0 or 3"):
        ca.compare_concepts([all_items, rankings[1]])
    with pytest.raises(InputError, match="was given twice"):
        ca.compare_concepts([rankings[0], rankings[0]])
    again = ca.rank(rec, tmp_path / "again", seed=1, **QUICK)
    same = ca.compare_concepts([rankings[0], again], top=1)
    assert [entry["concept"] for entry in same.concepts] == [f"courage ({rankings[0]})", f"courage ({again.path})"]
    assert same.features[0]["specificity"] == 0
