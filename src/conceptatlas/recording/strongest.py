"""``--keep top``: of each feature only counts, a histogram, the strongest examples and a fair sample. Pure arrays.

A summary holds no more than so many entries a feature, and two summaries of different rows make that of their union, so a
corpus of any length passes through in constant memory. What comes out does not depend on how the corpus was cut into
shards: the strongest are the largest by magnitude (the earlier row at a tie, see `conceptatlas.base.ties`), and the
sample is the entries whose keyed hash is smallest, which is a uniform sample without replacement of all entries.

Shapes: F features, B bins. Entries stand one feature after the other, as many of each as there are.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from conceptatlas.base.ties import comparable
from conceptatlas.recording._select import count_bins, smallest, smallest_of_two
from conceptatlas.saes.sparse import SparseColumns

DECILES = 10
SAMPLES_PER_DECILE = 4
SAMPLES = DECILES * SAMPLES_PER_DECILE
# Magnitudes, two bins to every doubling; the outer bins hold what lies beyond.
HISTOGRAM_EDGES: npt.NDArray[np.float64] = 2.0 ** (np.arange(-20, 33) / 2)
BINS = len(HISTOGRAM_EDGES) + 1

Starts = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int32]


class Entries(NamedTuple):
    """Some entries of each feature, in order."""

    starts: Starts
    """int64 [F + 1]: the entries of feature f are ``rows[starts[f]:starts[f + 1]]``."""
    rows: Rows
    """int32 [n]."""
    values: Floats
    """float32 [n]."""

    def features(self) -> npt.NDArray[np.int64]:
        """Return the feature of each entry, int64 [n]."""
        return _owners(self.starts)


@dataclass(frozen=True)
class Strongest:
    """The summary of one SAE over some rows.

    Attributes:
        sums: Sum of the activations, float64 [F].
        starts: Where each feature's bins, strongest and sampled entries begin, int64 [3, F + 1].
        bin_numbers: The bins that hold entries, by magnitude, uint8.
        bin_counts: How many each of them holds, int32 (as rows are).
        top_rows: Of the strongest entries, strongest first, int32.
        top_values: float32.
        sample_rows: Of the sampled entries, ascending by hash, int32.
        sample_values: float32.
    """

    sums: npt.NDArray[np.float64]
    starts: Starts
    bin_numbers: npt.NDArray[np.uint8]
    bin_counts: npt.NDArray[np.int32]
    top_rows: Rows
    top_values: Floats
    sample_rows: Rows
    sample_values: Floats

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return the arrays by file name."""
        return {f"{field.name}.npy": getattr(self, field.name) for field in fields(self)}

    @property
    def n_features(self) -> int:
        """F."""
        return len(self.sums)

    @property
    def top(self) -> Entries:
        """The strongest entries, strongest first."""
        return Entries(self.starts[1], self.top_rows, self.top_values)

    @property
    def sample(self) -> Entries:
        """The sampled entries, ascending by hash."""
        return Entries(self.starts[2], self.sample_rows, self.sample_values)

    def histogram(self) -> npt.NDArray[np.int64]:
        """Return the entries by magnitude, int64 [F, B]."""
        dense = np.zeros((self.n_features, BINS), np.int64)
        dense[_owners(self.starts[0]), self.bin_numbers] = self.bin_counts
        return dense


def hash_keys(seed: int, features: npt.NDArray[np.int64], rows: Rows) -> Keys:
    """Return a 64-bit hash of (seed, feature, row) for each entry: SplitMix64 (Steele et al. 2014) of their mixture."""
    with np.errstate(over="ignore"):
        z = features.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + rows.astype(np.uint64)
        z = z * np.uint64(0xD1342543DE82EF95) + np.uint64(seed & 0xFFFFFFFFFFFFFFFF)
        for _ in range(2):  # twice, because features and rows are small consecutive numbers
            z += np.uint64(0x9E3779B97F4A7C15)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z ^= z >> np.uint64(31)
    return z


def strength_keys(rows: Rows, values: Floats) -> Keys:
    """Return a number for each entry that is the smaller, the stronger it is; at a tie, the earlier its row.

    The bits of positive float32 numbers order as the numbers do.
    """
    magnitude = comparable(np.abs(values)).view(np.uint32)
    return (~magnitude).astype(np.uint64) << np.uint64(32) | rows.astype(np.uint64)


