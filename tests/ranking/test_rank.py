"""The whole ranking: its files, against a slow computation over the dense recording."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

import conceptatlas as ca
from conceptatlas.base.errors import InputError
from conceptatlas.concepts import holdout_mask
from conceptatlas.ranking import Ranking
from conceptatlas.ranking.tables import RANKED_COLUMNS
from conceptatlas.statistics import adjacent_aurocs, auroc, auroc_interval, concordance
from tests.helpers.artefacts import seal_table_of
from tests.helpers.cli import invoke
from tests.helpers.recordings import write_synthetic_recording
from tests.ranking.oracles import slow_figures
from tests.ranking.synthetic import planted

PROMISED = list(RANKED_COLUMNS)[:28]

LOOSE = {"min_pearson": 0.05, "min_tpr": 0.05, "resplits": 0, "baselines": False}


def pooled(rec, slug: str, how: str) -> np.ndarray:
    """Scores [N, F] of an SAE by a loop over items."""
    columns = rec.columns(slug)
    dense = np.zeros((rec.n_rows, columns.n_features), np.float32)
    for f in range(columns.n_features):
        rows, values = columns.feature(f)
        dense[rows, f] = values
    parts = [dense[rec.row_slice(i)].astype(np.float64) for i in range(rec.n_items)]
    of = {"final": lambda r: r[-1], "max": lambda r: r.max(axis=0), "mean": lambda r: r.mean(axis=0)}[how]
    return np.array([of(p) for p in parts]).astype(np.float32)


def slow_ranking(rec, how: str, share: float, options) -> list[dict]:
    labels, hashes = rec.items["label"].to_numpy().astype(int), rec.items["split_hash"].to_numpy()
    held = holdout_mask(labels, hashes, share=share)
    lines = []
    for sae in rec.saes:
        scores = pooled(rec, sae.slug, how)
        for f in range(scores.shape[1]):
            figures = slow_figures(scores[~held, f], labels[~held])
            if figures is None:
                continue
            x, y = scores[held, f].astype(np.float64), labels[held]
            out = slow_figures(x, y) if share else None
            figures |= {
                "slug": sae.slug,
                "feature_id": f,
                "pearson_holdout": out["pearson"] if out else None,
                "auroc_holdout": (out["auroc"] if out else 0.5) if share else None,
                "tpr_holdout": (x[y == 3] > figures["threshold"]).mean() if share else None,
                "fpr_holdout": (x[y == 0] > figures["threshold"]).mean() if share else None,
            }
            lines.append(figures)
    for line in lines:
        line["passes"] = (
            line["pearson"] >= options["min_pearson"]
            and line["monotonic"]
            and line["tpr"] >= options["min_tpr"]
            and line["fpr"] <= 0.2
        )
    assert 4 <= sum(line["passes"] for line in lines) < 50
    return sorted(lines, key=lambda line: (not line["passes"], -line["score"]))[:50]


NAMES = {
    "interpretability_score": "score", "pearson_corr": "pearson", "spearman_corr": "spearman",
    "separation_score": "separation", "tpr": "tpr", "fpr": "fpr", "mean_label_0": "mean_0", "mean_label_1": "mean_1",
    "mean_label_2": "mean_2", "mean_label_3": "mean_3", "n_active": "n_active", "auroc": "auroc",
    "pearson_holdout": "pearson_holdout", "auroc_holdout": "auroc_holdout", "tpr_holdout": "tpr_holdout",
    "fpr_holdout": "fpr_holdout", "threshold": "threshold",
}  # fmt: skip


@pytest.mark.parametrize("groups", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize("how", ["final", "max", "mean"])
def test_the_table_equals_a_slow_computation_over_the_dense_recording(tmp_path, how, share, groups):
    rec = planted(tmp_path / "rec", groups=groups)
    ranking = ca.rank(rec, tmp_path / "out", pool=how, holdout=share, permutations=20, **LOOSE)
    slow = slow_ranking(rec, how, share, LOOSE)
    table = pl.read_csv(tmp_path / "out" / "ranked_features.csv")
    assert table.columns[: len(PROMISED)] == PROMISED
    assert table.select("slug", "feature_id").rows() == [(line["slug"], line["feature_id"]) for line in slow]
    assert [fails is None for fails in table["fails"]] == [line["passes"] for line in slow]
    for ours, theirs in NAMES.items():
        for got, expected in zip(table[ours], slow, strict=True):
            if expected[theirs] is None:
                assert got is None, ours
            else:
                assert got == pytest.approx(expected[theirs], abs=1e-6), ours
    assert ranking.features["rank"].to_list() == list(range(1, len(slow) + 1))


def test_the_promised_columns_stand_first_and_in_order():
    assert ",".join(PROMISED) == (
        "rank,layer,average_l0,feature_id,neuronpedia_url,interpretability_score,pearson_corr,spearman_corr,"
        "separation_score,tpr,fpr,mean_label_0,mean_label_1,mean_label_2,mean_label_3,monotonic,"
        "sae_id,n_active,auroc,q_value,p_max,p_max_sae,pearson_holdout,auroc_holdout,auroc_holdout_low,"
        "auroc_holdout_high,tpr_holdout,fpr_holdout"
    )


def test_all_features_holds_whatever_fired_with_the_same_figures(tmp_path):
    rec = planted(tmp_path / "rec")
    ranking = ca.rank(rec, tmp_path / "out", permutations=20, **LOOSE)
    table = pl.read_parquet(tmp_path / "out" / "all_features.parquet")
    fired = [(s.slug, f) for s in rec.saes for f in np.flatnonzero(np.diff(rec.columns(s.slug).indptr))]
    assert table.select("slug", "feature_id").rows() == fired
    counts = ranking.facts["counts"]
    scored = sum(int(pooled(rec, s.slug, "final").any(axis=0).sum()) for s in rec.saes)
    assert (counts["searched"], counts["fired"], counts["fired_where_scored"]) == (80, len(fired), scored)
    assert table.filter(pl.col("kept")).height == counts["passed"] == ranking.features["fails"].null_count()
    assert counts["tested"] == table["q_value"].drop_nulls().len()
    density = [rec.columns(slug).feature(f)[0].size / rec.n_rows for slug, f in fired]
    assert table["density"].to_list() == pytest.approx(density)
    joined = ranking.features.join(table, on=["slug", "feature_id"], suffix="_all")
    assert joined.height == ranking.features.height
    for name in ("interpretability_score", "pearson_corr", "auroc", "p_max", "p_max_sae", "auroc_holdout", "q_value"):
        assert np.allclose(
            joined[name].to_numpy(), joined[f"{name}_all"].cast(pl.Float64).to_numpy(), atol=1e-6, equal_nan=True
        )
    constant = table.filter(pl.col("feature_id") == 38)
    assert constant["interpretability_score"].null_count() == constant.height == 2


def test_planted_features_come_back_in_the_right_order(tmp_path):
    rec = planted(tmp_path / "rec", n=400)
    ranking = ca.rank(rec, pool="final", min_tpr=0.1, permutations=200, resplits=0, baselines=False)
    assert ranking.features.select("slug", "feature_id").rows()[:3] == [("sae_0", 0), ("sae_0", 1), ("sae_0", 2)]
    best = ranking.features.row(0, named=True)
    assert best["p_max"] == pytest.approx(1 / 201)
    assert best["auroc_holdout_low"] < best["auroc_holdout"] <= best["auroc_holdout_high"]
    assert ranking.null["pearson_95"] < best["pearson_corr"]


def test_intervals_on_the_hold_out_are_those_by_group(tmp_path):
    """Features and baselines alike: AUROC, concordance over all grades, neighbouring grades."""
    rec = planted(tmp_path / "rec", n=240, n_saes=1, groups=True, hidden=True)
    ranking = ca.rank(rec, permutations=0, resplits=0, top_n=8)
    labels, hashes = rec.items["label"].to_numpy().astype(int), rec.items["split_hash"].to_numpy()
    held = holdout_mask(labels, hashes, share=0.3)
    y, groups = labels[held], np.unique(hashes[held], return_inverse=True)[1]
    ends = np.isin(y, (0, 3))
    scores, unlike = pooled(rec, "sae_0", "final")[held].astype(np.float64), 0
    for row in ranking.features.head(8).iter_rows(named=True):
        x = scores[:, row["feature_id"]]
        expected = {
            "auroc": auroc_interval(x[ends], y[ends] == 3, groups[ends]),
            "concordance": concordance(x, y, groups),
        } | {f"auroc_{high}v{low}": found for (high, low), found in adjacent_aurocs(x, y, groups).items()}
        assert len(expected) == 5
        for name, found in expected.items():
            got = [row[f"{name}_holdout{part}"] for part in ("", "_low", "_high")]
            assert got == pytest.approx(list(found), abs=1e-6), name
        unlike += concordance(x, y).low > expected["concordance"].low + 1e-3
    assert unlike
    length = next(b for b in ranking.baselines if b["baseline"] == "length")
    characters = rec.items["text"].str.len_chars().to_numpy()[held].astype(float)
    sign = 1 if length["auroc_holdout"] == pytest.approx(auroc(characters[ends], y[ends] == 3)) else -1
    found = auroc_interval(sign * characters[ends], y[ends] == 3, groups[ends])
    assert (length["auroc_holdout"], length["low"], length["high"]) == pytest.approx(tuple(found))
    assert auroc_interval(sign * characters[ends], y[ends] == 3).low != pytest.approx(found.low, abs=1e-4)
    over_all = concordance(sign * characters, y, groups)
    assert (length["concordance_low"], length["concordance_high"]) == pytest.approx(over_all[1:])
    steps = adjacent_aurocs(sign * characters, y, groups)
    for step, found in zip(length["adjacent"], steps.values(), strict=True):
        assert (step["ci_low"], step["ci_high"]) == pytest.approx(found[1:])


def test_holdout_0_uses_all_items_and_leaves_the_holdout_columns_empty(tmp_path):
    rec = planted(tmp_path / "rec", splits=["holdout"] * 80 + [None] * 80)
    ranking = ca.rank(rec, holdout=0, permutations=0, **LOOSE)
    assert ranking.facts["n_discovery"] == 160
    for name in PROMISED[-6:]:
        assert ranking.features[name].null_count() == ranking.features.height > 0
    assert ranking.features["p_max"].null_count() == ranking.features.height
    for line in ranking.features.iter_rows(named=True):
        slow = slow_figures(pooled(rec, line["slug"], "final")[:, line["feature_id"]], rec.items["label"].to_numpy())
        assert line["interpretability_score"] == pytest.approx(slow["score"], abs=1e-9)


def test_examples_are_the_strongest_of_each_grade(tmp_path):
    rec = planted(tmp_path / "rec", saes={"sae_0": {"layer": 3, "average_l0": 82.0, "neuronpedia_id": "tiny/3-res"}})
    ranking = ca.rank(rec, tmp_path / "out", examples_per_label=3, permutations=0, **LOOSE)
    saved = json.loads((tmp_path / "out" / "feature_examples.json").read_text())
    assert saved == ranking.examples
    entry = saved["layer_3_l0_82_feature_0"]
    assert entry["neuronpedia_url"] == "https://www.neuronpedia.org/tiny/3-res/0"
    assert {
        "rank",
        "layer",
        "average_l0",
        "feature_id",
        "interpretability_score",
        "pearson_correlation",
        "tpr",
        "fpr",
    } < set(entry)
    scores, labels = pooled(rec, "sae_0", "final")[:, 0], rec.items["label"].to_numpy()
    for grade, examples in entry["examples_by_label"].items():
        own = np.sort(scores[labels == int(grade)])[::-1][:3]
        assert [e["activation"] for e in examples] == pytest.approx(own.tolist())
        assert all(rec.items.filter(text=e["sentence"])["label"][0] == int(grade) for e in examples)


def test_keys_carry_the_slug_where_two_saes_share_layer_and_l0(tmp_path):
    same = {"layer": 1, "average_l0": 20.5}
    rec = planted(tmp_path / "rec", saes={"sae_0": same, "sae_1": same})
    ranking = ca.rank(rec, permutations=0, **LOOSE)
    assert "layer_1_l0_20.5_feature_0__sae_0" in ranking.examples
    assert len(ranking.examples) == ranking.features.height


def test_nothing_passes_exits_0_and_the_best_stand_there_with_what_each_lacks(tmp_path):
    planted(tmp_path / "rec", strengths=())
    done = invoke(
        "rank",
        tmp_path / "rec",
        "--out",
        tmp_path / "out",
        "--no-baselines",
        "--permutations",
        50,
        "--min-pearson",
        0.99,
        "--top-n",
        7,
    )
    assert done.code == 0, done.stderr
    table = pl.read_csv(tmp_path / "out" / "ranked_features.csv")
    assert table.columns[: len(PROMISED)] == PROMISED
    assert table.height == 7
    assert table["interpretability_score"].is_sorted(descending=True)
    assert all("0.99 needed" in fails for fails in table["fails"])
    assert done.stdout.startswith("Nothing here exceeds chance: in ")
    assert "none of them is a finding" in " ".join(done.stdout.split())
    again = invoke("show", tmp_path / "out")
    assert again.code == 0
    assert again.stdout == done.stdout
    assert len(json.loads((tmp_path / "out" / "feature_examples.json").read_text())) == 7


def test_the_table_holds_all_that_pass_and_top_n_limits_what_is_shown(tmp_path):
    rec = planted(tmp_path / "rec")
    ranking = ca.rank(rec, top_n=2, permutations=20, **LOOSE)
    assert ranking.features.height == ranking.facts["counts"]["passed"] > 2
    assert ranking.shown.height == len(ranking.examples) == 2


def test_dense_features_are_flagged_and_can_be_left_out(tmp_path):
    rec = planted(tmp_path / "rec")
    ranking = ca.rank(rec, permutations=20, **LOOSE)
    dense = ranking.features["density"] > 0.5
    assert ranking.features["dense"].to_list() == dense.to_list()
    assert ranking.features["dense"][0]
    sparse = ca.rank(rec, permutations=20, without_dense=True, **LOOSE)
    assert not sparse.features["dense"].any()
    left = ranking.features.filter(~pl.col("dense")).select("slug", "feature_id").rows()
    assert sparse.features.select("slug", "feature_id").rows()[: len(left)] == left


def test_nothing_at_all_fires(tmp_path):
    rec = write_synthetic_recording(tmp_path / "rec", {"s": np.zeros((8, 5), np.float32)}, [0, 3, 0, 3], [2] * 4)
    ranking = ca.rank(rec, tmp_path / "out", permutations=10)
    assert ranking.all.height == ranking.features.height == 0
    assert "None of the 5 features searched varies over the discovery items" in invoke("show", tmp_path / "out").stdout


def test_show_prints_the_same_as_display_only(tmp_path):
    planted(tmp_path / "rec")
    done = invoke("rank", tmp_path / "rec", "--out", tmp_path / "out", "--permutations", 20)
    assert done.code == 0, done.stderr
    shown = invoke("show", tmp_path / "out", "--top", 2)
    same = invoke("rank", tmp_path / "out", "--display-only", "--display-top", 2)
    assert shown.stdout == same.stdout
    assert "grade 3" in shown.stdout
    listed = json.loads(invoke("show", tmp_path / "out", "--top", 2, "--json").stdout)
    assert [line["rank"] for line in listed] == [1, 2]


def test_a_saved_ranking_opens_as_it_was(tmp_path):
    rec = planted(tmp_path / "rec")
    made = ca.rank(rec, tmp_path / "out", permutations=20, **LOOSE)
    opened = ca.Ranking.open(tmp_path / "out")
    assert opened.features.equals(made.features)
    assert opened.all.equals(made.all)
    assert (opened.examples, opened.null, opened.baselines) == (made.examples, made.null, made.baselines)
    assert "<table>" in opened._repr_html_()
    assert "<script>" not in opened._repr_html_()


def test_a_second_run_writes_the_same_bytes(tmp_path):
    rec = planted(tmp_path / "rec", groups=True)
    for name in ("a", "b"):
        ca.rank(rec, tmp_path / name, permutations=30, seed=3)
    for file in (tmp_path / "a").iterdir():
        if file.name != "run.json":
            assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


@pytest.mark.parametrize("direction", ["down", "both"])
def test_falling_features_mirror_rising_ones(tmp_path, direction):
    up = planted(tmp_path / "up")
    labels = up.items["label"].to_numpy().astype(int)
    columns = {s.slug: _rows_dense(up, s.slug) for s in up.saes}
    turned = write_synthetic_recording(tmp_path / "down", columns, (3 - labels).tolist(), up.items["n_rows"].to_list())
    rising = ca.rank(up, holdout=0, permutations=50, direction="both" if direction == "both" else "up", **LOOSE)
    falling = ca.rank(turned, holdout=0, permutations=50, direction=direction, **LOOSE)
    for name in ("slug", "feature_id", "tpr", "fpr"):
        assert rising.features[name].to_list() == falling.features[name].to_list()
    assert np.allclose(rising.features["pearson_corr"], -falling.features["pearson_corr"].to_numpy())
    assert np.allclose(rising.features["auroc"], 1 - falling.features["auroc"].to_numpy())
    assert np.allclose(rising.features["interpretability_score"], falling.features["interpretability_score"].to_numpy())
    assert falling.features.row(0, named=True)["direction"] == "down"
    if direction == "both":
        only = ca.rank(up, holdout=0, permutations=50, direction="up", **LOOSE)
        assert only.null["pearson_95"] <= rising.null["pearson_95"]


def _rows_dense(rec, slug):
    columns = rec.columns(slug)
    dense = np.zeros((rec.n_rows, columns.n_features), np.float32)
    for f in range(columns.n_features):
        rows, values = columns.feature(f)
        dense[rows, f] = values
    return dense


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": "median"}, "Unknown pooling 'median'"),
        ({"direction": "sideways"}, "Unknown direction 'sideways'"),
        ({"holdout": 1.0}, "--holdout is 1.0; give a share from 0 to below 1"),
        ({"top_n": 0}, "--top-n is 0; give a whole number from 1"),
        ({"min_pearson": 2}, "--min-pearson is 2; give a number from -1 to 1"),
    ],
)
def test_bad_options_say_what_is_valid(tmp_path, options, message):
    rec = planted(tmp_path / "rec", n=20)
    with pytest.raises(InputError, match=message):
        ca.rank(rec, **options)


def test_fewer_than_two_grades_is_an_error(tmp_path):
    x = np.eye(4, 3, dtype=np.float32)
    write_synthetic_recording(tmp_path / "rec", {"s": x}, [2, 2, 2, 2], [1] * 4)
    done = invoke("rank", tmp_path / "rec", "--out", tmp_path / "out")
    assert done.code == 2
    assert "A ranking needs items of two grades or more, and the discovery side of the split has 2" in done.stderr


def test_absent_grades_are_left_out_and_said(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.array([1, 2] * 30)
    x = np.maximum(rng.normal(0, 1, (60, 4)) + 2 * labels[:, None] * [1, 0, 0, 0], 0)
    rec = write_synthetic_recording(tmp_path / "rec", {"s": x}, labels.tolist(), [1] * 60)
    ranking = ca.rank(rec, permutations=0, min_tpr=0.3, resplits=0, baselines=False)
    assert ranking.features["feature_id"][0] == 0
    assert ranking.features["mean_label_0"].null_count() == ranking.features.height
    assert "compare grade 2 against grade 1" in ranking.facts["warnings"][0]


def test_final_rows_only_refuses_other_pools_and_says_what_to_do(tmp_path):
    x = np.eye(6, 3, dtype=np.float32)[::1]
    rec = write_synthetic_recording(tmp_path / "rec", {"s": x}, [0, 3, 0, 3, 1, 2], [1] * 6, keep="final")
    assert ca.rank(rec, holdout=0, permutations=0).all.height == 3
    with pytest.raises(InputError, match=r"--pool max needs features at every row.*record again"):
        ca.rank(rec, pool="max")


def test_rank_without_out_is_bad_usage(tmp_path):
    planted(tmp_path / "rec", n=20)
    done = invoke("rank", tmp_path / "rec")
    assert done.code == 2
    assert "give --out" in done.stderr


def test_no_ranking_there(tmp_path):
    done = invoke("show", tmp_path)
    assert done.code == 2
    assert "There is no ranking in" in done.stderr


def with_sinks(path, n=80):
    """Items of three rows of which the first is a sink; feature 1 fires there, hard, on every item of grade 3."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 4
    x = np.zeros((3 * n, 3), np.float32)
    x[2::3, 0] = labels + rng.random(n)
    x[0::3, 1] = np.where(labels == 3, 90 + rng.random(n), 0.0)
    x[1::3, 2] = rng.random(n)
    return write_synthetic_recording(path, {"s": x}, labels.tolist(), [3] * n, sinks=range(0, 3 * n, 3))


