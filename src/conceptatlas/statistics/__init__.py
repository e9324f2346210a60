"""Placeholder of this branch: replaced by the statistics room at the merge."""

from __future__ import annotations

import numpy as np

from conceptatlas.ranking.interval import Interval, auroc_interval


def concordance(scores, grades, groups=None, *, confidence=0.95):
    """C-index over pairs of different grade."""
    won = total = 0.0
    for high in np.unique(grades):
        for low in np.unique(grades[grades < high]):
            found = auroc_interval(scores[np.isin(grades, (low, high))], grades[np.isin(grades, (low, high))] == high)
            pairs = (grades == high).sum() * (grades == low).sum()
            won, total = won + found.auroc * pairs, total + pairs
    c = won / total if total else np.nan
    return Interval(c, c, c)


def adjacent_aurocs(scores, grades, groups=None, *, confidence=0.95):
    """AUROC of neighbouring grades."""
    out = {}
    present = np.unique(grades)
    for low, high in zip(present[:-1], present[1:], strict=True):
        own = np.isin(grades, (low, high))
        out[int(high), int(low)] = auroc_interval(
            scores[own], grades[own] == high, None if groups is None else groups[own]
        )
    return out


def holm(p_values):
    """Holm's step-down p-values, in the order given."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    out = np.empty(len(p))
    out[order] = np.minimum(stepped, 1)
    return out
