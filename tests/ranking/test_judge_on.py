"""Chosen on one data set, judged on another: against a slow computation, and a cue that holds in the first only."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import conceptatlas as ca
from conceptatlas.base.errors import InputError
from conceptatlas.ranking import Ranking
from conceptatlas.ranking.joined import JoinedSource
from conceptatlas.ranking.search import Source
from conceptatlas.ranking.tables import JUDGED_COLUMNS
from tests.helpers.cli import invoke
from tests.helpers.recordings import write_synthetic_recording
from tests.ranking.test_rank import pooled

QUICK = {"permutations": 20, "resplits": 0, "families": False}
SITE = "blocks.0.hook_resid_post"


def written(path, *, cue: bool, n=240, seed=0, order=("s", "t"), lengths=3, **options):
    """Feature 0 of SAE s follows a cue that goes with the grade where ``cue``; feature 1 follows the grade itself."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % 4)
    rows = rng.integers(1, lengths + 1, n)
    of_row = np.repeat(np.arange(n), rows)
    spurious = labels if cue else rng.permutation(labels)
    drive = np.column_stack([3 * spurious, 1.2 * labels, np.zeros((n, 8))])[of_row]
    x = np.maximum(drive + rng.normal(0, 1, (len(of_row), 10)), 0).astype(np.float32)
    other = np.maximum(rng.normal(0, 1, (len(of_row), 10)), 0).astype(np.float32)
    hidden = rng.normal(0, 1, (n, 6)).astype(np.float32)
    hidden[:, 0] += 2 * spurious
    columns = {"s": x, "t": other}
    texts = [" ".join(f"w{seed}x{i}x{j}" for j in range(r)) for i, r in enumerate(rows)]
    saes = {"s": {"site": SITE, "layer": 0}, "t": {"site": "blocks.1.hook_resid_post", "layer": 1}}
    return write_synthetic_recording(
        path, {name: columns[name] for name in order}, labels.tolist(), rows.tolist(), hidden={SITE: hidden},
        texts=texts, saes=saes, name=path.name, **options,
    )  # fmt: skip


@pytest.fixture
def two(tmp_path):
    return written(tmp_path / "first", cue=True), written(
        tmp_path / "second", cue=False, seed=1, n=160, order=("t", "s")
    )


def slow(above, below):
    return np.mean([(a > b) + 0.5 * (a == b) for a in above for b in below])


def test_a_cue_of_the_first_data_set_falls_to_chance_on_the_second(two, tmp_path):
    first, second = two
    ranking = ca.rank(first, tmp_path / "rank", judge_on=second, pool="final", **QUICK)
    cue, real = (
        next(r for r in ranking.features.iter_rows(named=True) if (r["slug"], r["feature_id"]) == ("s", f))
        for f in (0, 1)
    )
    assert cue["rank"] == 1
    assert cue["auroc_holdout"] > 0.99
    assert cue["auroc_judged_low"] < 0.5 < cue["auroc_judged_high"]
    assert real["auroc_judged_low"] > 0.7
    scores, labels = pooled(second, "s", "final"), second.items["label"].to_numpy()
    for row in (cue, real):
        x = scores[:, row["feature_id"]].astype(np.float64)
        assert row["auroc_judged"] == pytest.approx(slow(x[labels == 3], x[labels == 0]))
        assert row["tpr_judged"] == pytest.approx((x[labels == 3] > row["threshold"]).mean())
        assert row["fpr_judged"] == pytest.approx((x[labels == 0] > row["threshold"]).mean())
        assert row["auroc_2v1_judged"] == pytest.approx(slow(x[labels == 2], x[labels == 1]))
        pairs = [(i, j) for i in range(len(x)) for j in range(len(x)) if labels[i] > labels[j]]
        c = np.mean([(x[i] > x[j]) + 0.5 * (x[i] == x[j]) for i, j in pairs])
        assert row["concordance_judged"] == pytest.approx(c)
    probes = {e["baseline"]: e for e in ranking.baselines if e["site"] == SITE}
    assert probes["difference_of_means"]["auroc_holdout"] > 0.95
    assert abs(probes["difference_of_means"]["auroc_judged"] - 0.5) < 0.15
    facts = ranking.facts["judged"]
    assert (facts["concept"], facts["data_hash"]) == ("second", second.manifest.concept.data_hash)
    assert facts["n_items"] == 160
    assert sum(facts["items"].values()) == 160
    (said,) = [s.text for s in ranking.summary() if s.kind == "judged"]
    assert f"another data set, second (data hash {facts['data_hash'][:8]}), of which no text had a part in it" in said
    assert f"AUROC {cue['auroc_judged']:.3f} (95% interval " in said
    assert Ranking.open(tmp_path / "rank").features["auroc_judged"].to_list() == pytest.approx(
        ranking.features["auroc_judged"].to_list()
    )


