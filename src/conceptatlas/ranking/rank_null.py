"""p-values of the highest grade against the lowest, by exchange of labels: Mann–Whitney's statistic for every feature.

The rank sum of the highest grade is compared with its own sums under exchanged labels, standardised by the variance that
the exchange gives it in closed form, and pooled over features active on like numbers of groups (``PooledNull``). Ranks are
doubled, hence whole numbers, and sums of them are exact: equal statistics are equal to the last bit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from conceptatlas.ranking.columns import ItemColumns
from conceptatlas.ranking.design import Design
from conceptatlas.ranking.kernels import F64, doubled_ranks
from conceptatlas.statistics.permutation import exchange
from conceptatlas.statistics.pooled import F32, PooledNull, stratum_of

Q_PERMUTATIONS = 1000
MIN_ACTIVE = 5
# So many statistics, at least this many permutations, are counted in full; the others only in the tail.
_BODY_STATISTICS, _LEAST_BODY = 1 << 26, 64
_FEATURES, _COLUMNS = 2048, 256
_EXACT_ITEMS = 4096  # up to here sums of doubled ranks are whole numbers below 2**24, which float32 holds


class RankNull:
    """The null of one search over ``n_features`` features; ``observe`` may be called from several threads."""

    def __init__(self, design: Design, n_features: int, rng: np.random.Generator, count: int = Q_PERMUTATIONS) -> None:
        """Draw ``count`` exchanges of the highest and lowest grade among the discovery items that have them."""
        self.design = design
        pair = design.discovery & np.isin(design.labels, (design.low, design.high))
        self.place = np.where(pair, np.cumsum(pair) - 1, -1)
        is_high = design.labels[pair] == design.high
        self.n = len(is_high)
        kind = np.float32 if self.n <= _EXACT_ITEMS else np.float64
        how = exchange(is_high, design.groups[pair])
        self.labels = np.concatenate([is_high[None], is_high[how.orders(count, rng)]]).T.astype(kind)
        self.body = min(count, max(_LEAST_BODY, _BODY_STATISTICS // max(n_features, 1)))
        self.pool = PooledNull()
        self._lay_out([c.members for c in how.classes], is_high.astype(np.float64))

    def _lay_out(self, classes: list[npt.NDArray[np.int64]], y: F64) -> None:
        """Note what mean and variance of a rank sum under exchange need: groups, their sizes, labels by class of size."""
        n_groups = sum(len(members) for members in classes)
        group = np.empty(self.n, dtype=np.int64)
        self.size_class = np.repeat(np.arange(len(classes)), [len(members) for members in classes])
        begin = 0
        self.share, self.between, self.within = (np.zeros(len(classes)) for _ in range(3))
        self.sizes, self.groups_of_class = np.zeros(len(classes)), np.zeros(len(classes))
        for c, members in enumerate(classes):
            k, s = members.shape
            group[members] = (begin + np.arange(k))[:, None]
            begin += k
            mean = y[members].mean(axis=1)
            self.share[c], self.sizes[c], self.groups_of_class[c] = mean.mean(), s, k
            self.between[c] = ((mean - mean.mean()) ** 2).sum() / (k - 1) if k > 1 else 0.0
            self.within[c] = s * (mean * (1 - mean)).mean() / (s - 1) if s > 1 else 0.0
        self.of_group = sp.csr_matrix((np.ones(self.n), (np.arange(self.n), group)), shape=(self.n, n_groups))

    def observe(self, columns: ItemColumns) -> tuple[F32, npt.NDArray[np.int64]]:
        """Count the null of a chunk's features and return their observed |z|, float32 [F], and stratum, int64 [F].

        |z| is NaN for features active on fewer than ``MIN_ACTIVE`` discovery items.
        """
        found = np.full(columns.n_features, np.nan, dtype=np.float32)
        stratum = np.zeros(columns.n_features, dtype=np.int64)
        columns = columns.keep(self.design.discovery[columns.items])
        tested = np.flatnonzero(columns.counts() >= MIN_ACTIVE)
        columns = columns.select(tested)
        columns = columns.keep(self.place[columns.items] >= 0)
        ranks = doubled_ranks(columns, self.n)
        shape = (columns.n_features, self.n)
        x = sp.csr_matrix((ranks, self.place[columns.items], columns.indptr), shape=shape)
        mean, scale, units = self._moments(x)
        stratum[tested] = stratum_of(units)
        x = x.astype(self.labels.dtype)
        for start in range(0, len(tested), _FEATURES):
            block = slice(start, start + _FEATURES)
            here = tested[block]
            for left in range(0, self.labels.shape[1], _COLUMNS):
                z = x[block] @ np.ascontiguousarray(self.labels[:, left : left + _COLUMNS])
                z -= mean[block, None].astype(z.dtype)
                np.abs(z, out=z)
                z *= scale[block, None].astype(z.dtype)
                if left == 0:
                    found[here] = z[:, 0]
                drawn = z[:, 1:] if left == 0 else z
                full = max(self.body - max(left - 1, 0), 0)
                self.pool.add(stratum[here], drawn[:, :full], drawn[:, full:])
        return found, stratum

    def _moments(self, x: sp.csr_matrix) -> tuple[F64, F64, npt.NDArray[np.int64]]:
        """Return mean and 1 / deviation of each rank sum under exchange, and the groups on which it is active, [F] each."""
        n_classes, n_features = len(self.share), x.shape[0]
        by_group = (x @ self.of_group).tocsr()
        feature = np.repeat(np.arange(n_features), np.diff(by_group.indptr))
        cell = feature * n_classes + self.size_class[by_group.indices]

        def added(values: F64, where: npt.NDArray[np.int64]) -> F64:
            return np.bincount(where, values, n_features * n_classes).astype(float).reshape(n_features, n_classes)

        sums, squares = added(by_group.data, cell), added(by_group.data**2, cell)
        class_of_item = self.size_class[self.of_group.indices]
        own = np.repeat(np.arange(n_features), np.diff(x.indptr)) * n_classes + class_of_item[x.indices]
        inside = added(x.data**2, own) - squares / self.sizes
        variance = (squares - sums**2 / self.groups_of_class) @ self.between + inside @ self.within
        varies = variance > 1e-9 * added(x.data**2, own).sum(axis=1)
        scale = np.where(varies, 1 / np.sqrt(np.where(varies, variance, 1)), 0)
        return sums @ self.share, scale, np.diff(by_group.indptr).astype(np.int64)

    def p_values(self, observed: npt.NDArray[np.floating], stratum: npt.NDArray[np.integer]) -> F64:
        """Return the two-sided p-value of each feature, float64 [F]; NaN where it was not tested."""
        return self.pool.p_values(observed, stratum)
