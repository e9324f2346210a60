"""Which features serve two concepts: two rankings side by side."""

from __future__ import annotations

import os

import polars as pl

from conceptatlas.base.errors import InputError
from conceptatlas.ranking.result import Ranking

KEY = ["slug", "feature_id"]
FIGURES = ["interpretability_score", "pearson_corr", "auroc_holdout", "p_max"]


def compare_rankings(a: Ranking | str | os.PathLike[str], b: Ranking | str | os.PathLike[str]) -> pl.DataFrame:
    """Return the features that at least one of two rankings shows, with their figures in both.

    ``serves`` is ``both`` where the feature passed the filters of both rankings, else ``a`` or ``b``; ``rank_a`` and
    ``rank_b`` are null where the feature does not pass that ranking's filters. First those that serve both, by the lower of
    their two scores; then the others, by the score in their own ranking.

    Args:
        a: A ranking, or its folder.
        b: Another, of the same SAEs.

    Raises:
        InputError: They have no SAE in common.
    """
    first, second = (r if isinstance(r, Ranking) else Ranking.open(r) for r in (a, b))
    common = set(first.all["slug"].unique()) & set(second.all["slug"].unique())
    if first.all.height and second.all.height and not common:
        raise InputError(
            "The two rankings have no SAE in common; compare rankings of recordings that were made with the same SAEs."
        )
    keys = pl.concat([r.all.filter("kept").select(KEY) for r in (first, second)]).unique(maintain_order=True)
    table = keys.join(_one(first, "a"), on=KEY, how="left").join(_one(second, "b"), on=KEY, how="left")
    in_a, in_b = (pl.col(f"kept_{side}").fill_null(value=False) for side in "ab")
    serves = pl.when(in_a & in_b).then(pl.lit("both")).when(in_a).then(pl.lit("a")).otherwise(pl.lit("b"))
    score_a, score_b = (pl.col(f"interpretability_score_{side}") for side in "ab")
    table = table.with_columns(
        serves.alias("serves"),
        pl.coalesce("layer_a", "layer_b").alias("layer"),
        pl.coalesce("sae_id_a", "sae_id_b").alias("sae_id"),
    ).with_columns(
        pl.when(pl.col("serves") == "both")
        .then(pl.min_horizontal(score_a, score_b))
        .otherwise(pl.when(pl.col("serves") == "a").then(score_a).otherwise(score_b))
        .alias("_order")
    )
    table = table.sort(
        pl.col("serves") != "both", -pl.col("_order"), *KEY, maintain_order=True
    )  # false sorts before true
    shown = ["serves", "layer", "sae_id", *KEY]
    for name in ("rank", *FIGURES):
        shown += [f"{name}_a", f"{name}_b"]
    return table.select(shown)


def _one(ranking: Ranking, side: str) -> pl.DataFrame:
    ranks = ranking.features.filter(pl.col("fails").is_null()).select(*KEY, "rank")
    table = ranking.all.select(*KEY, "layer", "sae_id", "kept", *FIGURES).join(ranks, on=KEY, how="left")
    return table.rename({name: f"{name}_{side}" for name in table.columns if name not in KEY})
