"""The ranked table equals a slow computation over the dense export of the same recording."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats

from conceptatlas.concepts import holdout_mask
from conceptatlas.ranking import rank
from conceptatlas.recording import export, record


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("export_and_rank")


def test_the_ranked_csv_is_that_of_scipy_over_the_dense_export(folder: Path) -> None:
    recording = record("builtin:caring", "organism", "organism", folder / "rec", keep="final", device="cpu")
    ranking = rank(recording, folder / "rank", permutations=20, baselines=False, resplits=0, top_n=1000)
    exported = {path.name: path for path in export(recording, folder / "npz")}
    held = holdout_mask(
        recording.items["label"].to_numpy(),
        recording.items["split_hash"].to_numpy(),
        split=recording.items["split"].to_list(),
    )
    checked = 0
    found = set()
    for sae in recording.saes:
        with np.load(exported[f"{recording.short_names[sae.slug]}_activations.npz"], allow_pickle=False) as archive:
            final = np.asarray(archive["is_final_token"], dtype=bool)
            items = archive["sentence_indices"][final]
            labels = archive["concept_strength_labels"]
            labels = labels[final] if len(labels) == len(final) else labels[items]
            acts = archive["activations"][final].astype(np.float64)
        seen = ~held[items]
        x, y, x_held, y_held = acts[seen], labels[seen].astype(float), acts[~seen], labels[~seen]
        for feature in np.flatnonzero(np.ptp(x, axis=0) > 0):
            column = x[:, feature]
            means = [column[y == grade].mean() for grade in range(4)]
            threshold = np.percentile(column[y == 0], 95)
            tpr, fpr = (column[y == 3] > threshold).mean(), (column[y == 0] > threshold).mean()
            pearson = stats.pearsonr(column, y).statistic
            if not (pearson >= 0.4 and np.all(np.diff(means) >= 0) and tpr >= 0.5 and fpr <= 0.2):
                continue
            found.add((sae.slug, int(feature)))
            (row,) = ranking.features.filter(
                (pl.col("slug") == sae.slug) & (pl.col("feature_id") == feature)
            ).to_dicts()
            separation = (means[3] - means[0]) / column.std()
            score = 0.4 * pearson + 0.3 * separation + 0.3 * (tpr - fpr)
            top, low = column[y == 3], column[y == 0]
            auroc = stats.mannwhitneyu(top, low).statistic / (len(top) * len(low))
            other = x_held[:, feature]
            top_held, low_held = other[y_held == 3], other[y_held == 0]
            expected = {
                "interpretability_score": score,
                "pearson_corr": pearson,
                "spearman_corr": stats.spearmanr(column, y).statistic,
                "separation_score": separation,
                "tpr": tpr,
                "fpr": fpr,
                "auroc": auroc,
                "pearson_holdout": stats.pearsonr(other, y_held).statistic,
                "auroc_holdout": stats.mannwhitneyu(top_held, low_held).statistic / (len(top_held) * len(low_held)),
                "tpr_holdout": (top_held > threshold).mean(),
                "fpr_holdout": (low_held > threshold).mean(),
                **{f"mean_label_{grade}": mean for grade, mean in enumerate(means)},
            }
            for name, value in expected.items():
                assert row[name] == pytest.approx(value, abs=1e-6), (sae.slug, feature, name)
            checked += 1
    assert checked >= 3
    assert found == set(ranking.features.filter(pl.col("fails").is_null()).select("slug", "feature_id").iter_rows())
