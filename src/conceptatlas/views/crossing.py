"""``compare_concepts``: the cross-concept matrix, its files, and its heat map."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from conceptatlas.base.kinds import COMPARISON
from conceptatlas.base.writing import may_replace_folder, writing
from conceptatlas.ranking import CrossConcepts, Ranking, cross_concepts
from conceptatlas.recording import Recording

CROSS_PNG = "cross_concepts.png"


def compare_concepts(
    rankings: Sequence[Ranking | str | os.PathLike[str]],
    recordings: Sequence[Recording | str | os.PathLike[str]] | None = None,
    out: str | os.PathLike[str] | None = None,
    *,
    top: int = 3,
) -> CrossConcepts:
    """Judge the best features of each concept on the held-out items of every concept.

    Args:
        rankings: Two or more rankings of the same model and SAEs, or their folders.
        recordings: The recording of each, in the same order; None takes those that the rankings name.
        out: Where to write ``cross_concepts.json``, ``cross_concepts.csv`` and ``cross_concepts.png``; None writes nothing.
        top: How many features of each concept.

    Raises:
        InputError: See ``conceptatlas.ranking.cross_concepts``.
    """
    if out is not None:
        may_replace_folder(COMPARISON, Path(out))  # before the work, not after it
    found = cross_concepts(rankings, recordings, top=top)
    if out is not None:
        from conceptatlas.views.plots.cross import cross_figure
        from conceptatlas.views.plots.style import save_png

        with writing(COMPARISON, out, found.inputs) as folder:
            found.write_files(folder)
            save_png(cross_figure(found), folder / CROSS_PNG)
    return found