@pytest.mark.parametrize("pool", ["max", "mean", "auto"])
def test_attention_sinks_are_left_out_of_pooling_where_that_is_asked(tmp_path, pool):
    rec = with_sinks(tmp_path / "rec")
    options = {"permutations": 20, "resplits": 0, "baselines": False, "families": False, "holdout": 0.3}
    counted = ca.rank(rec, pool="max", **options)
    assert 1 in counted.features["feature_id"]
    assert counted.facts["warnings"] == [
        "80 of 240 rows are attention sinks (norm above ten times the median), and pooling by max counts them; "
        "--without-sinks leaves them out."
    ]
    without = ca.rank(rec, tmp_path / "rank", pool=pool, without_sinks=True, **options)
    assert without.features.filter(pl.col("fails").is_null())["feature_id"].to_list() == [0]
    assert without.facts["warnings"] == []
    if without.facts["pool"] != "final":  # nothing of the sinks is left, so that the feature has no score
        assert without.features["feature_id"].to_list() == [0, 2]
        assert without.all["feature_id"].to_list() == [0, 1, 2]
        assert (without.facts["counts"]["fired"], without.facts["counts"]["fired_where_scored"]) == (3, 2)
        assert without.all["interpretability_score"].is_null().to_list() == [False, True, False]
        assert without.facts["sinks_left_out"] == 80
        assert (
            f"in the rows scored ({without.facts['pool']} without attention sinks)"
            in Ranking.open(tmp_path / "rank").head_line()
        )
    run = json.loads((tmp_path / "rank" / "run.json").read_text())
    assert run["options"]["without_sinks"]


