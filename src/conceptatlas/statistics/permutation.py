"""Labels exchanged under the null: among whole groups of equal size, then within groups.

If scores know nothing of the labels, groups of one size could have had each other's labels, and so could the items of one
group. These exchanges form a group of permutations, so that a test which compares with them is exact whatever the
dependence between items of a group (Lehmann & Romano 2005, ch. 15). An item without a group is a group of size 1. Where
all groups of size 2 are matched pairs (two different labels), they are exchanged within pairs only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SizeClass:
    """All groups of one size.

    Attributes:
        members: int64 [k, s], the items of each group.
        pairs: Whether labels are exchanged within groups only (matched pairs).
    """

    members: Ints
    pairs: bool


@dataclass(frozen=True)
class Exchange:
    """How the labels of N items may be exchanged.

    Attributes:
        classes: The groups by size.
        unit: ``items``, ``groups``, ``pairs`` or ``groups and items within them``.
        n_units: Items, groups or pairs whose labels can change (groups, for the last).
        log_arrangements: Natural logarithm of the number of distinct arrangements of the labels.
    """

    classes: tuple[SizeClass, ...]
    unit: str
    n_units: int
    log_arrangements: float

    @property
    def smallest_p(self) -> float:
        """The smallest p-value that these exchanges can give, however many are drawn."""
        return float(np.exp(-self.log_arrangements))

    def orders(self, count: int, rng: np.random.Generator) -> Ints:
        """Return, for each of ``count`` exchanges, the item whose label each item receives, int64 [count, N]."""
        n = sum(c.members.size for c in self.classes)
        out = np.empty((count, n), dtype=np.int64)
        for c in self.classes:
            k, s = c.members.shape
            source = np.broadcast_to(np.arange(k), (count, k))
            if not c.pairs:
                source = rng.permuted(source, axis=1)
            given = c.members[source]
            if s > 1:
                given = rng.permuted(given, axis=2)
            out[:, c.members.ravel()] = given.reshape(count, -1)
        return out


def exchange(labels: npt.NDArray[np.generic], groups: npt.NDArray[np.integer[Any]] | None = None) -> Exchange:
    """Return how ``labels`` [N] may be exchanged, given the group of each item, int [N] (None: each its own)."""
    _, label = np.unique(labels, return_inverse=True)
    group = np.arange(len(label)) if groups is None else np.unique(groups, return_inverse=True)[1]
    order = np.argsort(group, kind="stable")
    sizes = np.bincount(group)
    starts = np.cumsum(sizes) - sizes
    classes, movable, mixed, log_count = [], [], False, 0.0
    for size in np.unique(sizes):
        members = order[starts[sizes == size][:, None] + np.arange(size)]
        patterns = np.sort(label[members], axis=1)
        differs = patterns[:, 0] != patterns[:, -1]
        pairs = bool(size == 2 and differs.all())
        kinds = np.unique(patterns, axis=0, return_counts=True)[1]
        classes.append(SizeClass(members, pairs))
        between = len(kinds) > 1 and not pairs
        movable.append(differs | between)
        mixed |= bool(differs.any())
        if between:
            log_count += float(gammaln(len(members) + 1) - gammaln(kinds + 1).sum())
        log_count += sum(_log_orders(pattern) for pattern in patterns[differs])
    if len(sizes) == len(label):
        unit = "items"
    elif all(c.pairs for c in classes):
        unit = "pairs"
    else:
        unit = "groups and items within them" if mixed else "groups"
    return Exchange(tuple(classes), unit, int(sum(m.sum() for m in movable)), log_count)


def _log_orders(pattern: npt.NDArray[np.integer[Any]]) -> float:
    """Return the logarithm of the number of distinct orders of a group's labels."""
    return float(gammaln(len(pattern) + 1) - gammaln(np.bincount(pattern) + 1).sum())
