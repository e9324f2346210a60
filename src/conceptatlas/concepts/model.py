"""The Concept: labelled items, and the split that is decided once."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from conceptatlas.base.errors import InputError
from conceptatlas.concepts.grouping import NearGroups, joined_groups, near_groups, torn_items, whole_splits

GRADES = (0, 1, 2, 3)

ITEM_COLUMNS = {
    "item": pl.Int32,
    "text": pl.String,
    "label": pl.Int8,
    "group": pl.String,
    "split_hash": pl.UInt64,
    "split": pl.String,
}


@dataclass(frozen=True)
class BadRow:
    """A row of the data that cannot be used.

    Attributes:
        place: Where it is, for a person: ``data.csv, line 7`` (the header is line 1) or ``row 3`` (from 0).
        column: The column at fault, or empty when the whole row is.
        value: The value at fault, shortened.
        problem: What is wrong, as the end of a sentence.
        kind: One word for counting: ``label`` (not a grade), ``missing`` (no label), ``text``, ``encoding``, ``shape``,
            ``split``.
    """

    place: str
    column: str
    value: str
    problem: str
    kind: str

    def __str__(self) -> str:
        where = f"{self.place}, column {self.column!r}" if self.column else self.place
        return f"{where}: {self.problem}"


@dataclass(frozen=True)
class Concept:
    """Items graded 0–3 for a concept.

    Attributes:
        name: What the concept is called (the file's stem unless said otherwise).
        items: One row per item, in the order of the file: the columns of ``ITEM_COLUMNS``, then any further columns of the
            file, as they came. ``group`` is the item's own text where the data has no group, and one name where groups
            were joined; ``split`` is null, ``"discovery"`` or ``"holdout"``.
        data_hash: SHA-256 over text, label, group and split of all items, in order, as the data gives them (before groups are
            joined).
        skipped: Rows that were dropped on request because they were bad.
        bad_rows: Those rows, with their places.
    """

    name: str
    items: pl.DataFrame
    data_hash: str
    skipped: int = 0
    bad_rows: tuple[BadRow, ...] = ()

    def __len__(self) -> int:
        return self.items.height

    @property
    def texts(self) -> list[str]:
        """The items' texts, in order."""
        return self.items["text"].to_list()

    @property
    def labels(self) -> npt.NDArray[np.int8]:
        """The items' grades, int8 [N]."""
        return self.items["label"].to_numpy()


def split_hash_of(group: str) -> int:
    """Return the stable 64-bit hash of a group that decides its place in the split (BLAKE2b of its UTF-8)."""
    return int.from_bytes(hashlib.blake2b(group.encode(), digest_size=8, person=b"conceptatlas").digest(), "big")


def build_concept(
    name: str,
    texts: Sequence[str],
    labels: Sequence[int],
    *,
    groups: Sequence[str | None] | None = None,
    splits: Sequence[str | None] | None = None,
    extra: pl.DataFrame | None = None,
    skipped: int = 0,
    bad_rows: Sequence[BadRow] = (),
) -> Concept:
    """Build a Concept from columns that have already been validated.

    An item without a group is its own group. Twins (the same text but for case, punctuation, white space and Unicode form)
    share a group, and so do the groups that twins connect, so that a copy never straddles the split. A further column
    whose name the items use themselves is kept as ``data_<name>``.

    Raises:
        InputError: ``splits`` puts items of one group, or twins, on both sides.
    """
    given = [group or None for group in groups] if groups is not None else [None] * len(texts)
    own = joined_groups(texts, given)
    said = list(splits) if splits is not None else [None] * len(texts)
    if torn := torn_items(own, said):
        item, other = torn[0]
        raise InputError(f"{torn_problem(f'item {item}', f'item {other}')}{_of_all(len(torn))}; {TORN_ADVICE}.")
    items = pl.DataFrame(
        {
            "item": range(len(texts)),
            "text": list(texts),
            "label": list(labels),
            "group": own,
            "split_hash": [split_hash_of(group) for group in own],
            "split": whole_splits(own, said),
        },
        schema=ITEM_COLUMNS,
    )
    digest = hashlib.sha256()
    for text, label, group, split in zip(texts, items["label"].to_list(), given, said, strict=True):
        digest.update(repr((text, label, group or f"text:{text}", split)).encode())
    if extra is not None and extra.width:
        items = items.hstack(extra.rename({c: f"data_{c}" for c in extra.columns if c in ITEM_COLUMNS}))
    return Concept(
        name=name,
        items=items,
        data_hash=digest.hexdigest(),
        skipped=max(skipped, len(bad_rows)),
        bad_rows=tuple(bad_rows),
    )


TORN_ADVICE = "give what belongs together one split, or drop the copies"


def torn_problem(item: str, other: str) -> str:
    """Return what is wrong where the data's split tears a group."""
    return f"{item} is hold-out, and {other}, of its group or the same text, is discovery"


def _of_all(n: int) -> str:
    return "" if n == 1 else f" ({n} such items)"


def group_near_duplicates(concept: Concept) -> tuple[Concept, NearGroups]:
    """Return the concept with near-duplicates in one group (see `near_groups`), and what was joined.

    ``data_hash`` stays: the data are the same.
    """
    items = concept.items
    found = near_groups(concept.texts, items["group"].to_list(), items["split"].to_list())
    items = items.with_columns(
        pl.Series("group", found.groups, dtype=pl.String),
        pl.Series("split_hash", [split_hash_of(group) for group in found.groups], dtype=pl.UInt64),
        pl.Series("split", whole_splits(found.groups, items["split"].to_list()), dtype=pl.String),
    )
    return replace(concept, items=items), found


def holdout_mask(
    labels: npt.NDArray[np.integer],
    split_hash: npt.NDArray[np.uint64],
    *,
    split: Sequence[str | None] | None = None,
    share: float = 0.3,
) -> npt.NDArray[np.bool_]:
    """Return which items are hold-out, bool [N].

    Each group (the items of one ``split_hash``) belongs to the label that most of its items have (the higher one at a
    tie). Within each label, groups in the order of their hash: the first ``share`` of them (rounded half up) is
    hold-out. So the split is stratified, the same everywhere, and nested: a smaller share gives a subset. Where the
    data has a ``split`` column, its ``"discovery"`` and ``"holdout"`` win.

    Args:
        labels: Grades, [N].
        split_hash: The hash of each item's group, uint64 [N].
        split: The data's own split, or None.
        share: The share of groups to hold out, 0 (none) to below 1.
    """
    holdout = np.zeros(len(labels), dtype=bool)
    if share > 0:
        groups, inverse = np.unique(split_hash, return_inverse=True)
        counts = np.zeros((len(groups), int(labels.max(initial=0)) + 1), dtype=np.int64)
        np.add.at(counts, (inverse, labels.astype(np.int64)), 1)
        label_of_group = counts.shape[1] - 1 - np.argmax(counts[:, ::-1], axis=1)
        chosen = np.zeros(len(groups), dtype=bool)
        for label in np.unique(label_of_group):
            members = np.flatnonzero(label_of_group == label)  # already in the order of their hash
            chosen[members[: math.floor(share * len(members) + 0.5)]] = True
        holdout = chosen[inverse]
        if split is not None:
            said = np.array([value or "" for value in split])
            holdout = np.where(said == "holdout", True, np.where(said == "discovery", False, holdout))  # noqa: FBT003
    return holdout
