"""p-values of single features by permutation, fine enough for a correction over millions of them.

The statistic is the rank sum of the highest grade against the lowest on discovery (Mann & Whitney 1947), standardised by
its exact mean and variance under the exchange of labels that groups and pairs allow. A feature's own permutations would
give nothing below 1/(1 + P). So standardised permutation statistics are pooled over the features that are active on like
many items, whose distributions are alike (sparse ones are skewed and lumpy, dense ones near normal), and a feature's
p-value is the share of its stratum's pool that is as far out on its side, doubled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from conceptatlas.ranking.columns import ItemColumns
from conceptatlas.ranking.design import Design
from conceptatlas.ranking.kernels import F64, rank_deviations
from conceptatlas.statistics import Exchange
from conceptatlas.statistics.exchange import ExchangeMoments

F32 = npt.NDArray[np.float32]

MIN_ACTIVE = 5
# Pooled statistics aimed at, and the bounds of the draws that give them.
_POOL = 40_000_000
_LEAST_DRAWS, _MOST_DRAWS = 100, 10_000
# Up to so many active items every number is a stratum of its own; beyond, each stratum reaches a tenth further.
_EXACT, _STEP = 20, 1.1
_FEATURES, _DRAWS = 2048, 256
# Standardised statistics are counted in bins of this width, up to ± this many deviations.
_BIN, _REACH = 1 / 256, 32.0
N_BINS = int(2 * _REACH / _BIN)
# Sums run in float32: a statistic that a permutation gives again must not miss it by a rounding.
_SLACK = 1e-4


@dataclass(frozen=True)
class RankTest:
    """The draws and moments of one search.

    Attributes:
        items: The discovery items of highest and lowest grade, int64 [n].
        place: Number of each item among them, -1 elsewhere, int64 [N].
        highs: 1 where a draw labels an item as of the highest grade, float32 [n, P].
        is_high: The real labels, bool [n].
        group: Number of each item's group, int64 [n].
        moments: Of the exchange.
        group_sizes: Items of each group, float64 [G].
        class_of_group: Class of each group, int64 [G].
    """

    items: npt.NDArray[np.int64]
    place: npt.NDArray[np.int64]
    highs: F32
    is_high: npt.NDArray[np.bool_]
    group: npt.NDArray[np.int64]
    moments: ExchangeMoments
    group_sizes: F64
    class_of_group: npt.NDArray[np.int64]

    @classmethod
    def of(cls, design: Design, n_features: int, rng: np.random.Generator) -> RankTest:
        """Draw for a search over ``n_features`` features."""
        pair = design.discovery & np.isin(design.labels, (design.low, design.high))
        items = np.flatnonzero(pair)
        place = np.full(design.n_items, -1, dtype=np.int64)
        place[items] = np.arange(len(items))
        is_high = design.labels[items] == design.high
        exchange = Exchange.of(is_high.astype(np.int64), design.groups[items])
        draws = int(np.clip(_POOL // max(n_features, 1), _LEAST_DRAWS, _MOST_DRAWS))
        highs = exchange.draw(draws, rng).astype(np.float32)
        _, classes = np.unique(exchange.size_class, return_inverse=True)
        return cls(
            items, place, highs, is_high, exchange.group, exchange.moments(is_high),
            exchange.sizes.astype(np.float64), classes.astype(np.int64),
        )  # fmt: skip


def n_strata(n_items: int) -> int:
    """Return how many strata of active items there are for ``n_items`` items."""
    return int(stratum_of(np.array([n_items]))[0]) + 1


def stratum_of(n_active: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Return the stratum of each number of active items, int64."""
    above = np.maximum(n_active, _EXACT).astype(np.float64)
    return np.where(n_active <= _EXACT, n_active, _EXACT + np.ceil(np.log(above / _EXACT) / np.log(_STEP))).astype(
        np.int64
    )


