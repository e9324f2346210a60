"""Stability: how often a ranked feature comes back when the items are split anew, and how far its rank wanders."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from conceptatlas.concepts import holdout_mask
from conceptatlas.ranking.columns import ItemColumns
from conceptatlas.ranking.design import Design
from conceptatlas.ranking.kernels import F64
from conceptatlas.ranking.options import RankOptions
from conceptatlas.ranking.scoring import score_columns
from conceptatlas.ranking.search import Found, passes, table_order

# With --holdout 0 the re-splits still leave something out.
DEFAULT_SHARE = 0.3
RIVALS = 400


@dataclass(frozen=True)
class Stability:
    """Figures of K features over R re-splits.

    Attributes:
        comes_back: Share of re-splits in which it is among the first ``top_n`` of the table again, float64 [K].
        rank_low: 5th percentile of its rank in those, float64 [K]; NaN where there is none.
        rank_high: 95th percentile.
    """

    comes_back: F64
    rank_low: F64
    rank_high: F64


def rivals(found: Found, lines: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Return ``lines`` and after them the best ``count`` other features by score, kept or not, int64 [K + ≤ count].

    A feature outside of these would have to climb past hundreds in a re-split; it is not looked at.
    """
    score = np.nan_to_num(found.table["interpretability_score"], nan=-np.inf)
    best = (
        np.argpartition(-score, min(count + len(lines), len(score)) - 1)[: count + len(lines)] if len(score) else lines
    )
    best = best[np.isfinite(score[best]) & ~np.isin(best, lines)]
    return np.concatenate([lines, best[np.argsort(-score[best], kind="stable")][:count]])


def resplit(design: Design, share: float, rng: np.random.Generator) -> Design | None:
    """Return the design under a new random split of its units; None where that leaves fewer than two grades."""
    hashes = rng.integers(0, 2**63, int(design.units.max()) + 1, dtype=np.uint64)[design.units]
    holdout = holdout_mask(design.labels, hashes, share=share)
    if len(np.unique(design.labels[~holdout])) < 2:
        return None
    return design.with_holdout(holdout)


def stability(
    columns: ItemColumns, n_shown: int, design: Design, options: RankOptions, rng: np.random.Generator
) -> Stability:
    """Return how the first ``n_shown`` features fare against all of ``columns`` over ``options.resplits`` re-splits."""
    share = options.holdout or DEFAULT_SHARE
    ranks = np.full((options.resplits, n_shown), np.nan)
    for r in range(options.resplits):
        again = resplit(design, share, rng)
        if again is None:
            continue
        figures = score_columns(columns, again, direction=options.direction)
        kept = passes(figures, options)
        order = table_order(kept, figures["interpretability_score"], figures["pearson_corr"], options.top_n)
        order = order[: options.top_n]
        place = np.full(columns.n_features, np.nan)
        place[order] = np.arange(1, len(order) + 1)
        ranks[r] = place[:n_shown]
    there = ~np.isnan(ranks)
    low, high = np.full(n_shown, np.nan), np.full(n_shown, np.nan)
    for k in np.flatnonzero(there.any(axis=0)):
        low[k], high[k] = np.percentile(ranks[there[:, k], k], (5, 95))
    return Stability(there.mean(axis=0) if options.resplits else np.full(n_shown, np.nan), low, high)
