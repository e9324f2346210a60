"""Statistics over arrays, with no knowledge of models or files: AUROC, concordance, paired tests, permutations."""

from conceptatlas.statistics.auroc import F64, auroc, mid_ranks
from conceptatlas.statistics.concordance import (
    Concordance,
    Interval,
    adjacent_aurocs,
    auroc_interval,
    concordance,
)
from conceptatlas.statistics.multiple import benjamini_hochberg, holm
from conceptatlas.statistics.paired import Difference, paired_difference
from conceptatlas.statistics.permutation import Exchange, exchange
from conceptatlas.statistics.pooled import PooledNull

__all__ = [
    "F64",
    "Concordance",
    "Difference",
    "Exchange",
    "Interval",
    "PooledNull",
    "adjacent_aurocs",
    "auroc",
    "auroc_interval",
    "benjamini_hochberg",
    "concordance",
    "exchange",
    "holm",
    "mid_ranks",
    "paired_difference",
]
