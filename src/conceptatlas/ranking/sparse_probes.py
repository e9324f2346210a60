"""Baselines made of sparse features: k-sparse probes, and the best feature of a frozen-random SAE."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from conceptatlas.base.progress import progress_bar
from conceptatlas.ranking.baselines import (
    Baseline,
    Contest,
    bag_of_words,
    difference_of_means,
    logistic_probe,
    sentence_length,
    standardised,
)
from conceptatlas.ranking.columns import ItemColumns
from conceptatlas.ranking.kernels import F64
from conceptatlas.ranking.options import RankOptions
from conceptatlas.ranking.scoring import score_columns
from conceptatlas.ranking.search import Source, in_order, passes
from conceptatlas.recording import RecordedSAE
from conceptatlas.statistics.folds import mean_auroc
from conceptatlas.statistics.logistic import fit_logistic

SPARSITIES = (1, 2, 5, 10, 20)
_FEATURES_PER_TILE = 1024
# Random features from which the threshold is read.
_SAMPLE = 512


def mean_differences(columns: ItemColumns, contest: Contest, fitted: Sequence[npt.NDArray[np.int64]]) -> F64:
    """Return |mean of highest − mean of lowest| / deviation of each feature over each set of items, float64 [F, S].

    Args:
        columns: Scores of all items.
        contest: What is highest and lowest.
        fitted: For each of S fits, the items that it may see.
    """
    n = contest.design.n_items
    high, low, every = (np.zeros((n, len(fitted))) for _ in range(3))
    for s, items in enumerate(fitted):
        is_high = contest.is_high[items]
        high[items, s] = is_high / max(1, is_high.sum())
        low[items, s] = ~is_high / max(1, (~is_high).sum())
        every[items, s] = 1 / len(items)
    shape = (columns.n_features, n)
    values = columns.values.astype(np.float64)
    x = sp.csr_matrix((values, columns.items, columns.indptr), shape=shape)
    squares = sp.csr_matrix((values**2, columns.items, columns.indptr), shape=shape)
    mean_square = squares @ every
    variance = mean_square - (x @ every) ** 2
    difference = np.abs(x @ (high - low))
    # Below this a variance is rounding: the feature is constant on these items.
    varies = variance > 1e-12 * mean_square
    return np.where(varies, difference / np.sqrt(np.where(varies, variance, 1)), 0.0)


def k_sparse_probes(source: Source, contest: Contest, site: str, numbers: Sequence[int]) -> list[Baseline]:
    """Return k-sparse probes on the features of one site: logistic regression on the k best by mean difference.

    The k features are chosen anew in every fold, from the items that the fold is fitted on.

    Args:
        source: The recording's scores.
        contest: The items.
        site: The site's name.
        numbers: Numbers of the SAEs of this site; features of all of them compete.
    """
    fitted = [contest.train, *(contest.train[inside] for inside, _ in contest.splits())]
    best: list[list[tuple[float, int, int]]] = [[] for _ in fitted]
    for chunk in source.chunks(numbers):
        strength = mean_differences(source.load(chunk), contest, fitted)
        for s, kept in enumerate(best):
            top = np.argsort(-strength[:, s], kind="stable")[: SPARSITIES[-1]]
            kept += [(-float(strength[f, s]), chunk.sae, chunk.start + int(f)) for f in top if strength[f, s] > 0]
    chosen = [sorted(kept)[: SPARSITIES[-1]] for kept in best]
    if not chosen[0]:
        return []
    columns = [source.gather(*(np.array([line[i] for line in lines], int) for i in (1, 2))) for lines in chosen]
    scores = [
        standardised(c.dense(contest.design.n_items).astype(np.float64), f)
        for c, f in zip(columns, fitted, strict=True)
    ]
    return [_k_sparse(contest, scores, fitted, site, k) for k in SPARSITIES if k <= len(chosen[0])]


def _k_sparse(contest: Contest, scores: list[F64], fitted: list[npt.NDArray[np.int64]], site: str, k: int) -> Baseline:
    def fit(s: int) -> F64:
        x = scores[s][:, :k]
        return fit_logistic(x[fitted[s]], contest.is_high[fitted[s]]).scores(x)

    y = contest.is_high[contest.train]
    out, judged = np.zeros(len(y)), np.zeros(len(y), dtype=bool)
    for s, (_, outside) in enumerate(contest.splits(), start=1):
        out[outside] = fit(s)[contest.train[outside]]
        judged |= outside
    discovery = mean_auroc(out[judged], y[judged], contest.fold[judged])
    return contest.entry("k_sparse", f"k-sparse probe, k = {k}", fit(0), discovery, site=site, k=k)


def random_columns(
    hidden: npt.NDArray[np.floating],
    inside: npt.NDArray[np.bool_],
    *,
    d_sae: int,
    l0: float,
    rng: np.random.Generator,
) -> ItemColumns:
    """Return the activations of a frozen-random SAE at the final rows, one per item and feature.

    Encoder rows are random unit vectors, the input is centred on the discovery mean, and one threshold for all
    features is set so that on average ``l0`` of ``d_sae`` are active on discovery (a JumpReLU with random weights).

    Args:
        hidden: Hidden states at final rows, [N, D].
        inside: Discovery items, bool [N].
        d_sae: F.
        l0: Mean number of active features aimed at.
        rng: Where the weights come from.
    """
    x = (hidden - hidden[inside].mean(axis=0)).astype(np.float32)
    share = min(max(l0 / d_sae, 0.0), 1.0)
    sample = _directions(_SAMPLE, x.shape[1], rng) @ x[inside].T
    threshold = max(float(np.quantile(sample, 1 - share)), 0.0)
    counts, items, values = [np.zeros(1, np.int64)], [], []
    for start in range(0, d_sae, _FEATURES_PER_TILE):
        pre = _directions(min(_FEATURES_PER_TILE, d_sae - start), x.shape[1], rng) @ x.T
        feature, item = np.nonzero(pre > threshold)
        counts.append(np.bincount(feature, minlength=len(pre)))
        items.append(item.astype(np.int32))
        values.append(pre[feature, item])
    return ItemColumns(np.cumsum(np.concatenate(counts)), np.concatenate(items), np.concatenate(values))


def _directions(count: int, width: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    weights = rng.standard_normal((count, width), dtype=np.float32)
    return weights / np.linalg.norm(weights, axis=1, keepdims=True)


def random_sae(
    contest: Contest,
    hidden: npt.NDArray[np.floating],
    sae: RecordedSAE,
    options: RankOptions,
    rng: np.random.Generator,
) -> Baseline | None:
    """Return the best feature of a frozen-random SAE of the shape and L0 of ``sae``, chosen as real ones are.

    That is: the best score among those that pass the filters, else the best score; None where nothing fires.
    """
    design = contest.design
    columns = random_columns(hidden, design.discovery, d_sae=sae.d_sae, l0=sae.average_l0, rng=rng)
    figures = score_columns(columns, design, direction=options.direction)
    usable = ~np.isnan(figures["interpretability_score"])
    if not usable.any():
        return None
    kept = passes(figures, options)
    lines = np.flatnonzero(kept if kept.any() else usable)
    best = lines[in_order(figures["interpretability_score"][lines], figures["pearson_corr"][lines])[0]]
    sign = -1.0 if figures["falling"][best] else 1.0
    scores = sign * columns.select(np.array([best])).dense(design.n_items)[:, 0].astype(np.float64)
    found = figures["auroc"][best] if sign > 0 else 1 - figures["auroc"][best]
    detail = f"best of {sae.d_sae:,} random features at L0 {sae.average_l0:g}"
    return contest.entry("random_sae", "frozen-random SAE", scores, float(found), site=sae.site, detail=detail)


def all_baselines(source: Source, contest: Contest, options: RankOptions) -> tuple[list[Baseline], list[str]]:
    """Return every baseline of a recording, text first, then site by site, and what could not be computed, and why."""
    recording = source.recording
    out = [bag_of_words(contest, recording.items["text"].to_list()), sentence_length(contest)]
    by_site: dict[str, list[int]] = {}
    for number, sae in enumerate(recording.saes):
        by_site.setdefault(sae.site, []).append(number)
    kept = recording.hidden_sites
    sites = [*(site for site in kept if site not in by_site), *by_site]
    with progress_bar("Baselines", len(sites)) as bar:
        for order, site in enumerate(sites):
            if site in kept:
                hidden = np.asarray(recording.hidden_final(site))
                out += [difference_of_means(contest, hidden, site), logistic_probe(contest, hidden, site)]
                if site in by_site:
                    members = sorted((recording.saes[i] for i in by_site[site]), key=lambda sae: sae.average_l0)
                    rng = np.random.default_rng([options.seed, 2, order])
                    random = random_sae(contest, hidden, members[len(members) // 2], options, rng)
                    out += [random] if random is not None else []
            if site in by_site:
                out += k_sparse_probes(source, contest, site, by_site[site])
            bar.advance()
    missing = [site for site in by_site if site not in kept]
    notes = []
    if missing:
        notes.append(
            f"No hidden states were kept at {', '.join(missing[:3])}{' …' if len(missing) > 3 else ''}: difference of "
            "means, logistic probe and frozen-random SAE are missing there; record with --hidden final."
        )
    return out, notes
