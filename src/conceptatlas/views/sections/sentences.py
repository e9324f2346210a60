"""A few sentences with the best features as lines over their tokens."""

from __future__ import annotations

import numpy as np

from conceptatlas.evidence import FeatureRef, strongest_by_label
from conceptatlas.views.html import render
from conceptatlas.views.sections import Section, section
from conceptatlas.views.study_folder import Study
from conceptatlas.views.svg.lines import sentence_lines

LINES = 5
PER_LABEL = 2


def chosen_sentences(study: Study, best: FeatureRef) -> list[int]:
    """Return the hold-out items of each shown grade (all items where nothing is held out) that score highest."""
    scores = study.scores(best)
    if study.holdout.any():
        scores = np.where(study.holdout, scores, -np.inf)
    by_label = strongest_by_label(scores, study.labels, PER_LABEL)
    return [item for grade in _shown_grades(study) for item in by_label.get(grade, []) if np.isfinite(scores[item])]


def _shown_grades(study: Study) -> list[int]:
    """Return the two highest grades and the lowest: where the concept is strong, weaker, and absent."""
    seen = sorted({int(grade) for grade in study.labels}, reverse=True)
    return list(dict.fromkeys([*seen[:2], seen[-1]])) if seen else []


@section("sentences", order=60)
def sentences(study: Study) -> Section | None:
    """The best features along a few held-out sentences."""
    if not study.features or not study.keeps_all_rows:
        return None
    features = study.varied[:LINES]
    items = []
    for item in chosen_sentences(study, features[0]):
        start, stop = study.texts.bounds[item]
        pieces = study.texts.pieces(item)[: stop - start]
        acts_KP = np.stack([study.column(feature)[start:stop] for feature in features])
        picture = sentence_lines(pieces, acts_KP, [feature.label for feature in features])
        items.append(
            {"item": item, "label": int(study.labels[item]), "held": bool(study.holdout[item]), "picture": picture}
        )
    keys = [(number, f"{f.rank}. layer {f.layer} #{f.feature_id}") for number, f in enumerate(features)]
    return Section(
        title="Along the sentence",
        lead="The first features' activations, token by token, on the "
        f"{'held-out ' if study.holdout.any() else ''}sentences of grades "
        f"{', '.join(str(grade) for grade in _shown_grades(study))} that the first feature scores highest.",
        body=render("sentences.html", items=items, keys=keys),
    )
