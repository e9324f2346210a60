"""Which labels may be exchanged with which under "the labels say nothing of the scores", and how.

Items of one group are not independent, so labels are not simply shuffled over items. One rule for all data: whole label
patterns are exchanged among groups of equal size, then labels are shuffled within each group. For items without groups
that is a plain shuffle; where labels are constant within groups, a shuffle of groups of equal size; where every group is
a pair of two labels (matched pairs), labels change sides within pairs only, since a pair's two labels are its design.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Exchange:
    """The exchangeable units of labelled items.

    Attributes:
        labels: Whole numbers, [n].
        group: Number of each item's group, 0 to G - 1, int64 [n].
        size_class: For each group the class of groups that it exchanges patterns with, int64 [G].
        unit: What is exchanged: ``items``, ``groups``, ``pairs``, or ``groups and the items within them``.
    """

    labels: npt.NDArray[np.int64]
    group: npt.NDArray[np.int64]
    size_class: npt.NDArray[np.int64]
    unit: str

    @classmethod
    def of(cls, labels: npt.NDArray[np.integer[Any]], groups: npt.NDArray[np.integer[Any]]) -> Exchange:
        """Find the units of items with ``labels`` [n] in ``groups`` [n]."""
        known, group = np.unique(groups, return_inverse=True)
        labels = labels.astype(np.int64)
        sizes = np.bincount(group, minlength=len(known))
        low, high = np.full(len(known), np.iinfo(np.int64).max), np.full(len(known), np.iinfo(np.int64).min)
        np.minimum.at(low, group, labels)
        np.maximum.at(high, group, labels)
        mixed = low != high
        if len(known) and (sizes == 2).all() and mixed.all():
            return cls(labels, group, np.arange(len(known)), "pairs")
        unit = "groups and the items within them" if mixed.any() else "groups"
        return cls(labels, group, sizes.astype(np.int64), "items" if (sizes == 1).all() else unit)

    @cached_property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Items of each group, int64 [G]."""
        return np.bincount(self.group, minlength=len(self.size_class)).astype(np.int64)

    @cached_property
    def _order(self) -> npt.NDArray[np.int64]:
        """Items, group by group in the order of the groups' numbers, int64 [n]."""
        return np.argsort(self.group, kind="stable")

    @cached_property
    def _classes(self) -> list[tuple[int, npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """(items of a group, items [g, s] of the class's groups, their labels [g, s]) of each class of groups."""
        starts = np.concatenate([[0], np.cumsum(self.sizes)])[:-1]
        out = []
        for which in np.unique(self.size_class):
            members = np.flatnonzero(self.size_class == which)
            size = int(self.sizes[members[0]])
            items = self._order[starts[members][:, None] + np.arange(size)]
            out.append((size, items, self.labels[items]))
        return out

    @property
    def n_units(self) -> int:
        """How many units can change their labels: groups with another pattern in their class, or with two labels."""
        count = 0
        for _, _, patterns in self._classes:
            ordered = np.sort(patterns, axis=1)
            if len(np.unique(ordered, axis=0)) > 1:
                count += len(ordered)
            else:
                count += int((ordered[:, 0] != ordered[:, -1]).sum())
        return count

    @property
    def log_arrangements(self) -> float:
        """Natural logarithm of the number of different arrangements of the labels."""
        total = 0.0
        for size, _, patterns in self._classes:
            ordered = np.sort(patterns, axis=1)
            _, counts = np.unique(ordered, axis=0, return_counts=True)
            total += math.lgamma(len(ordered) + 1) - sum(math.lgamma(c + 1) for c in counts.tolist())
            for pattern in ordered:
                _, same = np.unique(pattern, return_counts=True)
                total += math.lgamma(size + 1) - sum(math.lgamma(c + 1) for c in same.tolist())
        return total

    def draw(self, count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """Return ``count`` draws of exchanged labels, int64 [n, count]."""
        out = np.empty((len(self.labels), count), dtype=np.int64)
        for _, items, patterns in self._classes:
            order = rng.permuted(np.tile(np.arange(len(patterns)), (count, 1)), axis=1)
            drawn = rng.permuted(patterns[order], axis=2)
            out[items.ravel()] = drawn.reshape(count, -1).T
        return out

    def moments(self, chosen: npt.NDArray[np.bool_]) -> ExchangeMoments:
        """Return what the mean and variance of Σ x over items labelled ``chosen`` (bool [n]) are made of."""
        rate, between, within = np.zeros(len(self.labels)), np.zeros(len(self.labels)), np.zeros(len(self.labels))
        for size, items, _ in self._classes:
            hits = chosen[items].sum(axis=1).astype(np.float64)
            rate[items] = hits.mean() / size
            if len(items) > 1:
                between[items] = ((hits - hits.mean()) ** 2).sum() / (len(items) - 1) / size**2
            if size > 1:
                within[items] = (hits * (size - hits)).mean() / (size * (size - 1))
        return ExchangeMoments(rate, between, within)


@dataclass(frozen=True)
class ExchangeMoments:
    """Moments of T = Σ x_i h_i, h the exchanged 0/1 labels, by item, float64 [n] each.

    E T = Σ rate_i x_i. Var T = Σ over classes [between Σ_g (S_g − mean S)² + within Σ_g (Σ x² − S_g²/s)], S_g the sum of
    x over group g of size s: sampling without replacement of patterns among groups, and of labels within a group.
    """

    rate: F64
    between: F64
    within: F64
