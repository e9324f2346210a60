"""The hold-out of a set of items, decided by one function for every stage: by group, or by whole values of a column."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from conceptatlas.base.errors import InputError
from conceptatlas.concepts.model import ITEM_COLUMNS, holdout_mask, split_hash_of


def holdout_of(items: pl.DataFrame, *, share: float, by: str | None = None) -> npt.NDArray[np.bool_]:
    """Return which of the recorded ``items`` are hold-out, bool [N].

    Args:
        items: A recording's items: ``label``, ``split_hash``, and ``split`` where the data has it.
        share: The share to hold out, 0 (none) to below 1: of the groups, or with ``by`` of the items.
        by: A column whose values are held out whole; None holds out groups.

    Raises:
        InputError: There is no such column, or it cannot be split (see ``holdout_by``).
    """
    labels, hashes = items["label"].to_numpy(), items["split_hash"].to_numpy()
    split = items["split"].to_list() if "split" in items.columns else None
    if by is None:
        return holdout_mask(labels, hashes, split=split, share=share)
    values = data_column(items, by, option="--holdout-by")
    return holdout_by(labels, hashes, values, split=split, share=share, name=by)


def data_column(items: pl.DataFrame, name: str, *, option: str) -> list[str | None]:
    """Return a further column of the data as text, one value per item (None where it is empty).

    Raises:
        InputError: There is no such column; the message names those that there are.
    """
    there = [column for column in items.columns if column not in (*ITEM_COLUMNS, "n_rows", "first_row")]
    if name not in there and name != "group":
        raise InputError(
            f"{option} names the column {name!r}, which the recorded data lack; their further columns are: "
            f"{', '.join(there) or 'none'}."
        )
    return [value or None for value in items[name].cast(pl.String).to_list()]


def whole_units(
    split_hash: npt.NDArray[np.uint64], values: Sequence[str | None]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
    """Return what must stay on one side of the split: the unit of each item, int64 [N], and a stable hash of each, [U].

    Units are the connected components of groups and values: two items are in one unit where they share a group or a
    value, or are linked by a chain of such items. An item without a value is linked by its group only. A unit's hash is
    the least hash of its values (of its groups where it has no value), so that it does not depend on the order.
    """
    # Late, for it takes time to import, and most stages hold out by group.
    import scipy.sparse as sp
    from scipy.sparse.csgraph import connected_components

    n = len(split_hash)
    named = np.array([value is not None for value in values], dtype=bool)
    value_hash = np.array([split_hash_of(f"value:{value}") for value in values], dtype=np.uint64)
    _, group = np.unique(split_hash, return_inverse=True)
    _, value = np.unique(value_hash[named], return_inverse=True)
    edges = (np.concatenate([group, group[named]]), np.concatenate([group, value + n]))
    graph = sp.coo_matrix((np.ones(len(edges[0])), edges), shape=(2 * n, 2 * n))
    _, unit = np.unique(connected_components(graph, directed=False)[1][group], return_inverse=True)
    hashes = np.full(unit.max(initial=-1) + 1, np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(hashes, unit[named], value_hash[named])
    without = np.ones(len(hashes), dtype=bool)
    without[unit[named]] = False
    alone = without[unit]
    np.minimum.at(hashes, unit[alone], split_hash[alone])
    return unit.astype(np.int64), hashes


def holdout_by(
    labels: npt.NDArray[np.integer],
    split_hash: npt.NDArray[np.uint64],
    values: Sequence[str | None],
    *,
    split: Sequence[str | None] | None = None,
    share: float = 0.3,
    name: str = "column",
) -> npt.NDArray[np.bool_]:
    """Return which items are hold-out where whole values of a column are held out, bool [N].

    Units (``whole_units``: no value and no group is torn) are put in one order that does not depend on ``share``: each
    time the first by hash of those that have an item of the label of which the least is held out so far (the higher
    label at a tie). The hold-out is the beginning of that order whose number of items is nearest to ``share`` (the
    shorter at a tie), made longer until every label is in it, and shortened until every label is left on discovery, which
    comes first. So it is the same everywhere, and nested: a smaller share gives a subset. Where the data has a ``split``
    column, a unit with a ``"discovery"`` or ``"holdout"`` item goes there.

    Args:
        labels: Grades, [N].
        split_hash: The hash of each item's group, uint64 [N].
        values: The column's value of each item, None where it has none.
        split: The data's own split, or None.
        share: The share of items to hold out, 0 (none) to below 1.
        name: What the column is called, for messages.

    Raises:
        InputError: All items hang together through groups and values, so that nothing can be held out, or the ``split``
            column tears a unit.
    """
    holdout = np.zeros(len(labels), dtype=bool)
    if share <= 0 or not len(labels):
        return holdout
    unit, hashes = whole_units(split_hash, values)
    order = _order(labels, unit, hashes)
    count = _how_many(labels, unit, order, share)
    if not count:
        raise InputError(
            f"No whole value of {name!r} can be held out: its {len(set(values))} values hang together (through groups, or "
            "as the only ones of a label) as one; choose another column for --holdout-by, or hold out groups."
        )
    chosen = np.zeros(len(hashes), dtype=bool)
    chosen[order[:count]] = True
    said = np.array(["" if split is None else value or "" for value in (split or [None] * len(labels))])
    for side, held in (("discovery", False), ("holdout", True)):
        asked = np.unique(unit[said == side])
        torn = np.intersect1d(asked, unit[(said != side) & (said != "")])
        if len(torn):
            item = int(np.flatnonzero(unit == torn[0])[0])
            raise InputError(
                f"The split column puts items of one {name!r} on both sides (such as {values[item]!r}); mend it, or leave "
                "--holdout-by out."
            )
        chosen[asked] = held
    return chosen[unit]


def _order(
    labels: npt.NDArray[np.integer], unit: npt.NDArray[np.int64], hashes: npt.NDArray[np.uint64]
) -> npt.NDArray[np.int64]:
    """Return the units in the order in which they would be held out, int64 [U]."""
    present, label = np.unique(labels, return_inverse=True)
    counts = np.zeros((len(hashes), len(present)), dtype=np.int64)
    np.add.at(counts, (unit, label), 1)
    totals, held = counts.sum(axis=0), np.zeros(len(present), dtype=np.int64)
    waiting = np.lexsort((np.arange(len(hashes)), hashes)).tolist()
    order: list[int] = []
    while waiting:
        # Labels of which nothing waits any more are done; the others by the share held so far, the higher one at a tie.
        open_ones = np.flatnonzero(counts[waiting].sum(axis=0))
        behind = min(open_ones.tolist(), key=lambda k: (held[k] / totals[k], -k))
        place = next(i for i, u in enumerate(waiting) if counts[u, behind])
        order.append(waiting.pop(place))
        held += counts[order[-1]]
    return np.array(order, dtype=np.int64)


def _how_many(
    labels: npt.NDArray[np.integer], unit: npt.NDArray[np.int64], order: npt.NDArray[np.int64], share: float
) -> int:
    """Return how many units, from the beginning of ``order``, are held out."""
    sizes = np.bincount(unit, minlength=len(order))[order]
    near = int(np.argmin(np.abs(np.concatenate([[0], np.cumsum(sizes)]) - share * len(labels))))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    at = place[unit]
    first = [int(at[labels == label].min()) for label in np.unique(labels)]
    last = [int(at[labels == label].max()) for label in np.unique(labels)]
    return min(max(near, max(first) + 1), min(last))
