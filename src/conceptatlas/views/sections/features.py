"""The cards of the top features."""

from __future__ import annotations

from conceptatlas.evidence import safe_link
from conceptatlas.ranking.legends import marks_of
from conceptatlas.views.html import render
from conceptatlas.views.sections import Section, panels_of, section
from conceptatlas.views.study_folder import CARDS, Study


@section("features", order=50)
def features(study: Study) -> Section | None:
    """A card for each of the best features, with every panel that has something to show."""
    shown = study.varied[:CARDS]
    if not shown:
        return None
    cards = [
        {
            "feature": feature,
            "row": study.rows_by_rank[feature.rank or 0],
            "marks": marks_of(study.rows_by_rank[feature.rank or 0]),
            "link": safe_link(feature.neuronpedia_url),
            "panels": panels_of(study, feature),
            "open": number == 0,
        }
        for number, feature in enumerate(shown)
    ]
    rest = len(study.features) - len(shown)
    return Section(
        title="The features, one by one",
        lead=f"The first {len(shown)} of {len(study.features)} in the table, the best of each family first."
        if rest
        else "Every feature of the table.",
        body=render("features.html", cards=cards),
        entries=tuple((f"feature-{f.rank}", f"{f.rank}. layer {f.layer} #{f.feature_id}") for f in shown),
    )
