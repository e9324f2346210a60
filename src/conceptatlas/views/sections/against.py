"""The best feature against each baseline, paired on the held-out items."""

from __future__ import annotations

from conceptatlas.ranking.summary import against_title, exceeds_chance
from conceptatlas.views.html import render
from conceptatlas.views.sections import Section, section
from conceptatlas.views.study_folder import Study


@section("against", order=12)
def against(study: Study) -> Section | None:
    """Every paired comparison, with the interval of the difference and p after Holm's correction."""
    if study.ranking is None or not study.ranking.comparisons:
        return None
    low, high = study.grades
    facts, comparisons = study.ranking.facts, study.ranking.comparisons
    items = facts["holdout_items"]
    lead = (
        f"AUROC of grade {high} against grade {low} on the held-out items ({items[str(high)]} and {items[str(low)]}), feature "
        "minus baseline. The test is paired and by group; a difference is called one only where p, after Holm's correction "
        f"over the {len(comparisons)} comparisons, is at most 0.05."
    )
    if any(one.get("tied") for one in comparisons):
        lead += " Tied: the strongest baseline cannot be told apart from it by the same test."
    if exceeds_chance(study.ranking) is False:
        lead += " The search does not exceed chance, so that no line here is a finding."
    return Section(
        title=against_title(study.ranking),
        lead=lead,
        body=render("against.html", comparisons=comparisons),
    )
