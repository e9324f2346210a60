"""Which items belong together, so that the split never parts a text from its copy.

Twins are equal but for case, punctuation, white space and Unicode form (NFKC). Items of one group and twins are joined, and
what is joined to the same item is joined too (connected components). Near-duplicates are joined on top of that, on request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from conceptatlas.concepts.similarity import near_pairs, normalised

# Jaccard indices at which groups are joined. 0.8 finds all 120 variants that each built-in set has, and joins nothing else;
# a chain that is too long at the first level is tried again at the next.
LEVELS = (0.8, 0.9)
# Longer chains are sentences of one template, not copies: of groups joined into one, at most so many, ...
MOST_JOINED = 20
# ... and at most this share of all groups (but always as many as LEAST_JOINED).
SHARE_JOINED = 0.25
LEAST_JOINED = 4

Ints = npt.NDArray[np.int64]


def components(n: int, first: Ints, second: Ints) -> Ints:
    """Return which connected component each of ``n`` nodes belongs to, int64 [n], by the edges first[i]–second[i]."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(n, n))
    found: Ints = connected_components(edges, directed=False)[1].astype(np.int64)
    return found


def joined_groups(texts: Sequence[str], groups: Sequence[str | None]) -> list[str]:
    """Return each item's group, [N]: items of one group and twins have the same.

    A component is called by the smallest of its groups' names; where it has none, by the smallest of its texts, as
    ``text:<text>``. So the name hangs neither on the order of the items nor on what else the data holds.
    """
    own = [group or f"text:{text}" for group, text in zip(groups, texts, strict=True)]
    by_name = _numbers(own)
    twins = _numbers([normalised(text) for text in texts])
    part = components(2 * len(texts), by_name, len(texts) + twins)[by_name] if texts else by_name
    names: dict[int, tuple[bool, str]] = {}
    for number, group, name in zip(part.tolist(), groups, own, strict=True):
        names[number] = min(names.get(number, (True, name)), (not group, name))
    return [names[number][1] for number in part.tolist()]


def _numbers(names: Sequence[str]) -> Ints:
    """Number the names in the order in which they come first, int64 [N]."""
    seen: dict[str, int] = {}
    return np.array([seen.setdefault(name, len(seen)) for name in names], dtype=np.int64)


def torn_items(groups: Sequence[str], splits: Sequence[str | None]) -> list[tuple[int, int]]:
    """Return (hold-out item, an item of its group that is called discovery) for each item that the data's split tears."""
    discovery: dict[str, int] = {}
    for item, (group, split) in enumerate(zip(groups, splits, strict=True)):
        if split == "discovery":
            discovery.setdefault(group, item)
    held = (item for item, split in enumerate(splits) if split == "holdout")
    return [(item, discovery[groups[item]]) for item in held if groups[item] in discovery]


def whole_splits(groups: Sequence[str], splits: Sequence[str | None]) -> list[str | None]:
    """Return the splits, [N]; an item without one gets that of its group, if an item of the group has one."""
    said = {group: split for group, split in zip(groups, splits, strict=True) if split}
    return [split or said.get(group) for group, split in zip(groups, splits, strict=True)]


@dataclass(frozen=True)
class NearGroups:
    """What joining near-duplicates did.

    Attributes:
        groups: Each item's group, [N].
        n_pairs: Pairs of near-duplicate texts that stood in different groups.
        n_joined: Groups that were joined with another.
        n_items: Items of these.
        largest: Items of the largest group that was made.
        n_long: Groups left apart because they would make too long a chain (sentences of one template).
        n_torn: Groups left apart because the data's own split puts them on both sides.
        complete: False where the search stopped at its limit.
    """

    groups: list[str]
    n_pairs: int
    n_joined: int
    n_items: int
    largest: int
    n_long: int
    n_torn: int
    complete: bool

    @property
    def notes(self) -> list[str]:
        """What a user should know, a sentence each."""
        found = []
        if self.n_joined:
            found.append(
                f"{self.n_items} items in {self.n_joined} groups are near-duplicates across groups; they were joined, so that "
                f"the split keeps them on one side (largest group: {self.largest} items; --no-group-near-duplicates "
                "leaves them apart)."
            )
        if self.n_long:
            found.append(
                f"{self.n_long} groups read alike in chains of more than {MOST_JOINED} groups or a quarter of all, as "
                "sentences of one template do; they were not joined, so name what belongs together in a group column, or "
                "hold out whole templates."
            )
        if self.n_torn:
            found.append(
                f"{self.n_torn} groups have near-duplicates on the other side of the data's own split, which wins: "
                "hold-out figures may flatter."
            )
        if not self.complete:
            found.append("The search for near-duplicates stopped at its limit; there may be more.")
        return found


