"""Of which items the figures are true: the best features and baselines by the values of a column of the data."""

from __future__ import annotations

from typing import Any

from conceptatlas.views.html import render
from conceptatlas.views.sections import Section, section
from conceptatlas.views.study_folder import Study

# Features shown; baselines come below them, of each kind the site that did best on discovery.
SHOWN = 5


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return (row.get("slug"), row.get("feature_id"), row.get("name"), row.get("site") or "")


def _cells(rows: list[dict[str, Any]], values: list[str]) -> list[dict[str, Any] | None]:
    by_value = {row["value"]: row for row in rows}
    return [by_value.get(value) for value in values]


def _lines(study: Study, comparison: str, values: list[str]) -> list[dict[str, Any]]:
    """Return a line for each shown feature and baseline: what names it, and its cell for each value."""
    from conceptatlas.ranking import best_baselines  # late: it brings numba along

    assert study.ranking is not None
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in study.ranking.strata["rows"]:
        if row["comparison"] == comparison:
            found.setdefault(_key(row), []).append(row)
    lines = []
    for _, figures in sorted(study.rows_by_rank.items())[:SHOWN]:
        own = [rows for key, rows in found.items() if key[:2] == (figures["slug"], figures["feature_id"])]
        name = f"layer {figures['layer']} · #{figures['feature_id']}"
        lines += [{"name": name, "where": "feature", "cells": _cells(rows, values)} for rows in own]
    for entry in best_baselines(study.ranking.baselines):
        rows = found.get((None, None, entry["name"], entry["site"]))
        if rows:
            lines.append({"name": entry["name"], "where": entry["site"] or "text", "cells": _cells(rows, values)})
    return lines


def _items(lines: list[dict[str, Any]], place: int) -> str:
    """Return how many items of which grades stand against each other in a column: the same for every line."""
    cell = next((line["cells"][place] for line in lines if line["cells"][place]), None)
    return (
        ""
        if cell is None
        else f"{cell['n_high']} of grade {cell['grades'][1]} v {cell['n_low']} of {cell['grades'][0]}"
    )


@section("strata", order=35)
def strata(study: Study) -> Section | None:
    """The hold-out AUROC against each kind of low item, and within each value."""
    if study.ranking is None or not study.ranking.strata.get("rows"):
        return None
    found = study.ranking.strata
    low, high = study.ranking.facts["grades"]
    tables = []
    for comparison, title in (
        ("against", f"All held-out items of grade {high} against those of grade {low} with this {found['column']}"),
        ("within", f"Among the held-out items of this {found['column']}: their highest grade against their lowest"),
    ):
        values = sorted({row["value"] for row in found["rows"] if row["comparison"] == comparison})
        if values:
            lines = _lines(study, comparison, values)
            heads = [(value, _items(lines, place)) for place, value in enumerate(values)]
            tables.append({"title": title, "heads": heads, "lines": lines, "closed": comparison == "within"})
    return Section(
        title=f"By {found['column']}",
        lead=f"One figure over all items hides of whom it is true. AUROC on the hold-out, by the column “{found['column']}” "
        "of the data, with its 95% interval (by group) and the number of items on both sides.",
        body=render("strata.html", tables=tables, left_out=found["left_out"]),
    )
