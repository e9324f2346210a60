"""The features that tell the highest grade from the lowest best, for each of several sets of items: one pass over all.

A probe on few features must choose them from the items that it is fitted on, in every fold anew. So one pass over the
recording ranks the features for every fit at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from conceptatlas.ranking.baselines import Contest
from conceptatlas.ranking.columns import ItemColumns
from conceptatlas.ranking.kernels import F64
from conceptatlas.ranking.search import Source

# Features kept for each fit and site.
MOST = 300

Ref = tuple[int, int]
"""Number of the SAE, and index of the feature in it."""


@dataclass(frozen=True)
class Strongest:
    """The strongest features of one site.

    Attributes:
        by_fit: For each fit, (−strength, number of the SAE, index), strongest first.
        shares: Number of the SAE → (features searched, share of the discovery items that they are active on).
    """

    by_fit: list[list[tuple[float, int, int]]]
    shares: dict[int, tuple[int, float]]


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


def strongest_features(
    source: Source, contest: Contest, numbers: Sequence[int], fitted: Sequence[npt.NDArray[np.int64]], most: int = MOST
) -> Strongest:
    """Rank the features of some SAEs by their standardised mean difference, for each set of items.

    Args:
        source: The recording's scores.
        contest: What is highest and lowest.
        numbers: Numbers of the SAEs.
        fitted: For each fit, the items that it may see.
        most: Features kept for each fit.
    """
    best: list[list[tuple[float, int, int]]] = [[] for _ in fitted]
    entries, discovery = dict.fromkeys(numbers, 0), contest.design.discovery
    for chunk in source.chunks(numbers):
        columns = source.load(chunk)
        entries[chunk.sae] += int(discovery[columns.items].sum())
        strength = mean_differences(columns, contest, fitted)
        for s, kept in enumerate(best):
            top = np.argsort(-strength[:, s], kind="stable")[:most]
            kept += [(-float(strength[f, s]), chunk.sae, chunk.start + int(f)) for f in top if strength[f, s] > 0]
    recording = source.recording
    asked = recording.manifest.options.features
    counts = {number: recording.saes[number].d_sae if asked is None else len(asked) for number in numbers}
    n_items = int(discovery.sum())
    shares = {number: (counts[number], entries[number] / max(1, counts[number] * n_items)) for number in numbers}
    return Strongest([sorted(kept)[:most] for kept in best], shares)


def overall(parts: Sequence[Strongest], fit: int, most: int, per_site: int) -> list[Ref]:
    """Return the candidates of one fit: the strongest of all sites, and of each site its own few; strongest first."""
    everything = sorted(line for part in parts for line in part.by_fit[fit])[:most]
    own = [line for part in parts for line in part.by_fit[fit][:per_site]]
    return [(sae, feature) for _, sae, feature in sorted(set(everything) | set(own))]