def summarise(columns: SparseColumns, per_feature: int, seed: int) -> Strongest:
    """Return the summary of some rows.

    Args:
        columns: Their sparse columns; ``rows`` are the recording's row numbers.
        per_feature: How many strongest entries to keep of each feature, at least 1.
        seed: Of the sample.
    """
    entries = Entries(columns.indptr, columns.rows, columns.values)
    features = entries.features()
    anything = np.full(columns.n_features, np.iinfo(np.uint64).max, np.uint64)
    top = smallest(columns.indptr, strength_keys(columns.rows, columns.values), anything, per_feature)
    sample = smallest(columns.indptr, hash_keys(seed, features, columns.rows), anything, SAMPLES)
    return _summary(
        np.bincount(features, columns.values.astype(np.float64), columns.n_features).astype(np.float64),
        count_bins(columns.indptr, columns.values, HISTOGRAM_EDGES),
        _chosen(entries, *top),
        _chosen(entries, *sample),
    )


def union(first: Strongest, second: Strongest, per_feature: int, seed: int) -> Strongest:
    """Return the summary of two sets of rows that share none; both were made with ``per_feature`` and ``seed``."""
    top = smallest_of_two(
        first.top.starts, strength_keys(first.top_rows, first.top_values),
        second.top.starts, strength_keys(second.top_rows, second.top_values), per_feature,
    )  # fmt: skip
    sample = smallest_of_two(
        first.sample.starts, hash_keys(seed, first.sample.features(), first.sample_rows),
        second.sample.starts, hash_keys(seed, second.sample.features(), second.sample_rows), SAMPLES,
    )  # fmt: skip
    return _summary(
        first.sums + second.sums,
        first.histogram() + second.histogram(),
        _chosen(_one_after_the_other(first.top, second.top), *top),
        _chosen(_one_after_the_other(first.sample, second.sample), *sample),
    )


def _owners(starts: Starts) -> npt.NDArray[np.int64]:
    """Return the feature of each entry."""
    return np.repeat(np.arange(len(starts) - 1, dtype=np.int64), np.diff(starts))


def _one_after_the_other(first: Entries, second: Entries) -> Entries:
    rows = np.concatenate([first.rows, second.rows])
    return Entries(first.starts, rows, np.concatenate([first.values, second.values]))


def _chosen(entries: Entries, starts: Starts, places: npt.NDArray[np.int64]) -> Entries:
    return Entries(starts, entries.rows[places], entries.values[places])


def _summary(
    sums: npt.NDArray[np.float64], histogram: npt.NDArray[np.int64], top: Entries, sample: Entries
) -> Strongest:
    features, numbers = np.nonzero(histogram)
    bins = np.searchsorted(features, np.arange(len(sums) + 1))
    return Strongest(
        sums=sums,
        starts=np.stack([bins, top.starts, sample.starts]),
        bin_numbers=numbers.astype(np.uint8),
        bin_counts=histogram[features, numbers].astype(np.int32),
        top_rows=top.rows,
        top_values=top.values,
        sample_rows=sample.rows,
        sample_values=sample.values,
    )


def as_table(summary: Strongest) -> pl.DataFrame:
    """Return one line per feature; lists hold entries only.

    ``sample_decile`` is each sampled entry's decile among the sampled entries of its feature by magnitude, 0 the weakest.
    """
    histogram, top, sample = summary.histogram(), summary.top, summary.sample
    return pl.DataFrame(
        {
            "feature": np.arange(summary.n_features, dtype=np.int32),
            "n_active": histogram.sum(axis=1),
            "sum": summary.sums,
            "top_rows": _lists(top.rows, top.starts),
            "top_values": _lists(top.values, top.starts),
            "sample_rows": _lists(sample.rows, sample.starts),
            "sample_values": _lists(sample.values, sample.starts),
            "sample_decile": _lists(_deciles(sample), sample.starts),
            "histogram": _lists(histogram.reshape(-1), np.arange(summary.n_features + 1) * BINS),
        }
    )


def _deciles(sample: Entries) -> npt.NDArray[np.int8]:
    """Return each entry's decile by magnitude among those of its feature; at a tie the earlier entry ranks lower."""
    features = sample.features()
    order = np.lexsort((comparable(np.abs(sample.values)), features))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - sample.starts[:-1][features]
    number = np.diff(sample.starts)[features]
    return np.minimum(rank * DECILES // np.maximum(number, 1), DECILES - 1).astype(np.int8)


def _lists(values: npt.NDArray[np.generic], starts: Starts) -> pl.Series:
    """Return ragged entries as lists, one a feature."""
    flat = pl.DataFrame({"feature": _owners(starts), "value": values})
    grouped = flat.group_by("feature", maintain_order=True).agg("value")
    everyone = pl.DataFrame({"feature": np.arange(len(starts) - 1)})
    joined = everyone.join(grouped, on="feature", how="left", maintain_order="left")
    empty = pl.lit(pl.Series([[]], dtype=joined["value"].dtype))
    return joined.select(pl.col("value").fill_null(empty))["value"]