def near_groups(texts: Sequence[str], groups: Sequence[str], splits: Sequence[str | None]) -> NearGroups:
    """Join groups that hold near-duplicates (Jaccard index of words and word pairs at least ``LEVELS[0]``).

    Labels play no part: the two of a minimal pair go to the same side, whatever their grades. Twins are joined already.

    Args:
        texts: [N].
        groups: See `joined_groups`, [N].
        splits: The data's own split, [N]; groups are never joined across it.
    """
    node = _numbers(groups)
    n_nodes = int(node.max(initial=-1)) + 1
    distinct = {normalised(text): item for item, text in reversed(list(enumerate(texts)))}
    items = np.array(sorted(distinct.values()), dtype=np.int64)
    near = near_pairs([texts[item] for item in items], threshold=LEVELS[0], max_pairs=len(texts) * 20 + 50_000)
    first, second = node[items[near.first]], node[items[near.second]]
    across = first != second
    first, second, similarity = first[across], second[across], near.similarity[across]
    side = np.zeros(n_nodes, np.int64)  # bits: 1 discovery, 2 hold-out
    np.bitwise_or.at(side, node, np.array([{"discovery": 1, "holdout": 2}.get(s or "", 0) for s in splits], np.int64))
    conflict = (side[first] | side[second]) == 3
    part, long = _joined(n_nodes, first[~conflict], second[~conflict], similarity[~conflict], side)
    members = np.bincount(part, minlength=n_nodes)
    made = members[part[node]] > 1
    sizes = np.bincount(part[node], minlength=n_nodes)
    return NearGroups(
        groups=_names_of(groups, part[node]),
        n_pairs=int(across.sum()),
        n_joined=int(members[members > 1].sum()),
        n_items=int(made.sum()),
        largest=int(sizes[members > 1].max(initial=0)),
        n_long=int(long.sum()),
        n_torn=len(np.unique(np.concatenate([first[conflict], second[conflict]]))),
        complete=near.complete,
    )


def _joined(
    n: int, first: Ints, second: Ints, similarity: npt.NDArray[np.float64], side: Ints
) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Return the part of each node, int64 [n], and which nodes were left apart from a chain, bool [n]."""
    most = max(LEAST_JOINED, min(MOST_JOINED, int(SHARE_JOINED * n)))
    part = np.arange(n)
    left, chained = np.ones(n, dtype=bool), np.zeros(n, dtype=bool)
    for level in LEVELS:
        edges = (similarity >= level) & left[first] & left[second]
        found = components(n, first[edges], second[edges])
        both = np.zeros(n, np.int64)
        np.bitwise_or.at(both, found, side)
        good = left & (np.bincount(found, minlength=n)[found] <= most) & (both[found] != 3)
        part[good] = n + found[good] + n * int(level != LEVELS[0])
        left &= ~good
        chained |= left
    numbered: Ints = np.unique(part, return_inverse=True)[1].astype(np.int64)
    return numbered, chained & (np.bincount(numbered, minlength=n)[numbered] == 1)


def _names_of(groups: Sequence[str], part: Ints) -> list[str]:
    """Return the smallest name of each part (a user's own before ``text:``) for each item."""
    names: dict[int, tuple[bool, str]] = {}
    for number, name in zip(part.tolist(), groups, strict=True):
        key = (name.startswith("text:"), name)
        names[number] = min(names.get(number, key), key)
    return [names[number][1] for number in part.tolist()]
