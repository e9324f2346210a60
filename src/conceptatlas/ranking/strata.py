"""Strata: the hold-out AUROC against each kind of low item, and within each value of a column of the data.

One figure over all items hides of whom it is true: a feature can tell the highest grade from neutral items and not from
items of a trait that looks alike. Pure arrays in, plain rows out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from conceptatlas.concepts import data_column
from conceptatlas.ranking.design import Design
from conceptatlas.ranking.kernels import F64
from conceptatlas.ranking.options import DEFAULT_STRATA
from conceptatlas.statistics import auroc_interval

# At most so many values, the commonest: a column of free text would give a table that nobody can read.
MAX_VALUES = 30


def strata_column(items: pl.DataFrame, name: str | None) -> list[str | None] | None:
    """Return the column of the strata; None where none is asked for, or the data lack the column asked for by default.

    Raises:
        InputError: The data lack a column that was named.
    """
    if name is None or (name == DEFAULT_STRATA and name not in items.columns):
        return None
    return data_column(items, name, option="--strata")


def value_contrasts(
    labels: npt.NDArray[np.integer], values: Sequence[str | None], *, low: int, high: int
) -> list[tuple[str, str, npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Return which items each stratum compares: (value, comparison, its high items, its low items), int64 positions.

    ``against``: all items of grade ``high`` against the items of grade ``low`` that have the value. ``within``: among the
    items that have the value, where these are of several grades, the highest of them against the lowest.

    Args:
        labels: Grades, [N].
        values: The column, [N]; items without a value are in no stratum.
        low: The lowest grade of the data.
        high: The highest.
    """
    column = np.array(["" if value is None else value for value in values], dtype=object)
    out = []
    for value in sorted({value for value in values if value is not None}):
        own = column == value
        against = np.flatnonzero(labels == high), np.flatnonzero(own & (labels == low))
        if len(against[0]) and len(against[1]):
            out.append((value, "against", *against))
        grades = np.unique(labels[own])
        if len(grades) > 1:
            within = np.flatnonzero(own & (labels == grades[-1])), np.flatnonzero(own & (labels == grades[0]))
            out.append((value, "within", *within))
    return out


def strata(
    column: str, values: Sequence[str | None], design: Design, scored: Sequence[tuple[Mapping[str, Any], F64]]
) -> dict[str, Any]:
    """Return ``strata.json``: for each score and value of ``column`` the AUROC on the hold-out, with its interval.

    Args:
        column: The name of the column.
        values: Its value of each item, [N]; None where it has none.
        design: Grades, split and groups.
        scored: What names a score (``slug`` and ``feature_id``, or ``baseline`` and ``site``), and its value on all items,
            float64 [N], higher for more of the concept.

    Returns:
        ``column``; ``values`` (those compared); ``left_out`` (rarer ones, beyond ``MAX_VALUES``); ``rows``: the name,
        ``value``, ``comparison`` (``against`` or ``within``), ``grades`` compared ([low, high]), ``auroc``, ``low`` and
        ``high`` (bounds of its 95% interval, by group), ``n_high``, ``n_low``, ``n_groups``.
    """
    held = np.flatnonzero(design.holdout)
    counts = Counter(values[i] for i in held.tolist() if values[i] is not None)
    kept = [value for value, _ in sorted(counts.items(), key=lambda found: (-found[1], str(found[0])))]
    shown = set(kept[:MAX_VALUES])
    own = [values[i] if values[i] in shown else None for i in held.tolist()]
    rows = []
    contrasts = value_contrasts(design.labels[held], own, low=design.low, high=design.high)
    for name, scores in scored:
        for value, comparison, above, below in contrasts:
            items = held[np.concatenate([above, below])]
            found = auroc_interval(scores[items], np.arange(len(items)) < len(above), design.groups[items])
            rows.append(
                {
                    **name,
                    "value": value,
                    "comparison": comparison,
                    "grades": [int(design.labels[items[-1]]), int(design.labels[items[0]])],
                    **{part: _number(found[i]) for i, part in enumerate(("auroc", "low", "high"))},
                    "n_high": len(above),
                    "n_low": len(below),
                    "n_groups": len(np.unique(design.groups[items])),
                }
            )
    compared = sorted({value for value, *_ in contrasts})
    return {"column": column, "values": compared, "left_out": sorted(map(str, kept[MAX_VALUES:])), "rows": rows}


def worst_stratum(found: Mapping[str, Any], **name: Any) -> dict[str, Any] | None:
    """Return the ``against`` row of lowest AUROC of one score (named by ``slug`` and ``feature_id``); None without any."""
    own = [
        row
        for row in found.get("rows", [])
        if row["comparison"] == "against"
        and row["auroc"] is not None
        and all(row.get(key) == value for key, value in name.items())
    ]
    return min(own, key=lambda row: row["auroc"], default=None)


def same_stratum(found: Mapping[str, Any], like: Mapping[str, Any], **name: Any) -> dict[str, Any] | None:
    """Return the row of another score on the items of the row ``like``; None where it has none."""
    for row in found.get("rows", []):
        if (row["value"], row["comparison"]) == (like["value"], like["comparison"]) and all(
            row.get(key) == value for key, value in name.items()
        ):
            return dict(row)
    return None


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
