"""The stage ``effect``: measure what the best features cause, and draw their dose–responses."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from conceptatlas.evidence.readout import ReadoutKind

if TYPE_CHECKING:
    from conceptatlas.evidence.effect_result import Effects
    from conceptatlas.ranking import Ranking
    from conceptatlas.recording import Recording


def effect(
    ranking: Ranking | str | os.PathLike[str],
    rec: Recording | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    top_n: int = 5,
    per_layer: bool = False,
    targets: Sequence[str] | None = None,
    readout: ReadoutKind = "auto",
    append: str = "",
    alpha: float | None = None,
    n_items: int = 32,
    n_controls: int = 20,
    device: str = "auto",
    seed: int = 0,
) -> Effects:
    """Measure what the best features of a ranking cause, and write tables and plots.

    Writes ``effects.csv``, ``effects.json``, ``output_scores.parquet``, ``run.json`` and ``feature_{rank:02d}_dose.png``.
    For the arguments and what each figure means see `conceptatlas.evidence.measure_effects`.

    Raises:
        InputError: See there.
    """
    from conceptatlas.base.kinds import EFFECTS
    from conceptatlas.base.writing import writing
    from conceptatlas.evidence import measure_effects
    from conceptatlas.evidence.effect_result import write_effects
    from conceptatlas.ranking import Ranking
    from conceptatlas.recording import Recording
    from conceptatlas.views.plots.doses import dose_figure
    from conceptatlas.views.plots.style import save_png

    ranked = ranking if isinstance(ranking, Ranking) else Ranking.open(ranking)
    recording = rec if isinstance(rec, Recording) else Recording.open(rec)
    inputs = {"recording": recording.path} | ({} if ranked.path is None else {"ranking": ranked.path})
    with writing(EFFECTS, out, inputs) as folder:
        found = measure_effects(
            ranked, recording, top_n=top_n, per_layer=per_layer, targets=targets, readout=readout, append=append,
            alpha=alpha, n_items=n_items, n_controls=n_controls, device=device, seed=seed,
        )  # fmt: skip
        write_effects(found, folder)
        for number, one in enumerate(found.features, start=1):
            picture = dose_figure(one.effect.doses, used=one.effect.alpha, title=one.feature.label)
            save_png(picture, folder / f"feature_{one.feature.rank or number:02d}_dose.png")
    return replace(found, path=Path(out))