def test_without_sinks_on_the_command_line(tmp_path):
    with_sinks(tmp_path / "rec")
    few = ["--permutations", "0", "--resplits", "0", "--no-baselines", "--display-top", "1"]
    done = invoke("rank", tmp_path / "rec", "--out", tmp_path / "rank", "--pool", "max", "--without-sinks", *few)
    assert done.code == 0, done.stderr
    assert "without attention sinks" in done.stdout
    done = invoke("rank", tmp_path / "rec", "--out", tmp_path / "rank", "--without-sinks", *few)
    assert done.code == 2
    assert "--pool final reads one row; give --pool max, mean or auto" in done.stderr


def test_an_item_of_sinks_only_keeps_them(tmp_path):
    x = np.array([[5.0], [1.0], [2.0], [3.0]], np.float32)
    rec = write_synthetic_recording(tmp_path / "rec", {"s": x}, [0, 3], [2, 2], sinks=[0, 2, 3])
    found = ca.rank(rec, pool="max", without_sinks=True, holdout=0, permutations=0, resplits=0, baselines=False)
    assert (found.all["mean_label_0"][0], found.all["mean_label_3"][0]) == (1.0, 3.0)
    assert "2 attention sinks count all the same: their items have no other rows." in found.facts["warnings"]


def test_items_that_end_at_a_sink_are_said(tmp_path):
    x = np.array([[5.0], [1.0], [2.0], [3.0]], np.float32)
    rec = write_synthetic_recording(tmp_path / "rec", {"s": x}, [0, 3], [2, 2], sinks=[0, 3])
    found = ca.rank(rec, holdout=0, permutations=0, resplits=0, baselines=False)
    assert found.all["mean_label_3"][0] == 3.0
    assert any("1 of 2 items end at an attention sink" in warning for warning in found.facts["warnings"])


