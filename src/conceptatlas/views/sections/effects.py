"""What features cause: a table over the features, and a panel in each feature's card."""

from __future__ import annotations

from typing import Any

from conceptatlas.base.files import read_json
from conceptatlas.evidence import FeatureRef
from conceptatlas.views.html import render
from conceptatlas.views.sections import Panel, Section, panel, section
from conceptatlas.views.study_folder import Study
from conceptatlas.views.svg.doses import dose_response

EFFECTS_JSON = "effects.json"


def effects_of(study: Study) -> dict[str, Any] | None:
    """Return what the effect stage found, or None where it was not run."""
    path = study.file("effect", EFFECTS_JSON)
    return None if path is None else dict(read_json(path))


@section("effects", order=60)
def effects(study: Study) -> Section | None:
    """Every measured feature in one table: detection says nothing about cause."""
    found = effects_of(study)
    if found is None:
        return None
    causal = sum(bool(entry["causal"]) for entry in found["features"])
    return Section(
        title="What they cause",
        lead=f"Log-probability of the next tokens {', '.join(found['targets'])} when a feature's direction is added on "
        f"{found['items']['neutral']} neutral hold-out items. {causal} of {len(found['features'])} measured features pass: "
        "at least 2 nats, and twice the 95th percentile of random features and of random directions of the same norm.",
        body=render("effects.html", features=found["features"]),
    )


@panel("effect", order=45)
def effect(study: Study, feature: FeatureRef) -> Panel | None:
    """One feature's dose–response, controls, promoted tokens and generated text."""
    found = effects_of(study)
    if found is None:
        return None
    for entry in found["features"]:
        if entry["slug"] == feature.slug and entry["feature_id"] == feature.feature_id:
            return Panel(
                "What it causes", render("effect.html", entry=entry, picture=dose_response(entry)), shape="full"
            )
    return None
