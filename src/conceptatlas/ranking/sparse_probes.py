"""k-sparse probes (Gurnee et al. 2023): logistic regression on the k strongest features of a site."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from conceptatlas.ranking.baselines import Baseline, Contest, rounded, standardised
from conceptatlas.ranking.kernels import F64
from conceptatlas.ranking.search import Source
from conceptatlas.ranking.strongest import Strongest
from conceptatlas.statistics.logistic import fit_logistic

SPARSITIES = (1, 2, 5, 10, 20)


def k_sparse_probes(source: Source, contest: Contest, site: str, strongest: Strongest) -> list[Baseline]:
    """Return k-sparse probes on the features of one site: logistic regression on the k best by mean difference.

    The k features are chosen anew in every fold, from the items that the fold is fitted on.

    Args:
        source: The recording's scores.
        contest: The items.
        site: The site's name.
        strongest: Its strongest features for each of the contest's ``fitted_sets``.
    """
    chosen = [lines[: SPARSITIES[-1]] for lines in strongest.by_fit]
    if not chosen[0]:
        return []
    fitted = contest.fitted_sets()
    columns = [source.gather(*(np.array([line[i] for line in lines], int) for i in (1, 2))) for lines in chosen]
    scores = [
        standardised(c.dense(contest.design.n_items).astype(np.float64), f)
        for c, f in zip(columns, fitted, strict=True)
    ]
    probes = [_k_sparse(contest, scores, fitted, site, source.pool, k) for k in SPARSITIES if k <= len(chosen[0])]
    _, number, feature = chosen[0][0]
    return [replace(probes[0], slug=source.recording.saes[number].slug, feature_id=feature), *probes[1:]]


def _k_sparse(
    contest: Contest, scores: list[F64], fitted: list[npt.NDArray[np.int64]], site: str, pool: str, k: int
) -> Baseline:
    by_fit = np.column_stack(
        [
            rounded(fit_logistic(x[items, :k], contest.is_high[items]).scores(x[:, :k]))
            for x, items in zip(scores, fitted, strict=True)
        ]
    )
    discovery = contest.out_of_fold(by_fit)[0]
    return contest.entry("k_sparse", f"k-sparse probe, k = {k}", by_fit[:, 0], discovery, site=site, k=k, pool=pool)
