"""From figures to tables: the columns that users know, in their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from conceptatlas.ranking.columns import ItemColumns
from conceptatlas.ranking.design import Design
from conceptatlas.ranking.kernels import F64
from conceptatlas.ranking.null import F32, best_of, p_of_max
from conceptatlas.ranking.options import RankOptions
from conceptatlas.ranking.scoring import Figures, is_confounded
from conceptatlas.ranking.search import DENSE, Found, chunks_of
from conceptatlas.recording import RecordedSAE
from conceptatlas.statistics import adjacent_aurocs, auroc_interval, concordance

ADJACENT = ((1, 0), (2, 1), (3, 2))

# The figures on another data set (--judge-on): the same as those on the hold-out.
JUDGED_COLUMNS = (
    *(f"{name}_judged{part}" for name in ("auroc", "concordance") for part in ("", "_low", "_high")),
    "tpr_judged",
    "fpr_judged",
    *(f"auroc_{high}v{low}_judged{part}" for high, low in ADJACENT for part in ("", "_low", "_high")),
)

# ranked_features.csv begins with these columns, in this order: a promise to the programs that read it.
RANKED_COLUMNS: dict[str, Any] = {
    "rank": pl.Int32,
    "layer": pl.Int32,
    "average_l0": pl.Float64,
    "feature_id": pl.Int32,
    "neuronpedia_url": pl.String,
    "interpretability_score": pl.Float64,
    "pearson_corr": pl.Float64,
    "spearman_corr": pl.Float64,
    "separation_score": pl.Float64,
    "tpr": pl.Float64,
    "fpr": pl.Float64,
    "mean_label_0": pl.Float64,
    "mean_label_1": pl.Float64,
    "mean_label_2": pl.Float64,
    "mean_label_3": pl.Float64,
    "monotonic": pl.Boolean,
    "sae_id": pl.String,
    "n_active": pl.Int32,
    "auroc": pl.Float64,
    "q_value": pl.Float64,
    "p_max": pl.Float64,
    "p_max_sae": pl.Float64,
    "pearson_holdout": pl.Float64,
    "auroc_holdout": pl.Float64,
    "auroc_holdout_low": pl.Float64,
    "auroc_holdout_high": pl.Float64,
    "tpr_holdout": pl.Float64,
    "fpr_holdout": pl.Float64,
    # Ours, after the promised ones.
    "fails": pl.String,
    "density": pl.Float64,
    "dense": pl.Boolean,
    "concordance_holdout": pl.Float64,
    "concordance_holdout_low": pl.Float64,
    "concordance_holdout_high": pl.Float64,
    **{f"auroc_{high}v{low}_holdout{part}": pl.Float64 for high, low in ADJACENT for part in ("", "_low", "_high")},
    "threshold": pl.Float64,
    "direction": pl.String,
    "partial_corr": pl.Float64,
    "confounded": pl.Boolean,
    "family": pl.Int32,
    "comes_back": pl.Float64,
    "rank_low": pl.Float64,
    "rank_high": pl.Float64,
    "release": pl.String,
    "slug": pl.String,
    **dict.fromkeys(JUDGED_COLUMNS, pl.Float64),
}

# all_features.parquet: the same figures as float32 (kept features stand in the CSV as float64), the q-value as float64.
_ALL_FIGURES = (
    "interpretability_score",
    "pearson_corr",
    "spearman_corr",
    "separation_score",
    "tpr",
    "fpr",
    "mean_label_0",
    "mean_label_1",
    "mean_label_2",
    "mean_label_3",
    "monotonic",
    "n_active",
    "auroc",
    "pearson_holdout",
    "auroc_holdout",
    "tpr_holdout",
    "fpr_holdout",
    "threshold",
    "partial_corr",
)


def upward(pearson: npt.NDArray[np.floating], falling: npt.NDArray[np.floating]) -> F64:
    """Return the correlation in the direction in which each feature is judged, float64."""
    return np.where(falling > 0, -pearson.astype(np.float64), pearson)


class Chance:
    """The null of a search: the best correlation under each permutation, over everything and within each SAE."""

    def __init__(self, searches: Sequence[tuple[F32, F32]], direction: str) -> None:
        """Join the (highest, lowest) [S, P] of every pooling that was searched."""
        highest = np.maximum.reduce([high for high, _ in searches])
        lowest = np.minimum.reduce([low for _, low in searches])
        self.by_sae = best_of(highest, lowest, direction)
        self.best = self.by_sae.max(axis=0, initial=-np.inf)

    @property
    def count(self) -> int:
        """P, the permutations."""
        return len(self.best)

    def line(self, best: F32, quantile: float = 0.95) -> float | None:
        """Return the quantile of the best correlation under permutation, or None where there was none."""
        finite = best[np.isfinite(best)]
        return float(np.quantile(finite, quantile)) if len(finite) else None

    def p_max(self, observed: F64) -> F64:
        """Return ``p_max`` of observed (directed) correlations; NaN without permutations."""
        return p_of_max(observed, self.best) if self.count else np.full(len(observed), np.nan)

    def p_max_sae(self, observed: F64, sae: npt.NDArray[np.integer]) -> F64:
        """Return ``p_max_sae`` of observed (directed) correlations, each within its SAE."""
        out = np.full(len(observed), np.nan)
        if self.count:
            for number in np.unique(sae):
                own = sae == number
                out[own] = p_of_max(observed[own], self.by_sae[number])
        return out


def all_features(found: Found, saes: Sequence[RecordedSAE], chance: Chance, q_value: F64) -> pl.DataFrame:
    """Return the table of every feature that fired on any recorded row; an empty figure is null."""
    observed = upward(found.table["pearson_corr"], found.table["falling"])
    p_sae = np.full(len(observed), np.nan, dtype=np.float32)
    if chance.count:
        for number, lines in chunks_of(found):
            p_sae[lines] = p_of_max(observed[lines], chance.by_sae[number])
    sae_number = pl.Series(found.sae)
    columns: dict[str, Any] = {
        "layer": pl.Series([sae.layer for sae in saes], dtype=pl.Int32).gather(sae_number),
        "average_l0": pl.Series([sae.average_l0 for sae in saes], dtype=pl.Float64).gather(sae_number),
        "feature_id": found.feature,
        **{name: found.table[name] for name in _ALL_FIGURES},
        "q_value": q_value,
        "p_max": chance.p_max(observed).astype(np.float32),
        "p_max_sae": p_sae,
        "direction": pl.Series(["up", "down"], dtype=pl.String).gather(pl.Series(found.table["falling"] > 0).cast(int)),
        "density": found.density,
        "kept": found.kept,
        "sae_id": pl.Series([sae.sae_id for sae in saes], dtype=pl.String).gather(sae_number),
        "slug": pl.Series([sae.slug for sae in saes], dtype=pl.String).gather(sae_number),
    }
    table = pl.DataFrame(columns)
    floats = [name for name, kind in table.schema.items() if kind in (pl.Float32, pl.Float64)]
    monotonic = pl.when(pl.col("interpretability_score").is_not_nan()).then(pl.col("monotonic") > 0)
    return table.with_columns(
        monotonic.alias("monotonic"),
        pl.col("n_active").cast(pl.Int32),
        *(pl.col(name).fill_nan(None) for name in floats if name not in ("monotonic", "n_active")),
    )


def ranked_features(
    figures: Figures,
    *,
    sae: npt.NDArray[np.integer],
    feature: npt.NDArray[np.integer],
    q_value: F64,
    saes: Sequence[RecordedSAE],
    chance: Chance,
    density: npt.NDArray[np.floating],
    held_out: Figures,
    options: RankOptions,
) -> pl.DataFrame:
    """Return the ranked table of features that are already in order; every column of ``RANKED_COLUMNS``.

    Args:
        figures: Figures of the K features, float64 [K].
        sae: Number of each feature's SAE, int [K].
        feature: Its index, int [K].
        q_value: Its q-value, [K].
        saes: The recording's SAEs.
        chance: The null.
        density: Share of the recorded rows on which each fires, [K].
        held_out: Figures of the hold-out that only ranked features get, float64 [K] (``holdout_figures``).
        options: The filters.
    """
    own = [saes[number] for number in sae]
    observed = upward(figures["pearson_corr"], figures["falling"])
    values: dict[str, Any] = {
        "rank": np.arange(1, len(own) + 1),
        "layer": [s.layer for s in own],
        "average_l0": [s.average_l0 for s in own],
        "feature_id": feature,
        "neuronpedia_url": [s.neuronpedia_url(int(f)) for s, f in zip(own, feature, strict=True)],
        **{name: value for name, value in figures.items() if name in RANKED_COLUMNS},
        "monotonic": figures["monotonic"] > 0,
        "sae_id": [s.sae_id for s in own],
        "q_value": q_value,
        "p_max": chance.p_max(observed),
        "p_max_sae": chance.p_max_sae(observed, sae),
        **held_out,
        "density": density,
        "dense": density > DENSE,
        "direction": ["down" if f else "up" for f in figures["falling"]],
        "confounded": is_confounded(figures["pearson_corr"], figures["partial_corr"]),
        "release": [s.release for s in own],
        "slug": [s.slug for s in own],
    }
    table = pl.DataFrame(
        [
            pl.Series(name, values[name]).cast(kind)
            if name in values
            else pl.Series(name, [None] * len(own), dtype=kind)
            for name, kind in RANKED_COLUMNS.items()
        ]
    )
    table = table.with_columns(pl.col(pl.Float64).fill_nan(None))
    fails = ["; ".join(lacks(line, options)) or None for line in table.iter_rows(named=True)]
    return table.with_columns(pl.Series("fails", fails, dtype=pl.String))


def holdout_figures(columns: ItemColumns, design: Design) -> Figures:
    """Return what is computed on the hold-out for ranked features only, float64 [F] each; NaN where it has no items.

    The interval of the AUROC (highest grade against lowest), the concordance over all grades, and the AUROC of each two
    neighbouring grades, with their intervals: by group where there are groups, and below ½ where a feature falls.
    """
    held = design.holdout
    scores, labels, groups = columns.dense(design.n_items)[held], design.labels[held], design.groups[held]
    pair = np.isin(labels, (design.low, design.high))
    is_high = labels[pair] == design.high
    aurocs = [auroc_interval(scores[pair, f], is_high, groups[pair]) for f in range(columns.n_features)]
    over_all = [concordance(scores[:, f], labels, groups) for f in range(columns.n_features)]
    adjacent = [adjacent_aurocs(scores[:, f], labels, groups) for f in range(columns.n_features)]
    low_high = np.array([found[1:] for found in aurocs]).reshape(-1, 2)
    all_grades = np.array(over_all).reshape(-1, 3)
    steps = {
        f"auroc_{high}v{low}_holdout{part}": np.array(
            [found[high, low][i] if (high, low) in found else np.nan for found in adjacent]
        )
        for high, low in ADJACENT
        for i, part in enumerate(("", "_low", "_high"))
    }
    return steps | {
        "auroc_holdout_low": low_high[:, 0],
        "auroc_holdout_high": low_high[:, 1],
        "concordance_holdout": all_grades[:, 0],
        "concordance_holdout_low": all_grades[:, 1],
        "concordance_holdout_high": all_grades[:, 2],
    }


def lacks(line: Mapping[str, Any], options: RankOptions) -> list[str]:
    """Return what a feature lacked of the filters, one phrase each."""
    out = []
    sign = -1 if line["direction"] == "down" else 1
    if not sign * line["pearson_corr"] >= options.min_pearson:
        out.append(f"Pearson {line['pearson_corr']:.3f}, {options.min_pearson * sign:g} needed")
    if not line["monotonic"]:
        means = [line[f"mean_label_{grade}"] for grade in range(4)]
        out.append("means not monotonic (" + ", ".join("–" if m is None else f"{m:.3g}" for m in means) + ")")
    if not line["tpr"] >= options.min_tpr:
        out.append(f"tpr {line['tpr']:.3f}, {options.min_tpr:g} needed")
    if not line["fpr"] <= options.max_fpr:
        out.append(f"fpr {line['fpr']:.3f}, at most {options.max_fpr:g} allowed")
    return out
