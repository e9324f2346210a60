"""The ranked table with the baselines pinned on top; where nothing passed, the nearest misses."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from conceptatlas.evidence import safe_link
from conceptatlas.views.html import render
from conceptatlas.views.rivals import Rival, best_of_each, rivals_of
from conceptatlas.views.sections import Section, section
from conceptatlas.views.study_folder import Study
from conceptatlas.views.svg.distribution import interval_mark, means_mark

# Rows that are shown at once; the others open below.
SHOWN = 20

LEAD = (
    "Features chosen and ordered on the discovery sentences only; the hold-out columns show what is left on sentences "
    "that had no say. Above them the baselines on the same split: what a sceptic would try first."
)


def feature_cells(study: Study, row: dict[str, Any]) -> dict[str, Any]:
    """Return what the table shows of one feature."""
    return {
        "row": row,
        "href": study.feature_link(str(row.get("slug")), row["feature_id"], row["rank"]),
        "like": study.family_head(row["rank"]),
        "link": safe_link(row.get("neuronpedia_url")),
        "mark": interval_mark(
            row.get("auroc_holdout") if row.get("auroc_holdout") is not None else row.get("auroc"),
            row.get("auroc_holdout_low"),
            row.get("auroc_holdout_high"),
        ),
        "means": means_mark([row.get(f"mean_label_{k}") for k in range(4)]),
    }


def rival_cells(rival: Rival) -> dict[str, Any]:
    """Return what the table shows of one baseline."""
    return {"rival": rival, "mark": interval_mark(rival.auroc_holdout, rival.low, rival.high)}


@section("ranked", order=10)
def ranked(study: Study) -> Section | None:
    """The ranked table."""
    if study.ranking is None:
        return None
    rivals = [rival_cells(rival) for rival in best_of_each(rivals_of(study))]
    rows = [feature_cells(study, row) for _, row in sorted(study.rows_by_rank.items())]
    body: Markup = render(
        "ranked.html",
        rivals=rivals,
        rows=rows[:SHOWN] if len(rows) > SHOWN + 4 else rows,
        rest=rows[SHOWN:] if len(rows) > SHOWN + 4 else [],
        misses=study.near_misses if not rows else [],
    )
    return Section(title="Ranked features", lead=LEAD, body=body)
