"""Label efficiency: how good each method is on the hold-out when only few discovery items are labelled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from conceptatlas.base.progress import progress_bar
from conceptatlas.ranking.baselines import PENALTIES, Baseline, Contest, rounded, standardised
from conceptatlas.ranking.comparisons import representatives
from conceptatlas.ranking.dense import logistic_direction, mean_difference, whitened_difference
from conceptatlas.ranking.kernels import F64
from conceptatlas.ranking.search import Source
from conceptatlas.ranking.sets import CANDIDATES, PER_SITE, greedy
from conceptatlas.ranking.strongest import Ref, Strongest, overall, strongest_features
from conceptatlas.ranking.text_baselines import TF_IDF, Texts, fit_text
from conceptatlas.statistics import auroc
from conceptatlas.statistics.logistic import fit_logistic

SEEDS = 5
FEWEST = 10

Items = npt.NDArray[np.int64]


def sizes_for(contest: Contest) -> list[int]:
    """Return how many items a grade are used: 10, 20, 40, … and all that the smaller grade has on discovery."""
    high = contest.is_high[contest.train]
    most, out = int(min(high.sum(), (~high).sum())), []
    size = FEWEST
    while size < most:
        out.append(size)
        size *= 2
    return [*out, most]


def draw_items(contest: Contest, size: int, rng: np.random.Generator) -> Items:
    """Return ``size`` training items of either grade, drawn without replacement, int64 [2·size], ascending."""
    high = contest.is_high[contest.train]
    sides = [rng.choice(contest.train[high == side], size, replace=False) for side in (True, False)]
    return np.sort(np.concatenate(sides))


def label_efficiency(
    source: Source,
    contest: Contest,
    texts: Texts,
    baselines: Sequence[Baseline],
    *,
    set_size: int = 5,
    seeds: int = SEEDS,
) -> list[dict[str, Any]]:
    """Return the hold-out AUROC of each method with few labels: a line for each method and number of items a grade.

    Every draw chooses anew, from its own items alone: the best feature of all SAEs (by standardised mean difference), a
    greedy set of ``set_size``, and each fit. Only the site of the dense probes is taken from all of discovery (the best
    there), which favours them.

    Args:
        source: The recording's scores.
        contest: The items.
        texts: All texts, [N].
        baselines: The baselines of the ranking, which say at which site the dense probes are best.
        set_size: Members of the set.
        seeds: Draws of each size, at least 5.

    Returns:
        Entries with ``method``, ``n_per_grade``, ``median``, ``low`` and ``high`` (least and greatest of the draws),
        ``draws``; nothing where the hold-out lacks a grade.
    """
    if len(np.unique(contest.is_high[contest.test])) < 2:
        return []
    sizes = sizes_for(contest)
    draws = [
        (size, draw_items(contest, size, np.random.default_rng([contest.seed, 7, size, seed])))
        for size in sizes
        for seed in range(seeds)
    ]
    items = [drawn for _, drawn in draws]
    found = _by_features(source, contest, items, set_size) | _by_directions(source, contest, items, baselines)
    options = TF_IDF["bag_of_words"][1]
    found["bag of words"] = [
        _held(contest, fit_text(texts, on, contest.is_high, contest.test, **options)) for on in items
    ]
    return [
        {
            "method": method,
            "n_per_grade": size,
            "median": float(np.median(own)),
            "low": min(own),
            "high": max(own),
            "draws": len(own),
        }
        for method, values in found.items()
        for size in sizes
        if (own := [value for (drawn, _), value in zip(draws, values, strict=True) if drawn == size])
    ]


def _held(contest: Contest, scores: F64) -> float:
    return auroc(rounded(scores), contest.is_high[contest.test])


def _by_features(source: Source, contest: Contest, draws: Sequence[Items], set_size: int) -> dict[str, list[float]]:
    by_site: dict[str, list[int]] = {}
    for number, sae in enumerate(source.recording.saes):
        if sae.control_of is not None:
            continue
        by_site.setdefault(sae.site, []).append(number)
    strongest: list[Strongest] = []
    with progress_bar("Label efficiency", len(by_site)) as bar:
        for numbers in by_site.values():
            strongest.append(strongest_features(source, contest, numbers, draws))
            bar.advance()
    single, sets = [], []
    for s, items in enumerate(draws):
        refs: list[Ref] = overall(strongest, s, CANDIDATES, PER_SITE)
        if not refs:
            single.append(0.5)
            sets.append(0.5)
            continue
        pairs = np.array(refs)
        dense = source.gather(pairs[:, 0], pairs[:, 1]).dense(contest.design.n_items).astype(np.float64)
        x, y = standardised(dense, items), contest.is_high[items]
        sign = np.sign(x[items][y, 0].mean() - x[items][~y, 0].mean())
        single.append(_held(contest, sign * x[contest.test, 0]))
        chosen = greedy(x[items], y, set_size)
        members = chosen[max(chosen)] if chosen else [0]
        sets.append(_held(contest, fit_logistic(x[items][:, members], y).scores(x[contest.test][:, members])))
    return {"best feature": single, f"set of {set_size}": sets}


def _by_directions(
    source: Source, contest: Contest, draws: Sequence[Items], baselines: Sequence[Baseline]
) -> dict[str, list[float]]:
    names = {"difference_of_means": mean_difference, "difference_of_means_whitened": whitened_difference}
    out: dict[str, list[float]] = {}
    for entry in representatives(baselines):
        if entry.baseline not in (*names, "logistic"):
            continue
        pooled = source.pooled_states(entry.site)
        if isinstance(pooled, str):
            continue
        values = []
        for items in draws:
            fit = names.get(entry.baseline) or logistic_direction(_penalty(contest, pooled.vectors, items))
            direction = fit(pooled.vectors[items], contest.is_high[items])
            values.append(_held(contest, pooled.scores(direction[:, None])[contest.test, 0]))
        out[entry.name] = values
    return out


def _penalty(contest: Contest, vectors: F64, items: Items) -> float:
    """Return the penalty of best AUROC by three folds over the items drawn (the strongest at a tie)."""
    y, x = contest.is_high[items], vectors[items]
    fold = np.zeros(len(items), dtype=np.int64)
    groups = contest.design.groups[items]
    units = np.unique(groups)
    order = np.random.default_rng([contest.seed, 8]).permutation(len(units))
    fold = (order % 3)[np.searchsorted(units, groups)]
    found = dict.fromkeys(PENALTIES, 0.0)
    for c in PENALTIES:
        for f in range(3):
            inside, outside = fold != f, fold == f
            if len(np.unique(y[inside])) == 2 and len(np.unique(y[outside])) == 2:
                direction = logistic_direction(c)(x[inside], y[inside])
                found[c] += auroc(rounded(x[outside] @ direction), y[outside])
    return max(found, key=lambda c: (round(found[c], 9), -c))
