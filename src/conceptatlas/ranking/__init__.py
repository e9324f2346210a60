"""Ranking: every feature of a recording scored against the concept, beside chance and the baselines."""

from conceptatlas.ranking.compare import compare_rankings
from conceptatlas.ranking.cross import CrossConcepts, cross_concepts
from conceptatlas.ranking.options import RankOptions
from conceptatlas.ranking.result import Ranking, best_baselines
from conceptatlas.ranking.run import rank
from conceptatlas.statistics import auroc_interval

__all__ = [
    "CrossConcepts",
    "RankOptions",
    "Ranking",
    "auroc_interval",
    "best_baselines",
    "compare_rankings",
    "cross_concepts",
    "rank",
]