def test_recordings_that_flag_no_sinks(tmp_path):
    rec = with_sinks(tmp_path / "rec")
    seal_table_of(rec, "rows.parquet", rec.rows.drop("sink"))
    with pytest.raises(InputError, match="does not say which rows are attention sinks"):
        ca.rank(rec.path, pool="max", without_sinks=True)


def test_items_without_a_grade_are_an_error(tmp_path):
    items = planted(tmp_path / "rec", n=10).items
    from conceptatlas.ranking.design import Design

    some = items.with_columns(pl.when(pl.col("item") > 2).then(pl.col("label")).alias("label"))
    with pytest.raises(InputError, match="needs a grade for every item, and 3 of 10 have none"):
        Design.of_items(some, share=0.3)


def test_groups_never_straddle_the_split(tmp_path):
    from conceptatlas.ranking.design import Design

    design = Design.of_items(planted(tmp_path / "rec", groups=True).items, share=0.3)
    assert design.holdout.any()
    assert not set(design.groups[design.holdout]) & set(design.groups[design.discovery])


def test_a_folder_that_cannot_be_written_is_said_before_the_work(tmp_path, monkeypatch):
    planted(tmp_path / "rec", n=20)
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("conceptatlas.ranking.run.search", None)
    done = invoke("rank", tmp_path / "rec", "--out", tmp_path / "file")
    assert done.code == 2
    assert "is a file, and a folder is needed" in done.stderr
