"""What features cause: a table over the features, the map of detecting against writing, a panel in each card."""

from __future__ import annotations

from typing import Any

import polars as pl
from markupsafe import Markup

from conceptatlas.evidence import (
    BAR_FACTOR,
    MAX_KL_OTHER,
    MAX_LOSS_RISE,
    MIN_PERCENTILE,
    MIN_RISE,
    FeatureRef,
    answer_of,
)
from conceptatlas.views.html import render
from conceptatlas.views.sections import Panel, Section, panel, section
from conceptatlas.views.study_folder import Study
from conceptatlas.views.svg.doses import dose_response
from conceptatlas.views.svg.maps import Marked, detect_cause_map

OUTPUT_SCORES = "output_scores.parquet"


@section("effects", order=60)
def effects(study: Study) -> Section | None:
    """Every measured feature in one table: detection says nothing about cause."""
    found = study.effects
    if found is None:
        return None
    features = found["features"]
    answers = [answer_of(entry) for entry in features]
    groups = next((entry["n_groups"] for entry in features if entry["n_groups"]), None)
    in_groups = f" in {groups} groups" if groups else ""
    yes, limit = answers.count("yes"), answers.count("at the limit")
    return Section(
        title="What they cause",
        lead=f"Log-probability of the next tokens {', '.join(found['targets'])} when a feature's direction is added on "
        f"{found['items']['neutral']} hold-out items of the lowest grade{in_groups}. {yes} of {len(features)} measured "
        f"features pass every rule: at least {MIN_RISE:g} nats and {BAR_FACTOR:g} times what controls of the same "
        f"norm reach, an interval over items above 0, the {MIN_PERCENTILE:g}th percentile among tokens that were as likely "
        "to begin with, and damage within bounds."
        + (
            f" {limit} stand{'s' if limit == 1 else ''} at the limit: the interval holds {MIN_RISE:g} nats."
            if limit
            else ""
        ),
        body=render(
            "effects.html",
            features=list(zip(features, answers, strict=True)),
            strong=found["items"].get("strong"),
            picture=_map(study, found),
            max_kl=MAX_KL_OTHER,
            max_loss=MAX_LOSS_RISE,
            percentile=MIN_PERCENTILE,
        ),
    )


def _map(study: Study, found: dict[str, Any]) -> Markup:
    """Return the map of detecting against writing; nothing where there is no ranking or no output score."""
    path = study.file("effect", OUTPUT_SCORES)
    if path is None or study.all_features is None:
        return Markup("")
    scores = pl.scan_parquet(path)
    if "output_score" not in scores.collect_schema():
        return Markup("")
    table = study.all_features.collect()
    column = "auroc_holdout" if table["auroc_holdout"].count() else "auroc"
    on = "hold-out" if column == "auroc_holdout" else "all items"
    joined = (
        table.lazy()
        .select("slug", pl.col("feature_id").cast(pl.Int64), column)
        .join(scores.select("slug", "feature_id", "output_score"), on=["slug", "feature_id"], how="inner")
        .drop_nulls()
        .collect()
    )
    place = {(slug, feature): (x, y) for slug, feature, x, y in joined.iter_rows()}
    marked = [
        Marked(int(row["rank"]), *place[row["slug"], row["feature_id"]])
        for _, row in sorted(study.rows_by_rank.items())[:20]
        if (row.get("slug"), row["feature_id"]) in place
    ]
    return detect_cause_map(
        joined[column].to_numpy(),
        joined["output_score"].to_numpy(),
        marked,
        x_title=f"AUROC, top against lowest grade ({on})",
        y_title=f"output score: {', '.join(found['targets'][:3])}",
    )


@panel("effect", order=45)
def effect(study: Study, feature: FeatureRef) -> Panel | None:
    """One feature's dose–response, controls, promoted tokens and generated text."""
    found = study.effects
    if found is None:
        return None
    for entry in found["features"]:
        if entry["slug"] == feature.slug and entry["feature_id"] == feature.feature_id:
            return Panel(
                "What it causes", render("effect.html", entry=entry, picture=dose_response(entry)), shape="full"
            )
    return None