def rank_statistics(
    columns: ItemColumns, n_active: npt.NDArray[np.integer], test: RankTest
) -> tuple[F64, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return (standardised statistics [F], strata [F], counts of the pool [strata, bins]).

    Features that are active on fewer than ``MIN_ACTIVE`` discovery items (``n_active`` [F]) are not tested (NaN). One whose
    statistic cannot vary has 0: it is on nobody's side.
    """
    pair = columns.keep(test.place[columns.items] >= 0)
    deviations = rank_deviations(pair, len(test.items))
    matrix = sp.csr_matrix(
        (deviations, test.place[pair.items], pair.indptr), shape=(columns.n_features, len(test.items))
    )
    mean, spread = _moments(matrix, test)
    tested = n_active >= MIN_ACTIVE
    statistic = np.where(tested, 0.0, np.nan)
    lines = np.flatnonzero(tested & (spread > 0))
    statistic[lines] = (matrix[lines] @ test.is_high.astype(np.float64) - mean[lines]) / spread[lines]
    strata = stratum_of(pair.counts())
    return statistic, strata, _counted(matrix[lines], mean[lines], spread[lines], strata[lines], test)


def _moments(matrix: sp.csr_matrix, test: RankTest) -> tuple[F64, F64]:
    """Return mean and deviation of each feature's statistic under the exchange, float64 [F] each."""
    rate, between, within = test.moments.rate, test.moments.between, test.moments.within
    n_groups, n_classes = len(test.group_sizes), int(test.class_of_group.max(initial=-1)) + 1
    ones = np.ones(len(test.group))
    to_group = sp.csr_matrix((ones, (np.arange(len(test.group)), test.group)), shape=(len(test.group), n_groups))
    sums = (matrix @ to_group).tocsr()
    to_class = sp.csr_matrix(
        (np.ones(n_groups), (np.arange(n_groups), test.class_of_group)), shape=(n_groups, n_classes)
    )
    of_class = np.zeros((n_classes, 3))  # groups, between and within of each class (equal for all of its items)
    of_class[:, 0] = np.bincount(test.class_of_group, minlength=n_classes)
    of_class[test.class_of_group[test.group], 1] = between
    of_class[test.class_of_group[test.group], 2] = within
    squared = sums.multiply(sums).tocsr()
    total, square = np.asarray((sums @ to_class).todense()), np.asarray((squared @ to_class).todense())
    across = (square - total**2 / of_class[:, 0]) @ of_class[:, 1]
    items_squared = matrix.multiply(matrix).tocsr()
    inner = items_squared @ within - squared @ (of_class[test.class_of_group, 2] / test.group_sizes)
    variance = across + inner
    # Below this it is rounding: the exchange cannot change the statistic.
    varies = variance > 1e-9 * np.asarray(items_squared.sum(axis=1)).ravel()
    return matrix @ rate, np.sqrt(np.where(varies, variance, 0.0))


def _counted(
    matrix: sp.csr_matrix, mean: F64, spread: F64, strata: npt.NDArray[np.int64], test: RankTest
) -> npt.NDArray[np.int64]:
    counts = np.zeros(n_strata(len(test.items)) * N_BINS, dtype=np.int64)
    scaled = sp.diags_array(1 / spread).tocsr() @ matrix if len(spread) else matrix
    scaled = scaled.astype(np.float32).tocsr()
    shift = (mean / np.where(spread > 0, spread, 1)).astype(np.float32)
    for start in range(0, matrix.shape[0], _FEATURES):
        rows = slice(start, start + _FEATURES)
        base = strata[rows, None] * N_BINS
        for left in range(0, test.highs.shape[1], _DRAWS):
            drawn = scaled[rows] @ np.ascontiguousarray(test.highs[:, left : left + _DRAWS]) - shift[rows, None]
            counts += np.bincount((base + bin_of(drawn)).ravel(), minlength=len(counts))
    return counts.reshape(-1, N_BINS)


def bin_of(statistic: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """Return the bin of each standardised statistic."""
    return np.clip(np.floor((statistic + _REACH) / _BIN), 0, N_BINS - 1).astype(np.int64)


def pooled_p(statistic: F64, strata: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> F64:
    """Return the two-sided p-value of each standardised statistic against the pool of its stratum, float64 [F].

    Twice (1 + draws at least as far out on its side) / (1 + draws), at most 1; a bin that holds the statistic counts
    wholly, so that the p-value is never too small. NaN where the statistic is.
    """
    above = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]
    below = np.cumsum(counts, axis=1)
    total = counts.sum(axis=1)
    known = ~np.isnan(statistic)
    out = np.full(len(statistic), np.nan)
    z, own = statistic[known], strata[known]
    beyond = np.where(z >= 0, above[own, bin_of(z - _SLACK)], below[own, bin_of(z + _SLACK)])
    out[known] = np.minimum(2 * (1 + beyond) / (1 + total[own]), 1.0)
    return out
