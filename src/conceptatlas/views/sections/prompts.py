"""Chat prompts: features × labels as a heat map, and the prompts that most and least activate each followed feature."""

from __future__ import annotations

from typing import Any

import polars as pl

from conceptatlas.base.ties import strongest_first
from conceptatlas.views.html import render
from conceptatlas.views.sections import Section, section
from conceptatlas.views.study_folder import Study

SHOWN_FEATURES = 12
SHOWN_PROMPTS = 3
STEPS = 9  # shades of the heat map, classes w0 to w9


@section("prompts", order=80)
def prompts(study: Study) -> Section | None:
    """What the assistant's own tokens carry."""
    folder = study.stages.get("prompts")
    if folder is None:
        return None
    # Late: it brings torch along, which takes seconds, and most studies have no such part.
    from conceptatlas.prompts.stage import CONTRAST_FILE, SPECIFIC_FILE, UNIVERSAL_FILE, read_tables

    tables = read_tables(folder)
    if UNIVERSAL_FILE not in tables:
        return None
    universal = tables[UNIVERSAL_FILE]
    contrast = tables.get(CONTRAST_FILE)
    labels = [] if contrast is None else [c.removeprefix("mean_") for c in contrast.columns if c.startswith("mean_")]
    told = 0 if contrast is None else contrast.filter(pl.col("q_value") <= 0.05).height
    return Section(
        title="Chat prompts",
        lead=f"{universal.height} features (counted by source and token) are active on many prompts at the tokens where "
        f"the assistant is about to speak; {told} tell the labels apart (q ≤ 0.05).",
        body=render(
            "prompts.html",
            labels=labels,
            rows=[] if contrast is None else heat_rows(contrast, labels),
            followed=followed_features(tables.get(SPECIFIC_FILE)),
        ),
    )


def heat_rows(contrast: pl.DataFrame, labels: list[str]) -> list[dict[str, Any]]:
    """Return the rows of the heat map: each feature's mean activation by label, shaded by its share of the row's largest."""
    rows = []
    for row in contrast.unique(["feature_id", "source"], maintain_order=True).head(SHOWN_FEATURES).to_dicts():
        means = [float(row[f"mean_{label}"]) for label in labels]
        top = max([*means, 1e-12])
        cells = [(mean, round(STEPS * max(0.0, mean) / top)) for mean in means]
        rows.append({"feature": row["feature_id"], "source": row["source"], "token": row["token"], "cells": cells,
                     "q_value": row["q_value"]})  # fmt: skip
    return rows


def followed_features(specific: pl.DataFrame | None) -> list[dict[str, Any]]:
    """Return for each followed feature the prompts that most and least activate it, at its strongest token type."""
    if specific is None:
        return []
    found = []
    for (source, feature), rows in specific.group_by("source", "feature_id", maintain_order=True):
        token = rows.group_by("token", maintain_order=True).agg(pl.col("activation").mean())
        best = token["token"][int(strongest_first(token["activation"].to_numpy())[0])]
        ordered = rows.filter(pl.col("token") == best)
        ordered = ordered[strongest_first(ordered["activation"].to_numpy())]
        found.append({"source": source, "feature": feature, "token": best, "most": ordered.head(SHOWN_PROMPTS).to_dicts(),
                      "least": ordered.tail(SHOWN_PROMPTS).to_dicts()})  # fmt: skip
    return found[:SHOWN_FEATURES]
