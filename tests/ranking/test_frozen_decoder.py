"""Frozen-decoder controls: never ranked, and their best latent is a baseline, chosen as the best feature would be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import conceptatlas as ca
from conceptatlas.base.errors import InputError
from conceptatlas.ranking.joined import JoinedSource
from conceptatlas.ranking.search import Chunk, Source
from conceptatlas.recording import Recording
from tests.helpers.recordings import write_synthetic_recording

QUICK = {"permutations": 40, "resplits": 0, "families": False}
N = 480
SITE = "blocks.0.hook_resid_post"


def written(path: Path, slugs: list[str], *, control: str | None, falling: bool = False, seed: int = 0) -> Recording:
    """The SAE ``trained`` follows the grade well; ``frozen``, the control, less so, and best with a dense latent."""
    rng = np.random.default_rng(0)
    labels = np.arange(N) % 4
    strengths = {"trained": [3.0, 1.0, *[0.0] * 10], "frozen": [0.0, 0.7, 0.9, *[0.0] * 9]}
    columns = {}
    for slug, strength in strengths.items():
        drive = np.outer(3 - labels if falling else labels, strength) - 1.2
        drive[:, 0] -= 4.3  # active on the highest grades
        drive[:, 2] += 4.2  # active on nearly every row
        columns[slug] = np.maximum(drive + rng.normal(0, 1, drive.shape), 0).astype(np.float32)
    order = np.random.default_rng(seed).permutation(N)
    saes = {slug: {"site": SITE, "layer": 0} for slug in slugs}
    if control is not None:
        saes[control]["control_of"] = "trained"
    return write_synthetic_recording(
        path, {slug: columns[slug][order] for slug in slugs}, labels[order].tolist(), [1] * N, saes=saes,
        texts=[f"w{i}" for i in order],
    )  # fmt: skip


@pytest.mark.parametrize("falling", [False, True])
@pytest.mark.parametrize("without_dense", [False, True])
def test_the_control_is_what_a_ranking_of_it_would_put_first(tmp_path, falling: bool, without_dense: bool) -> None:
    options = QUICK | {"direction": "both", "without_dense": without_dense}
    both = ca.rank(written(tmp_path / "both", ["trained", "frozen"], control="frozen", falling=falling), **options)
    alone = ca.rank(written(tmp_path / "alone", ["frozen"], control=None, falling=falling), **options)
    (entry,) = [entry for entry in both.baselines if entry["baseline"] == "frozen_decoder"]
    best = alone.features.row(0, named=True)
    assert best["feature_id"] == (1 if without_dense else 2)
    assert entry["detail"] == f"best of 12 latents with frozen random directions: frozen, {best['feature_id']}"
    turned = best["direction"] == "down"
    assert turned == falling
    for name, own in (("auroc_discovery", "auroc"), ("auroc_holdout", "auroc_holdout")):
        assert entry[name] == pytest.approx(1 - best[own] if turned else best[own])
    assert (entry["site"], entry["pool"], entry["comparable"]) == (SITE, "final", True)


def test_what_passes_the_filters_comes_first_as_in_a_ranking(tmp_path) -> None:
    labels = np.arange(N) % 4
    rng = np.random.default_rng(0)
    broken = np.array([0.0, 2.4, 1.8, 4.0])[labels]  # not monotonic, and of better correlation than what follows
    x = np.maximum(np.stack([broken, 0.5 * labels], axis=1) + rng.normal(0, [0.05, 0.4], (N, 2)), 0).astype(np.float32)
    saes = {"frozen": {"site": SITE, "layer": 0}, "trained": {"site": SITE, "layer": 0}}
    alone = write_synthetic_recording(tmp_path / "alone", {"frozen": x}, labels.tolist(), [1] * N, saes=saes)
    saes["frozen"]["control_of"] = "trained"
    both = write_synthetic_recording(
        tmp_path / "both", {"frozen": x, "trained": x}, labels.tolist(), [1] * N, saes=saes
    )
    ranking = ca.rank(alone, **QUICK)
    assert ranking.features["feature_id"][0] == 1
    assert ranking.features["pearson_corr"][1] > ranking.features["pearson_corr"][0]
    (entry,) = [entry for entry in ca.rank(both, **QUICK).baselines if entry["baseline"] == "frozen_decoder"]
    assert entry["detail"].endswith("frozen, 1")


def test_nothing_of_the_control_is_ranked_or_counted(tmp_path) -> None:
    both = ca.rank(written(tmp_path / "both", ["frozen", "trained"], control="frozen"), **QUICK)
    alone = ca.rank(written(tmp_path / "alone", ["trained"], control=None), **QUICK)
    assert both.features.equals(alone.features)
    assert both.all.equals(alone.all)
    assert both.null["pearson_95"] == alone.null["pearson_95"]
    assert set(both.null["by_sae"]) == {"trained"}
    assert both.facts["counts"] == alone.facts["counts"]
    assert both.facts["n_saes"] == 1
    assert {member["slug"] for size in both.sets.get("sizes", []) for member in size.get("members", [])} <= {"trained"}


def test_it_is_compared_as_a_control_and_said(tmp_path) -> None:
    ranking = ca.rank(written(tmp_path / "both", ["trained", "frozen"], control="frozen"), without_dense=True, **QUICK)
    (entry,) = [entry for entry in ranking.comparisons if entry["baseline"] == "frozen_decoder"]
    assert entry["control"]
    assert not entry["strongest"]
    assert entry["relation"] == "beats"
    said = [sentence.text for sentence in ranking.summary() if sentence.kind == "baselines"]
    assert f"beats the control, SAE with a frozen decoder at {SITE} (AUROC {entry['auroc_baseline']:.3f}" in said[0]


def test_judged_elsewhere(tmp_path) -> None:
    first = written(tmp_path / "first", ["trained", "frozen"], control="frozen")
    second = written(tmp_path / "second", ["frozen", "trained"], control="frozen", seed=1)
    ranking = ca.rank(first, judge_on=second, without_dense=True, **QUICK)
    (entry,) = [entry for entry in ranking.baselines if entry["baseline"] == "frozen_decoder"]
    x = second.columns("frozen").feature(1)
    scores = np.zeros(N)
    scores[x[0]] = x[1]
    labels = second.items["label"].to_numpy()
    above, below = scores[labels == 3], scores[labels == 0]
    assert entry["auroc_judged"] == pytest.approx(np.mean([(a > b) + 0.5 * (a == b) for a in above for b in below]))
    source = JoinedSource(Source(first, "final"), np.arange(10), Source(second, "final"))
    assert source.n_recorded_rows == N
    assert source.firing_rows(Chunk(1, 0, 12)).tolist() == np.diff(first.columns("frozen").indptr).tolist()


def test_controls_alone_cannot_be_ranked(tmp_path) -> None:
    with pytest.raises(
        InputError, match=r"holds controls with frozen decoders only, which are not ranked; record their"
    ):
        ca.rank(written(tmp_path / "one", ["frozen"], control="frozen"), **QUICK)


def test_the_label_efficiency_is_that_of_the_saes(tmp_path) -> None:
    both = ca.rank(written(tmp_path / "both", ["frozen", "trained"], control="frozen"), efficiency=True, **QUICK)
    alone = ca.rank(written(tmp_path / "alone", ["trained"], control=None), efficiency=True, **QUICK)
    own = [row for row in both.efficiency if row["method"] in ("best feature", "set of 5", "set of 10", "set of 20")]
    assert own
    assert own == [row for row in alone.efficiency if row["method"] in {row["method"] for row in own}]
