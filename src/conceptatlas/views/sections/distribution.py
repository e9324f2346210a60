"""Panels of figures and pictures: metrics on both sides of the split, distribution by grade, course of the sentence."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from conceptatlas.evidence import DEFINITION, FeatureRef, trace_feature
from conceptatlas.ranking.legends import POOL_WORDS, marks_of
from conceptatlas.views.html import render
from conceptatlas.views.sections import Panel, panel
from conceptatlas.views.study_folder import Study
from conceptatlas.views.svg.distribution import by_label
from conceptatlas.views.svg.lines import along_sentence

GRID = 21


@panel("metrics", order=10)
def metrics(study: Study, feature: FeatureRef) -> Panel | None:
    """What the ranking says of the feature, discovery beside hold-out."""
    row = study.figures(feature)
    if row is None:
        return None
    low, high = study.grades
    return Panel(
        "Figures",
        render(
            "metrics.html",
            row=row,
            low=low,
            high=high,
            facts=study.run("rank"),
            marks=marks_of(row),
            permutations=study.permutations,
        ),
        shape="tall",
    )


@panel("distribution", order=20)
def distribution(study: Study, feature: FeatureRef) -> Panel | None:
    """Every item's score, by grade."""
    if study.recording is None:
        return None
    row = study.figures(feature) or {}
    picture = by_label(
        study.scores(feature),
        study.labels,
        study.holdout,
        threshold=row.get("threshold"),
        score_name=POOL_WORDS[study.pool] + (", without attention sinks" if study.left_out is not None else ""),
    )
    return Panel(
        "Distribution by grade",
        render("distribution.html", picture=picture, held=bool(study.holdout.any()), grades=study.grades, row=row),
    )


def mean_course(
    acts_T: npt.NDArray[np.floating], bounds_N2: npt.NDArray[np.int64], n_points: int = GRID
) -> npt.NDArray[np.float64]:
    """Return the mean activation over the items at ``n_points`` relative positions, float64 [P].

    Each item is read at the row nearest to the relative position (no values between rows are made up); an item
    without rows is left out.
    """
    places = np.linspace(0, 1, n_points)
    courses = [
        acts_T[start + np.rint(places * (stop - start - 1)).astype(np.int64)]
        for start, stop in bounds_N2
        if stop > start
    ]
    return np.mean(courses, axis=0, dtype=np.float64) if courses else np.zeros(n_points)


@panel("course", order=30)
def course(study: Study, feature: FeatureRef) -> Panel | None:
    """The mean activation along the sentence, by grade, and the class early / contextual / late."""
    if not study.keeps_all_rows:
        return None
    grades = [int(label) for label in np.unique(study.labels)]
    acts = study.column(feature)
    mean_GP = np.array([mean_course(acts, study.texts.bounds[study.labels == grade]) for grade in grades])
    picture = along_sentence(np.linspace(0, 1, GRID), mean_GP, grades)
    traced = trace_feature(feature, acts, study.texts.bounds, study.labels, [g for g in grades if g > 0] or grades)
    return Panel("Along the sentence", render("course.html", picture=picture, traced=traced, definition=DEFINITION))
