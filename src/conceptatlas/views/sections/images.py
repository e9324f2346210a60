"""The image laboratory: fidelity of each SAE, and the features whose labels and effects agree, with their pictures."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from markupsafe import Markup

from conceptatlas.base.files import read_json
from conceptatlas.views.html import render
from conceptatlas.views.sections import Section, section
from conceptatlas.views.study_folder import Study

SUMMARY = "summary.json"
REPORT = "feature_report.json"
SHOWN = 12


@section("images", order=90)
def images(study: Study) -> Section | None:
    """What the laboratory found."""
    summary = study.file("images", SUMMARY)
    if summary is None:
        return None
    folder = summary.parent
    report = study.file("images", REPORT)
    entries: list[dict[str, Any]] = [] if report is None else list(read_json(report))
    firing = [entry for entry in entries if entry["mean_active"] > 0]
    shown = sorted(firing, key=lambda entry: (-agreement(entry), entry["feature"]))[:SHOWN]
    return Section(
        title="Images",
        lead=f"{len(firing)} of {len(entries)} features fire on the test images. Below, those whose active images belong most "
        "often to the class that the feature boosts; every feature stands in hypotheses.md.",
        body=render(
            "images.html",
            targets=list(read_json(summary)),
            features=[
                {**entry, "agreement": agreement(entry), "gallery": _picture(folder, entry["feature"], "gallery"),
                 "pattern": _picture(folder, entry["feature"], "pattern")}
                for entry in shown
            ],
        ),
    )  # fmt: skip


def agreement(entry: dict[str, Any]) -> float:
    """Return the share of a feature's active images that belong to the class it boosts, weighted by how many there are."""
    counts = entry["label_histogram"]
    total = sum(counts.values())
    # One image more on the other side, so that a feature active on a single image does not come first.
    return float(counts.get(str(entry["logit_boost_class"]), 0) / (total + 1))


def _picture(folder: Path, feature: int, kind: str) -> Markup:
    path = folder / f"feature_{feature}_{kind}.png"
    if not path.is_file():
        return Markup("")
    data = base64.b64encode(path.read_bytes()).decode()
    words = "strongest images" if kind == "gallery" else "input pattern"
    return Markup('<img alt="feature {}: {}" src="data:image/png;base64,{}">').format(feature, words, Markup(data))
