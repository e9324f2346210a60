"""What the truth itself reaches on the hold-out, for sentences that were made by rule: the most to expect of a method."""

from __future__ import annotations

from typing import Any

import polars as pl

from conceptatlas.ranking.baselines import Contest
from conceptatlas.recording import Recording

# In the built-in sets: a real number, to which the graders' errors were added before it became a grade.
COLUMN = "degree"
BUILT_IN = "organism"


def truth_of(recording: Recording, contest: Contest) -> dict[str, Any]:
    """Return the hold-out figures of the built-in sentences' true degrees, as ``Contest.held_out``; else nothing."""
    items = recording.items
    if recording.manifest.subject.id != BUILT_IN or COLUMN not in items.columns:
        return {}
    degrees = items[COLUMN].cast(pl.Float64, strict=False)
    return {} if degrees.null_count() else contest.held_out(degrees.to_numpy())
