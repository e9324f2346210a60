"""Of the features beyond chance on discovery: how many hold on the hold-out."""

from __future__ import annotations

import numpy as np
import polars as pl

from conceptatlas.ranking.design import Design
from conceptatlas.ranking.search import Found, Source, gather
from conceptatlas.ranking.summary import SIGNIFICANT
from conceptatlas.ranking.tables import upward
from conceptatlas.statistics import auroc_interval

# An interval takes a third of a millisecond; of more features than this the closest followers of the grade are looked at.
MOST = 2000


def beyond_chance(source: Source, found: Found, design: Design, p_max: pl.Series) -> dict[str, int]:
    """Return how many features exceed chance, how many were looked at (``held_of``), and how many of them hold (``holds``).

    A feature holds where the 95% interval of its hold-out AUROC (highest grade against lowest, by group) lies beyond ½ in
    the direction in which it was judged.

    Args:
        source: The recording's scores.
        found: What the search found, K lines.
        design: The items.
        p_max: Of each line, [K]; null without permutations.

    Returns:
        ``beyond_chance`` alone where the hold-out lacks one of the two grades.
    """
    lines = np.flatnonzero((p_max.fill_null(1) <= SIGNIFICANT).to_numpy())
    counts = {"beyond_chance": len(lines)}
    pair = design.holdout & np.isin(design.labels, (design.low, design.high))
    is_high, groups = design.labels[pair] == design.high, design.groups[pair]
    if not is_high.any() or is_high.all():
        return counts
    closest = np.argsort(-upward(found.table["pearson_corr"][lines], found.table["falling"][lines]), kind="stable")[
        :MOST
    ]
    lines = lines[closest]
    falling = found.table["falling"][lines] > 0
    scores = gather(source, found, lines).dense(design.n_items)[pair].astype(np.float64)
    lows = [
        auroc_interval(-scores[:, f] if falling[f] else scores[:, f], is_high, groups)[1] for f in range(len(lines))
    ]
    return counts | {"held_of": len(lines), "holds": sum(low > 0.5 for low in lows)}
