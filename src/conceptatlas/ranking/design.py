"""What a ranking knows of the items before it looks at any feature: labels, split, groups, confounds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from conceptatlas.base.errors import InputError
from conceptatlas.concepts import data_column, holdout_of, whole_units
from conceptatlas.ranking.kernels import N_GRADES


@dataclass(frozen=True)
class Design:
    """The items of a ranking. N items, n of them discovery.

    Attributes:
        labels: Grades 0–3, int64 [N].
        holdout: bool [N].
        groups: Number of each item's group, int64 [N].
        confounds: float64 [N, C]: characters of the text, rows (tokens), and what bag of words says of it.
        low: The lowest grade on discovery: 0 where there is one.
        high: The highest grade on discovery: 3 where there is one.
        units: Number of what a split must not tear, int64 [N]: the groups, or what hangs together through groups and the
            values of the column that is held out by.
    """

    labels: npt.NDArray[np.int64]
    holdout: npt.NDArray[np.bool_]
    groups: npt.NDArray[np.int64]
    confounds: npt.NDArray[np.float64]
    low: int
    high: int
    units: npt.NDArray[np.int64]

    @classmethod
    def build(
        cls,
        labels: npt.NDArray[np.integer[Any]],
        holdout: npt.NDArray[np.bool_],
        *,
        groups: npt.NDArray[np.int64] | None = None,
        confounds: npt.NDArray[np.float64] | None = None,
        units: npt.NDArray[np.int64] | None = None,
    ) -> Design:
        """Build the design from arrays over items.

        Raises:
            InputError: Fewer than two grades are on the discovery side.
        """
        grades: npt.NDArray[np.int64] = labels.astype(np.int64)
        present = np.unique(grades[~holdout])
        if len(present) < 2:
            side = "discovery side of the split" if holdout.any() else "data"
            have = ", ".join(map(str, present)) or "none"
            raise InputError(
                f"A ranking needs items of two grades or more, and the {side} has {have}; "
                "label more items, or give a smaller --holdout."
            )
        if present[0] < 0 or present[-1] >= N_GRADES:
            raise InputError(f"A grade is {present[0]} to {present[-1]}; grades are 0 to {N_GRADES - 1}.")
        groups = np.arange(len(grades)) if groups is None else groups
        return cls(
            grades,
            holdout,
            groups,
            np.zeros((len(grades), 0)) if confounds is None else confounds,
            int(present[0]),
            int(present[-1]),
            groups if units is None else units,
        )

    @classmethod
    def of_items(cls, items: pl.DataFrame, *, share: float, by: str | None = None) -> Design:
        """Build the design of a recording's items; ``share`` of the groups (of the values of ``by``) is held out."""
        missing = items["label"].null_count()
        if missing:
            raise InputError(
                f"A ranking needs a grade for every item, and {missing} of {items.height} have none; label them, or "
                "record the labelled ones only."
            )
        labels, hashes = items["label"].to_numpy(), items["split_hash"].to_numpy()
        holdout = holdout_of(items, share=share, by=by)
        units = None if by is None else whole_units(hashes, data_column(items, by, option="--holdout-by"))[0]
        groups = np.unique(hashes, return_inverse=True)[1].astype(np.int64)
        confounds = np.column_stack(
            [items["text"].fill_null("").str.len_chars().to_numpy(), items["n_rows"].to_numpy()]
        )
        return cls.build(labels, holdout, groups=groups, confounds=confounds.astype(np.float64), units=units)

    def with_holdout(self, holdout: npt.NDArray[np.bool_]) -> Design:
        """Return the same items under another split."""
        return Design.build(self.labels, holdout, groups=self.groups, confounds=self.confounds, units=self.units)

    def with_confound(self, values: npt.NDArray[np.float64]) -> Design:
        """Return the same items with one more confound, [N]; where it is not known (NaN) it takes its mean on discovery."""
        known = ~np.isnan(values)
        if not (known & self.discovery).any():
            return self
        filled = np.where(known, values, values[known & self.discovery].mean())
        return replace(self, confounds=np.column_stack([self.confounds, filled]))

    @property
    def discovery(self) -> npt.NDArray[np.bool_]:
        """Bool [N]."""
        return ~self.holdout

    @property
    def n_items(self) -> int:
        """N."""
        return len(self.labels)

    @property
    def has_groups(self) -> bool:
        """Whether some group has more than one item."""
        return len(np.unique(self.groups)) < self.n_items

    def holdout_items(self) -> dict[str, int]:
        """Return how many items each grade has on the hold-out."""
        return {str(g): int((self.holdout & (self.labels == g)).sum()) for g in np.unique(self.labels).tolist()}

    def holdout_groups(self) -> dict[str, int]:
        """Return how many independent groups each grade has on the hold-out."""
        held = self.holdout
        return {str(g): len(np.unique(self.groups[held & (self.labels == g)])) for g in np.unique(self.labels).tolist()}

    def warnings(self) -> list[str]:
        """Return what a reader of the figures must know, one sentence each."""
        out = []
        if (self.low, self.high) != (0, N_GRADES - 1):
            out.append(
                f"Grades on the discovery side go from {self.low} to {self.high}: separation, tpr, fpr and auroc "
                f"compare grade {self.high} against grade {self.low}."
            )
        if self.holdout.any():
            missing = [g for g in (self.low, self.high) if not (self.labels[self.holdout] == g).any()]
            if missing:
                out.append(
                    f"The hold-out has no item of grade {' and '.join(map(str, missing))}: its auroc, tpr or fpr is "
                    "empty; label more items."
                )
        return out