def test_what_was_chosen_does_not_change(two):
    first, second = two
    alone, judged = ca.rank(first, **QUICK), ca.rank(first, judge_on=second.path, **QUICK)
    assert alone.features.drop(JUDGED_COLUMNS).equals(judged.features.drop(JUDGED_COLUMNS))
    assert alone.features.select(JUDGED_COLUMNS).null_count().row(0) == (alone.features.height,) * len(JUDGED_COLUMNS)
    for one, two_ in zip(alone.baselines, judged.baselines, strict=True):
        assert one.items() <= two_.items()


def test_baselines_are_the_very_ones_that_were_fitted_on_the_first(two):
    """Judged on the first's own hold-out, written as a recording of its own, they give the hold-out figures again."""
    from conceptatlas.concepts import holdout_of

    first, _ = two
    held = np.flatnonzero(holdout_of(first.items, share=0.3))
    rows = np.concatenate([np.arange(first.n_rows)[first.row_slice(i)] for i in held])
    dense = {}
    for sae in first.saes:
        columns = first.columns(sae.slug)
        dense[sae.slug] = np.zeros((first.n_rows, columns.n_features), np.float32)
        for f in range(columns.n_features):
            dense[sae.slug][columns.feature(f)[0], f] = columns.feature(f)[1]
    part = write_synthetic_recording(
        first.path.parent / "part",
        {slug: matrix[rows] for slug, matrix in dense.items()},
        first.items["label"].gather(held).to_list(),
        first.items["n_rows"].gather(held).to_list(),
        hidden={SITE: first.hidden_final(SITE)[held]},
        texts=first.items["text"].gather(held).to_list(),
        saes={"s": {"site": SITE, "layer": 0}, "t": {"site": "blocks.1.hook_resid_post", "layer": 1}},
    )
    for pool in ("final", "mean"):
        ranking = ca.rank(first, judge_on=part, pool=pool, **QUICK)
        for entry in ranking.baselines:
            assert entry["auroc_judged"] == pytest.approx(entry["auroc_holdout"], abs=1e-6), entry["name"]
            assert entry["auroc_judged_low"] == pytest.approx(entry["low"], abs=1e-6)
        for name in ("auroc", "concordance", "tpr", "fpr", "auroc_2v1"):
            ours, theirs = (ranking.features[f"{name}_{side}"].to_numpy() for side in ("judged", "holdout"))
            np.testing.assert_allclose(ours, theirs, atol=1e-12)
        assert ranking.facts["judged"]["shared_texts"] == 0
    with_all = ca.rank(first, judge_on=first, baselines=False, **QUICK)
    n_discovery = with_all.facts["n_discovery"]
    assert with_all.facts["judged"]["shared_texts"] == n_discovery
    assert any(
        w.startswith(f"{n_discovery} of the 240 items judged on stand among") for w in with_all.facts["warnings"]
    )


