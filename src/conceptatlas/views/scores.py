"""Score by rank, and what chance would give."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from conceptatlas.views.study_folder import Study

MAX_RANKS = 100_000


@dataclass(frozen=True)
class ScoreCurve:
    """The features' correlations, best first.

    Attributes:
        scores: Pearson on discovery in the direction in which each feature was judged, descending, float64 [R].
        holdout: The same features' Pearson on hold-out, float64 [R]; NaN where there is none.
        null: 95th percentile of the best correlation under permuted labels; None without permutations.
    """

    scores: npt.NDArray[np.float64]
    holdout: npt.NDArray[np.float64]
    null: float | None


def score_curve(study: Study) -> ScoreCurve | None:
    """Return the curve of a study's ranking; None without one, or where no feature fired."""
    if study.ranking is None or study.all_features is None:
        return None
    sign = pl.when(pl.col("direction") == "down").then(-1.0).otherwise(1.0)
    curve = (
        study.all_features.filter(pl.col("pearson_corr").is_not_null())
        .select((sign * pl.col("pearson_corr")).alias("score"), (sign * pl.col("pearson_holdout")).alias("holdout"))
        .top_k(MAX_RANKS, by="score")
        .sort("score", descending=True)
        .collect()
    )
    if not curve.height:
        return None
    null = study.ranking.null.get("pearson_95")
    return ScoreCurve(
        curve["score"].cast(pl.Float64).to_numpy(),
        curve["holdout"].cast(pl.Float64).fill_null(float("nan")).to_numpy(),
        None if null is None else float(null),
    )
