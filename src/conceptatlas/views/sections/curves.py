"""The two curves: where in the model the concept emerges, and how far the best stand above chance."""

from __future__ import annotations

from conceptatlas.views.emergence import emergence_of
from conceptatlas.views.html import figure, render
from conceptatlas.views.scores import score_curve
from conceptatlas.views.sections import Section, section
from conceptatlas.views.study_folder import Study
from conceptatlas.views.svg.lines import by_layer, score_by_rank

WIDE, NARROW = 860.0, 350.0


@section("emergence", order=20)
def emergence(study: Study) -> Section | None:
    """Held-out AUROC by layer of the best feature and the baselines, with the null line."""
    found = emergence_of(study)
    if found is None:
        return None
    pictures = [
        by_layer(found.series, null=found.null, width=width, height=height, null_name=found.null_name)
        for width, height in ((WIDE, 320.0), (NARROW, 300.0))
    ]
    low, high = found.grades
    return Section(
        title="Where it emerges",
        lead=f"AUROC of grade {high} against grade {low} on the held-out items, by layer, for the feature of each layer that "
        "was best on discovery and for each baseline. Whiskers: 95% intervals. Dashed: below it lie 95% of scores that know "
        "nothing of the grades, on so many items.",
        body=render("curve.html", pictures=pictures, keys=[(line.look, line.name) for line in found.series], notes=[]),
    )


@section("chance", order=30)
def chance(study: Study) -> Section | None:
    """Score by rank against what the best of as many noise features would reach."""
    curve = score_curve(study)
    if curve is None:
        return None
    pictures = [
        score_by_rank(
            curve.scores, curve.holdout, null=curve.null, score_name="Pearson correlation", width=width, height=height
        )
        for width, height in ((WIDE, 300.0), (NARROW, 280.0))
    ]
    notes = []
    if curve.null is not None:
        above = int((curve.scores > curve.null).sum())
        more = "or more " if above == len(curve.scores) else ""
        notes.append(
            f"The dashed line at {figure(curve.null, 2)} is the 95th percentile, over {study.permutations:,} shuffles of the "
            f"grades, of the best correlation that any feature searched reaches on the discovery items: {above:,} "
            f"{more}features stand above it."
        )
    return Section(
        title="Against chance",
        lead="Search enough features and some will look perfect. Each feature's Pearson correlation with the grade on the "
        "discovery items, by rank; and what is left of it on the hold-out.",
        body=render("curve.html", pictures=pictures, keys=[(0, "discovery"), (1, "the same on hold-out")], notes=notes),
    )
