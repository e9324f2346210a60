"""The frozen-decoder controls of a recording: their best latent, searched for and chosen as the features are.

The control of an SAE (``conceptatlas train --control``; Korznikov et al. 2026, arXiv 2602.14111) is trained like it around
random directions that are never trained. Its latents are no findings: they are not ranked, and the best of them is a
baseline, as random directions are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from conceptatlas.ranking.baselines import Baseline, Contest
from conceptatlas.ranking.options import RankOptions
from conceptatlas.ranking.scoring import score_columns
from conceptatlas.ranking.search import DENSE, Source, passes, table_order

if TYPE_CHECKING:
    from conceptatlas.ranking.columns import ItemColumns
    from conceptatlas.ranking.kernels import F64

KIND, NAME = "frozen_decoder", "SAE with a frozen decoder"


def frozen_decoder(
    source: Source, contest: Contest, site: str, numbers: Sequence[int], options: RankOptions
) -> Baseline | None:
    """Return the best latent of the controls of a site; None where none varies over the discovery items.

    Args:
        source: Scores per item.
        contest: The items.
        site: The site.
        numbers: Numbers of its controls.
        options: How the best is chosen: the best score among those that pass the filters, else the best score.
    """
    best: list[tuple[int, int]] = []
    searched = 0
    for chunk in source.chunks(numbers):
        searched += chunk.stop - chunk.start
        score = np.zeros(chunk.stop - chunk.start)
        if options.without_dense:
            score[source.firing_rows(chunk) > DENSE * source.n_recorded_rows] = np.nan
        line = _best(source.load(chunk), contest, options, score)
        best += [] if line is None else [(chunk.sae, chunk.start + line)]
    if not best:
        return None
    pairs = np.array(best)
    columns = source.gather(pairs[:, 0], pairs[:, 1])
    line = _best(columns, contest, options, np.zeros(len(best)))
    assert line is not None
    one = columns.select(np.array([line]))
    figures = score_columns(one, contest.design, direction=options.direction)
    scores: F64 = one.dense(contest.design.n_items)[:, 0].astype(np.float64)
    falls, found = bool(figures["falling"][0]), float(figures["auroc"][0])
    sae = source.recording.saes[int(pairs[line, 0])]
    return contest.entry(
        KIND,
        NAME,
        -scores if falls else scores,
        1 - found if falls else found,
        site=site,
        pool=source.pool,
        detail=f"best of {searched:,} latents with frozen random directions: {sae.sae_id}, {int(pairs[line, 1])}",
    )


def _best(columns: ItemColumns, contest: Contest, options: RankOptions, without: F64) -> int | None:
    """Return the column that a ranking would put first, or None; ``without`` [F] is NaN for those that are left out."""
    figures = score_columns(columns, contest.design, direction=options.direction)
    kept = passes(figures, options) & ~np.isnan(without)
    order = table_order(kept, figures["interpretability_score"] + without, figures["pearson_corr"], 1)
    return int(order[0]) if len(order) else None
