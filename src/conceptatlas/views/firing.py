"""Where a feature fires, in words: in all recorded rows, and in the rows from which an item's score is taken."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from conceptatlas.evidence import FeatureRef
from conceptatlas.views.study_folder import Study

SCORED_ROWS = {
    "final": "its last row",
    "max": "the largest over its rows",
    "mean": "the mean over its rows",
}


@dataclass(frozen=True)
class Firing:
    """Where a feature fires.

    Attributes:
        words: On how many of the recorded rows, and on how many items in the rows that were scored.
        why: Why the ranking has no figures for it, should it have none.
    """

    words: str
    why: str


def firing_of(study: Study, feature: FeatureRef) -> Firing:
    """Return where a feature fires; the figures agree with ``density`` and ``n_active`` of the ranking."""
    acts, scores = study.column(feature), study.scores(feature)
    n_rows, n_fires = len(acts), int(np.count_nonzero(acts))
    kept = "recorded rows (tokens)" if study.keeps_all_rows else "recorded rows (last tokens; no others were kept)"
    sinks = ", attention sinks left out" if study.left_out is not None else ""
    scored = f"an item's score is {SCORED_ROWS[study.pool]}{sinks}"
    n_items = int(np.count_nonzero(scores))
    if not n_fires:
        words = f"It fires on none of the {n_rows:,} {kept}."
        return Firing(words, "A feature that never fires there has none.")
    words = (
        f"It fires on {n_fires:,} of the {n_rows:,} {kept}; {scored}, and that is not zero on {n_items:,} of "
        f"{len(scores):,} items."
    )
    if not n_items:
        return Firing(
            words, "It does not fire in the rows that were scored, and a feature that is constant there has none."
        )
    if not np.ptp(scores[~study.holdout]):
        return Firing(
            words, "Its score is the same on every discovery item, and a feature that is constant there has none."
        )
    return Firing(words, "It is not among the features that were ranked.")
