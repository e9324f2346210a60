"""``--pool auto``: which pooling finds the better feature, judged by cross-validation on discovery."""

from __future__ import annotations

import numpy as np

from conceptatlas.ranking.columns import ItemColumns
from conceptatlas.ranking.design import Design
from conceptatlas.ranking.options import RankOptions
from conceptatlas.ranking.scoring import score_columns
from conceptatlas.ranking.search import in_order, passes
from conceptatlas.statistics import auroc
from conceptatlas.statistics.folds import group_folds


def cross_validated(columns: ItemColumns, design: Design, options: RankOptions) -> float:
    """Return the mean AUROC, on folds left out of discovery, of the feature that is best on the rest.

    In each fold the best feature is chosen from ``columns`` (one that passes the filters, where there is one) without
    the fold's items. Hold-out items are never looked at. NaN where no fold can be judged.
    """
    inside = np.flatnonzero(design.discovery)
    rng = np.random.default_rng([options.seed, 3])
    fold = group_folds(design.labels[inside], design.groups[inside], rng)
    found = []
    for f in np.unique(fold):
        out = np.zeros(design.n_items, dtype=bool)
        out[inside[fold == f]] = True
        if len(np.unique(design.labels[design.discovery & ~out])) < 2:
            continue
        figures = score_columns(columns, design.with_holdout(design.holdout | out), direction=options.direction)
        kept = passes(figures, options)
        usable = np.flatnonzero(kept if kept.any() else ~np.isnan(figures["interpretability_score"]))
        if not len(usable):
            continue
        best = usable[in_order(figures["interpretability_score"][usable], figures["pearson_corr"][usable])[0]]
        sign = -1.0 if figures["falling"][best] else 1.0
        scores = sign * columns.select(np.array([best])).dense(design.n_items)[:, 0]
        pair = out & np.isin(design.labels, (design.low, design.high))
        found.append(auroc(scores[pair], design.labels[pair] == design.high))
    found = [value for value in found if not np.isnan(value)]
    return float(np.mean(found)) if found else float("nan")
