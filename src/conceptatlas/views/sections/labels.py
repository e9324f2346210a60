"""Labels: a table of all with their scores, and a panel in each feature's card; what scores low is greyed."""

from __future__ import annotations

from typing import Any

from conceptatlas.base.files import read_json
from conceptatlas.evidence import FeatureRef
from conceptatlas.views.html import render
from conceptatlas.views.sections import Panel, Section, panel, section
from conceptatlas.views.study_folder import LABELS, Study

# A label is greyed where it tells texts that activate the feature from others less well than this (0.5 is chance).
LOW_SCORE = 0.7


def labels_of(study: Study) -> list[dict[str, Any]]:
    """Return the labels of a study, each with ``low``: whether it was judged, and found wanting."""
    path = study.file("label", LABELS)
    if path is None:
        return []
    entries = [dict(entry) for entry in read_json(path).get("features") or []]
    return [_known | entry | {"low": is_low(entry)} for entry in entries]


_known: dict[str, Any] = dict.fromkeys(
    ("rank", "slug", "sae_id", "site", "label", "label_llm", "label_search", "num_examples", "detection_accuracy",
     "detection_n", "fuzzing_accuracy", "fuzzing_n", "reason")
)  # fmt: skip


def is_low(entry: dict[str, Any]) -> bool:
    """Say whether a label was judged and scores low on either test."""
    scores = [entry.get(key) for key in ("detection_accuracy", "fuzzing_accuracy")]
    return any(score is not None and score < LOW_SCORE for score in scores)


@section("labels", order=55)
def labels(study: Study) -> Section | None:
    """All labels in one table."""
    entries = labels_of(study)
    if not entries:
        return None
    judged = [entry for entry in entries if entry["detection_accuracy"] is not None]
    low = sum(entry["low"] for entry in judged)
    lead = (
        f"Each label was judged on texts that its author never saw (0.5 is chance); {low} of {len(judged)} score below "
        f"{LOW_SCORE:g} and are greyed."
        if judged
        else "Keywords that set each feature's examples apart from the other texts; nobody has judged them."
    )
    return Section(title="What they are called", lead=lead, body=render("labels.html", entries=entries))


@panel("label", order=30)
def label(study: Study, feature: FeatureRef) -> Panel | None:
    """One feature's label, its keywords and its scores."""
    for entry in labels_of(study):
        if entry["slug"] == feature.slug and entry["feature_index"] == feature.feature_id:
            return Panel("What it is called", render("label.html", entry=entry, low_score=LOW_SCORE))
    return None