def test_twins_of_what_chose_are_counted(two, tmp_path):
    """Other capitals, white space and marks make no new item."""
    first, _ = two
    texts = [f"  {text.upper()} !" for text in first.items["text"]]
    columns = {sae.slug: np.ones((first.n_items, 10), np.float32) for sae in first.saes}
    saes = {"s": {"site": SITE, "layer": 0}, "t": {"site": "blocks.1.hook_resid_post", "layer": 1}}
    twins = write_synthetic_recording(
        tmp_path / "twins", columns, first.items["label"].to_list(), [1] * first.n_items, texts=texts, saes=saes,
        hidden={SITE: np.zeros((first.n_items, 6))},
    )  # fmt: skip
    facts = ca.rank(first, judge_on=twins, baselines=False, **QUICK).facts
    assert facts["judged"]["shared_texts"] == facts["n_discovery"]


def test_joined_scores_are_those_of_both(two):
    first, second = two
    inside = np.flatnonzero(np.arange(first.n_items) % 3 == 0)
    joined = JoinedSource(Source(first, "max"), inside, Source(second, "max"))
    for chunk in joined.chunks():
        slug = first.saes[chunk.sae].slug
        expected = np.concatenate([pooled(first, slug, "max")[inside], pooled(second, slug, "max")])
        got = joined.load(chunk)
        np.testing.assert_array_equal(got.dense(len(expected)), expected[:, chunk.start : chunk.stop])
        for f in range(got.n_features):
            assert (np.diff(got.items[got.indptr[f] : got.indptr[f + 1]]) > 0).all()
    assert joined.recording.items.height == len(inside) + second.n_items


def test_little_or_no_data_to_judge_on_is_said(two, tmp_path):
    first, _ = two
    little = written(tmp_path / "little", cue=False, n=20, seed=5)
    said = ca.rank(first, judge_on=little, baselines=False, **QUICK).facts["warnings"]
    assert "only 5 of grade 0 and 5 of grade 3 (independent groups): no figure on it is firm." in " ".join(said)
    rng = np.random.default_rng(0)
    x = np.maximum(rng.normal(0, 1, (12, 10)), 0).astype(np.float32)
    saes = {"s": {"site": SITE, "layer": 0}, "t": {"site": "blocks.1.hook_resid_post", "layer": 1}}
    other = write_synthetic_recording(
        tmp_path / "no3", {"s": x, "t": x}, [0, 1, 2] * 4, [1] * 12, saes=saes, texts=[f"only {i}" for i in range(12)],
        hidden={SITE: np.zeros((12, 6))},
    )  # fmt: skip
    ranking = ca.rank(first, judge_on=other, baselines=False, **QUICK)
    assert "The data set judged on has no item of grade 3: its auroc is empty." in ranking.facts["warnings"]
    assert ranking.features["auroc_judged"].null_count() == ranking.features.height
    assert ranking.features["concordance_judged"].null_count() == 0
    assert not [s for s in ranking.summary() if s.kind == "judged"]


def test_other_saes_are_refused(two, tmp_path):
    first, second = two
    missing = written(tmp_path / "missing", cue=False, order=("t",))
    with pytest.raises(InputError, match="cannot be judged together: the second lacks the SAE s; record the second"):
        ca.rank(first, judge_on=missing, **QUICK)
    other = written(tmp_path / "other", cue=False, subject="another")
    outcome = invoke("rank", first.path, "--out", tmp_path / "out", "--judge-on", other.path)
    assert outcome.code == 2
    assert "the model is 'synthetic' and 'another'" in outcome.stderr
    final = written(tmp_path / "final", cue=False, lengths=1, keep="final")
    with pytest.raises(InputError, match="needs features at every row"):
        ca.rank(first, judge_on=final, pool="max", **QUICK)
    outcome = invoke("rank", first.path, "--out", tmp_path / "out", "--judge-on", second.path, "--permutations", 20)
    assert outcome.code == 0, outcome.stderr
    assert "Judged on another data set, second" in outcome.stdout
    assert pl.read_csv(tmp_path / "out" / "ranked_features.csv")["auroc_judged"].null_count() == 0
