"""The pages of the feature table: filter, search, sort, page, export."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from fastapi.responses import HTMLResponse, Response

from conceptatlas.ranking.legends import legend_lines, marks_of
from conceptatlas.views.explorer.library import Shelf
from conceptatlas.views.explorer.missing import Missing
from conceptatlas.views.explorer.table import ALWAYS, DEFAULT_COLUMNS, FIGURES, PAGE_SIZES, FeatureTable, Query
from conceptatlas.views.html import render
from conceptatlas.views.rivals import best_of_each, rivals_of
from conceptatlas.views.study_folder import Study

FILTERS = ("auroc_holdout", "pearson_corr", "n_active", "p_max")
# Columns of this table only; what the ranked table shows too is said by its legend.
OTHERS = (
    "Items active: discovery items on which the score is not zero; rows active: share of the recorded rows on which the "
    "feature fires; q: false discovery rate on discovery (tested features only); Pearson on hold-out: without an interval. "
    "Intervals stand on the features' pages and in the report."
)
EXPORT_COLUMNS = tuple(name for name in FIGURES if name not in ALWAYS)


def base(key: str) -> str:
    """Return the address of a study."""
    return f"/s/{quote(key, safe='')}"


def feature_path(root: str, slug: str, feature_id: int) -> str:
    """Return the stable address of a feature."""
    return f"{root}/feature/{quote(slug, safe='')}/{feature_id}"


def _table(shelf: Shelf) -> FeatureTable:
    if shelf.table is None:
        raise Missing("This study has no ranking, so there is no table of features; run `conceptatlas rank` first.")
    return shelf.table


def _starred(shelf: Shelf) -> list[tuple[str, int]]:
    return shelf.notes.starred()


def table_words(study: Study) -> str:
    """Return what stands in the table: the same counts as in the report and the terminal, and what its figures compare."""
    if study.ranking is None:
        return ""
    low, high = study.grades
    return f"{study.ranking.head_line()} The table holds all that fire on some row. AUROC: grade {high} against grade {low}."


def features_page(shelf: Shelf, parameters: list[tuple[str, str]]) -> Response:
    """Return one page of the table."""
    table, query, root = _table(shelf), Query.parse(parameters), base(shelf.key)
    starred = _starred(shelf)
    start = (query.page - 1) * query.size
    places, total = table.part(query, starred, start, start + query.size)
    stars = set(starred)
    rows: list[dict[str, Any]] = table.lines(places, query.columns)
    tail = query.url(page=query.page).rstrip("?")
    for row in rows:
        row["href"] = feature_path(root, row["slug"], row["feature_id"]) + tail
        row["note_href"] = feature_path(root, row["slug"], row["feature_id"]) + "/note"
        row["star"] = (row["slug"], row["feature_id"]) in stars
        row["marks"] = marks_of(shelf.study.figures_of_ranked.get((row["slug"], row["feature_id"]), {}))
    context = {
        "shelf": shelf,
        "root": root,
        "query": query,
        "rows": rows,
        "total": total,
        "height": table.height,
        "start": start,
        "figures": FIGURES,
        "filters": FILTERS,
        "sizes": PAGE_SIZES,
        "layers": table.layers(),
        "saes": table.saes(),
        "choosable": EXPORT_COLUMNS,
        "default_columns": DEFAULT_COLUMNS,
        "rivals": best_of_each(rivals_of(shelf.study)),
        "more": start + query.size < total,
        "said": table_words(shelf.study),
        "legend": [] if shelf.study.ranking is None else [*legend_lines(shelf.study.ranking), OTHERS],
    }
    return HTMLResponse(render("explorer/features.html", **context))


def features_csv(shelf: Shelf, parameters: list[tuple[str, str]]) -> Response:
    """Return every line that the query asks for, with every figure, as CSV."""
    table, query = _table(shelf), Query.parse(parameters)
    frame = table.frame(table.select(query, _starred(shelf)), EXPORT_COLUMNS)
    return Response(
        frame.write_csv(),
        media_type="text/csv; charset=utf-8",
        headers={"content-disposition": 'attachment; filename="features.csv"'},
    )
