"""The control of a search: random directions, as many as the features searched, the best chosen as a real one is.

These are directions and a threshold, nothing more. The published control (Korznikov et al. 2026) freezes the decoder of
an SAE at random and trains the rest around it; that needs a training run, and is another thing: see `frozen_decoder`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from conceptatlas.ranking.baselines import Baseline, Contest
from conceptatlas.ranking.columns import ItemColumns
from conceptatlas.ranking.hidden import Pooled
from conceptatlas.ranking.kernels import F64
from conceptatlas.ranking.options import RankOptions
from conceptatlas.ranking.scoring import score_columns
from conceptatlas.ranking.search import in_order, passes

DRAWS = 5
NAME = "random directions"
_PER_TILE = 2048
# Random directions from which the threshold is read.
_SAMPLE = 512
# Of all directions, those of best correlation with the grade get every figure: the score is mostly that correlation.
_FINALISTS = 256

F32 = npt.NDArray[np.float32]


def draw_directions(count: int, width: int, rng: np.random.Generator) -> F32:
    """Return random unit vectors, float32 [count, width]."""
    weights = rng.standard_normal((count, width), dtype=np.float32)
    return weights / np.linalg.norm(weights, axis=1, keepdims=True)


def threshold_for(share: float, centred: F32, rng: np.random.Generator) -> float:
    """Return the threshold above which random directions are active on ``share`` of the items ``centred`` [n, D]."""
    sample = draw_directions(_SAMPLE, centred.shape[1], rng) @ centred.T
    return max(float(np.quantile(sample, 1 - min(max(share, 0.0), 1.0))), 0.0)


def _correlations(active: F32, labels: npt.NDArray[np.int64]) -> F32:
    """Return Pearson's correlation of each line of ``active`` [F, n] with the grades [n]; 0 where it is constant."""
    centred = (labels - labels.mean()).astype(np.float32)
    covariance = active @ centred
    spread = np.einsum("fn,fn->f", active, active) - len(labels) * active.mean(axis=1) ** 2
    some = spread > 1e-6
    return np.where(some, covariance / np.sqrt(np.where(some, spread, 1) * float(centred @ centred)), 0)


def best_random_direction(
    contest: Contest,
    pooled: Pooled,
    searched: Sequence[tuple[int, float]],
    options: RankOptions,
    rng: np.random.Generator,
) -> tuple[F64, float] | None:
    """Return (score of every item [N], AUROC on discovery) of the best of one draw; None where nothing is active.

    Args:
        contest: The items.
        pooled: The hidden states, pooled as the features are.
        searched: For each SAE of the site, how many features were searched, and the share of items that they are
            active on; as many directions are drawn, active as often.
        options: How the best is chosen: the best score among those that pass the filters, else the best score.
        rng: Where the directions come from.
    """
    design = contest.design
    inside = design.discovery
    centre = pooled.vectors[inside].mean(axis=0)
    x = (pooled.vectors[inside] - centre).astype(np.float32)
    kept, kept_threshold, kept_value = [], [], []
    for count, share in searched:
        threshold = threshold_for(share, x, rng)
        for start in range(0, count, _PER_TILE):
            weights = draw_directions(min(_PER_TILE, count - start), x.shape[1], rng)
            active = weights @ x.T
            active[active <= threshold] = 0
            value = _correlations(active, design.labels[inside])
            value = {"up": value, "down": -value}.get(options.direction, np.abs(value))
            best = np.argsort(-value, kind="stable")[:_FINALISTS]
            kept.append(weights[best])
            kept_threshold.append(np.full(len(best), threshold))
            kept_value.append(value[best])
    if not kept:
        return None
    order = np.argsort(-np.concatenate(kept_value), kind="stable")[:_FINALISTS]
    finalists: F64 = np.concatenate(kept)[order].astype(np.float64)
    scores = pooled.scores(finalists.T) - finalists @ centre
    scores = np.where(scores > np.concatenate(kept_threshold)[order], scores, 0.0)
    return _chosen(_as_columns(scores), scores, contest, options)


def _as_columns(scores: F64) -> ItemColumns:
    feature, item = np.nonzero(scores.T)
    counts = np.bincount(feature, minlength=scores.shape[1])
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return ItemColumns(indptr, item.astype(np.int32), scores[item, feature].astype(np.float32))


def _chosen(columns: ItemColumns, scores: F64, contest: Contest, options: RankOptions) -> tuple[F64, float] | None:
    figures = score_columns(columns, contest.design, direction=options.direction)
    usable = ~np.isnan(figures["interpretability_score"])
    if not usable.any():
        return None
    passed = passes(figures, options)
    lines = np.flatnonzero(passed if passed.any() else usable)
    best = lines[in_order(figures["interpretability_score"][lines], figures["pearson_corr"][lines])[0]]
    falls = bool(figures["falling"][best])
    found = float(figures["auroc"][best])
    return (-scores[:, best], 1 - found) if falls else (scores[:, best], found)


def random_directions(
    contest: Contest,
    pooled: Pooled,
    site: str,
    searched: Sequence[tuple[int, float]],
    options: RankOptions,
    *,
    pool: str,
    seed: Sequence[int],
    draws: int = DRAWS,
) -> Baseline | None:
    """Return the median over draws of the best random direction; see ``best_random_direction`` for the arguments.

    The figures and scores are those of the draw whose hold-out AUROC is the median (without a hold-out: whose AUROC on
    discovery is); the least and greatest of all draws stand in ``draws_min`` and ``draws_max``.
    """
    found = []
    for draw in range(draws):
        best = best_random_direction(contest, pooled, searched, options, np.random.default_rng([*seed, draw]))
        if best is not None:
            found.append(contest.entry("random_directions", NAME, best[0], best[1], site=site, pool=pool))
    if not found:
        return None
    values = [e.auroc_discovery if e.auroc_holdout is None else e.auroc_holdout for e in found]
    known = np.array([np.nan if value is None else value for value in values])
    middle = found[int(np.argsort(known, kind="stable")[(len(found) - 1) // 2])]
    count = sum(number for number, _ in searched)
    detail = (
        f"best of {count:,} random directions, active as often as the features; median of {len(found)} draws "
        f"({np.nanmin(known):.3f} to {np.nanmax(known):.3f})"
    )
    detail = "; ".join(part for part in (detail, pooled.detail) if part)
    low, high = float(np.nanmin(known)), float(np.nanmax(known))
    return replace(middle, detail=detail, draws=len(found), draws_min=low, draws_max=high)
