"""The strongest items of each grade for the ranked features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from conceptatlas.base.ties import strongest_first
from conceptatlas.ranking.columns import ItemColumns
from conceptatlas.ranking.design import Design
from conceptatlas.ranking.kernels import N_GRADES
from conceptatlas.recording import RecordedSAE


def l0_text(l0: float) -> str:
    """Return an average L0 as it stands in names: ``82``, ``81.5``."""
    return f"{l0:g}"


def feature_key(sae: RecordedSAE, feature: int, saes: Sequence[RecordedSAE]) -> str:
    """Return ``layer_{layer}_l0_{l0}_feature_{id}``, with ``__{slug}`` where two SAEs share layer and L0."""
    sharing = Counter((other.layer, l0_text(other.average_l0)) for other in saes)
    name = f"layer_{sae.layer}_l0_{l0_text(sae.average_l0)}_feature_{feature}"
    return f"{name}__{sae.slug}" if sharing[sae.layer, l0_text(sae.average_l0)] > 1 else name


def feature_examples(
    ranked: pl.DataFrame,
    columns: ItemColumns,
    *,
    texts: Sequence[str],
    design: Design,
    saes: Sequence[RecordedSAE],
    per_label: int,
) -> dict[str, dict[str, Any]]:
    """Return the content of ``feature_examples.json``.

    For each ranked feature and grade, the items (of both sides of the split) on which it scores highest, strongest
    first, ties in the order of the items.

    Args:
        ranked: The ranked table, K lines.
        columns: Scores of the same K features.
        texts: The items' texts, [N].
        design: The items.
        saes: The recording's SAEs.
        per_label: Most examples of each grade.
    """
    by_slug = {sae.slug: sae for sae in saes}
    scores = columns.dense(design.n_items)
    out = {}
    for number, line in enumerate(ranked.iter_rows(named=True)):
        sae = by_slug[line["slug"]]
        out[feature_key(sae, line["feature_id"], saes)] = {
            "rank": line["rank"],
            "layer": line["layer"],
            "average_l0": line["average_l0"],
            "feature_id": line["feature_id"],
            "neuronpedia_url": line["neuronpedia_url"],
            "interpretability_score": line["interpretability_score"],
            "pearson_correlation": line["pearson_corr"],
            "tpr": line["tpr"],
            "fpr": line["fpr"],
            "sae_id": line["sae_id"],
            "slug": line["slug"],
            "examples_by_label": {
                str(grade): _strongest(scores[:, number], np.flatnonzero(design.labels == grade), texts, per_label)
                for grade in range(N_GRADES)
            },
        }
    return out


def _strongest(scores: np.ndarray, items: np.ndarray, texts: Sequence[str], count: int) -> list[dict[str, Any]]:
    chosen = items[strongest_first(scores[items])[:count]]
    return [{"sentence": texts[item], "activation": float(scores[item])} for item in chosen]
