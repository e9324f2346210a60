"""The ranked table with the baselines pinned on top."""

from __future__ import annotations

from typing import Any

from conceptatlas.evidence import safe_link
from conceptatlas.ranking.legends import failed, legend_lines, marks_of
from conceptatlas.ranking.summary import exceeds_chance
from conceptatlas.views.html import chance, render
from conceptatlas.views.rivals import Rival, best_of_each, rivals_of
from conceptatlas.views.sections import Section, section
from conceptatlas.views.study_folder import Study
from conceptatlas.views.svg.distribution import interval_mark, means_mark

# Rows that are shown at once; the others open below.
SHOWN = 20


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
        "marks": marks_of(row),
        "fails": failed(row.get("fails")),
        "chance": chance(row.get("p_max"), study.permutations),
    }


def rival_cells(rival: Rival) -> dict[str, Any]:
    """Return what the table shows of one baseline."""
    return {"rival": rival, "mark": interval_mark(rival.auroc_holdout, rival.low, rival.high)}


def _lead(study: Study) -> str:
    assert study.ranking is not None
    low, high = study.grades
    facts = study.ranking.facts
    text = (
        f"The first {len(study.rows_by_rank):,} of {study.ranking.features.height:,} features in ranked_features.csv (those "
        f"that pass the classic filters, then the best others), chosen and ordered on the {facts['n_discovery']:,} discovery "
        f"items only. AUROC compares grade {high} with grade {low}, C (concordance) all grades."
    )
    if facts["n_holdout"]:
        items, groups = facts["holdout_items"], facts["holdout_groups"]
        held = ", ".join(
            f"{items[grade]} of grade {grade}" + (f" in {groups[grade]} groups" if groups[grade] < items[grade] else "")
            for grade in sorted(items, reverse=True)
        )
        text += f" Hold-out: {held}; none had a say in the choice."
    if exceeds_chance(study.ranking) is False:
        text += " None of them exceeds chance."
    return text


@section("ranked", order=10)
def ranked(study: Study) -> Section | None:
    """The ranked table."""
    if study.ranking is None:
        return None
    rivals = [rival_cells(rival) for rival in best_of_each(rivals_of(study))]
    rows = [feature_cells(study, row) for _, row in sorted(study.rows_by_rank.items())]
    body = render(
        "ranked.html",
        rivals=rivals,
        rows=rows[:SHOWN] if len(rows) > SHOWN + 4 else rows,
        rest=rows[SHOWN:] if len(rows) > SHOWN + 4 else [],
        legend=legend_lines(study.ranking),
    )
    return Section(title="Ranked features", lead=_lead(study), body=body)
