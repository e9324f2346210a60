"""Statistics: ranks, AUROC, concordance, intervals, paired differences, permutations, corrections for many tests."""

from conceptatlas.statistics.auroc import Interval, auroc, auroc_interval, mid_ranks, placements, score_bounds
from conceptatlas.statistics.concordance import adjacent_aurocs, concordance
from conceptatlas.statistics.exchange import Exchange
from conceptatlas.statistics.paired import Difference, holm, paired_difference

__all__ = [
    "Difference",
    "Exchange",
    "Interval",
    "adjacent_aurocs",
    "auroc",
    "auroc_interval",
    "concordance",
    "holm",
    "mid_ranks",
    "paired_difference",
    "placements",
    "score_bounds",
]
