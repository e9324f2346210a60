"""``--keep top``: of each feature only counts, a histogram, the strongest examples and a fair sample. Pure arrays.

A summary of some rows has a fixed size, and two summaries of different rows make that of their union, so a corpus of any
length passes through in constant memory. What comes out does not depend on how the corpus was cut into shards: the
strongest are the largest by magnitude (the earlier row at a tie), and the sample is the entries whose keyed hash is
smallest, which is a uniform sample without replacement of all entries.

Shapes: F features, K examples, S sampled entries, B bins.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import polars as pl

from conceptatlas.saes.sparse import SparseColumns

DECILES = 10
SAMPLES_PER_DECILE = 4
SAMPLES = DECILES * SAMPLES_PER_DECILE
# Magnitudes, two bins to every doubling; the outer bins hold what lies beyond.
HISTOGRAM_EDGES: npt.NDArray[np.float64] = 2.0 ** (np.arange(-20, 33) / 2)
NO_ROW = -1

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Strongest:
    """The summary of one SAE over some rows; places without an entry have row −1.

    Attributes:
        counts: Active rows, int64 [F].
        sums: Sum of the activations, float64 [F].
        histogram: Entries by magnitude, int64 [F, B].
        top_rows: int32 [F, K], strongest first.
        top_values: float32 [F, K].
        sample_keys: uint64 [F, S], ascending.
        sample_rows: int32 [F, S].
        sample_values: float32 [F, S].
    """

    counts: npt.NDArray[np.int64]
    sums: npt.NDArray[np.float64]
    histogram: npt.NDArray[np.int64]
    top_rows: Rows
    top_values: Floats
    sample_keys: npt.NDArray[np.uint64]
    sample_rows: Rows
    sample_values: Floats

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return the arrays by file name."""
        return {f"{field.name}.npy": getattr(self, field.name) for field in fields(self)}


def hash_keys(seed: int, features: npt.NDArray[np.int64], rows: Rows) -> npt.NDArray[np.uint64]:
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


def summarise(columns: SparseColumns, per_feature: int, seed: int) -> Strongest:
    """Return the summary of some rows from their sparse columns (``rows`` are the recording's row numbers)."""
    n_features = columns.n_features
    counts = columns.counts()
    features = np.repeat(np.arange(n_features, dtype=np.int64), counts)
    magnitude = np.abs(columns.values)
    bins = np.searchsorted(HISTOGRAM_EDGES, magnitude, side="right")
    width = len(HISTOGRAM_EDGES) + 1
    histogram = np.bincount(features * width + bins, minlength=n_features * width).reshape(n_features, width)
    by_strength = np.lexsort((columns.rows, -magnitude, features))
    keys = hash_keys(seed, features, columns.rows)
    by_key = np.lexsort((keys, features))
    top_rows, top_values = _first_places(columns, by_strength, features, per_feature)
    sample_rows, sample_values = _first_places(columns, by_key, features, SAMPLES)
    sample_keys = np.full((n_features, SAMPLES), np.iinfo(np.uint64).max, np.uint64)
    _place(sample_keys, keys[by_key], columns.indptr, features)
    return Strongest(
        counts=counts.astype(np.int64),
        sums=np.bincount(features, columns.values.astype(np.float64), n_features).astype(np.float64),
        histogram=histogram.astype(np.int64),
        top_rows=top_rows,
        top_values=top_values,
        sample_keys=sample_keys,
        sample_rows=sample_rows,
        sample_values=sample_values,
    )


def _place(
    target: npt.NDArray[np.generic],
    ordered: npt.NDArray[np.generic],
    indptr: npt.NDArray[np.int64],
    features: npt.NDArray[np.int64],
) -> None:
    """Put the first entries of each feature (``ordered`` within features) into ``target`` [F, places]."""
    place = np.arange(len(ordered)) - indptr[:-1][features]
    kept = place < target.shape[1]
    target[features[kept], place[kept]] = ordered[kept]


def _first_places(
    columns: SparseColumns, order: npt.NDArray[np.int64], features: npt.NDArray[np.int64], places: int
) -> tuple[Rows, Floats]:
    rows = np.full((columns.n_features, places), NO_ROW, np.int32)
    values = np.zeros((columns.n_features, places), np.float32)
    _place(rows, columns.rows[order], columns.indptr, features)
    _place(values, columns.values[order], columns.indptr, features)
    return rows, values


def union(first: Strongest, second: Strongest) -> Strongest:
    """Return the summary of two sets of rows that share none."""
    top_rows = np.concatenate([first.top_rows, second.top_rows], axis=1)
    top_values = np.concatenate([first.top_values, second.top_values], axis=1)
    strength = np.where(top_rows == NO_ROW, -np.inf, np.abs(top_values))
    order = np.lexsort((top_rows, -strength), axis=1)[:, : first.top_rows.shape[1]]
    keys = np.concatenate([first.sample_keys, second.sample_keys], axis=1)
    by_key = np.argsort(keys, axis=1, kind="stable")[:, :SAMPLES]
    sample_rows = np.concatenate([first.sample_rows, second.sample_rows], axis=1)
    sample_values = np.concatenate([first.sample_values, second.sample_values], axis=1)
    return Strongest(
        counts=first.counts + second.counts,
        sums=first.sums + second.sums,
        histogram=first.histogram + second.histogram,
        top_rows=np.take_along_axis(top_rows, order, axis=1),
        top_values=np.take_along_axis(top_values, order, axis=1),
        sample_keys=np.take_along_axis(keys, by_key, axis=1),
        sample_rows=np.take_along_axis(sample_rows, by_key, axis=1),
        sample_values=np.take_along_axis(sample_values, by_key, axis=1),
    )


def as_table(summary: Strongest) -> pl.DataFrame:
    """Return one line per feature; lists hold entries only.

    ``sample_decile`` is each sampled entry's decile among the sampled entries of its feature by magnitude, 0 the weakest.
    """
    taken = summary.sample_rows != NO_ROW
    magnitude = np.where(taken, np.abs(summary.sample_values), np.inf)
    rank = np.argsort(np.argsort(magnitude, axis=1, kind="stable"), axis=1, kind="stable")
    number = np.maximum(taken.sum(axis=1, keepdims=True), 1)
    decile = np.minimum(rank * DECILES // number, DECILES - 1)
    found = summary.top_rows != NO_ROW
    return pl.DataFrame(
        {
            "feature": np.arange(len(summary.counts), dtype=np.int32),
            "n_active": summary.counts,
            "sum": summary.sums,
            "top_rows": _lists(summary.top_rows, found),
            "top_values": _lists(summary.top_values, found),
            "sample_rows": _lists(summary.sample_rows, taken),
            "sample_values": _lists(summary.sample_values, taken),
            "sample_decile": _lists(decile.astype(np.int8), taken),
            "histogram": _lists(summary.histogram, np.ones_like(summary.histogram, dtype=bool)),
        }
    )


def _lists(values: npt.NDArray[np.generic], taken: npt.NDArray[np.bool_]) -> pl.Series:
    """Return a [F, places] array as lists that hold the taken places only."""
    feature = np.repeat(np.arange(len(values)), values.shape[1])[taken.reshape(-1)]
    flat = pl.DataFrame({"feature": feature, "value": values.reshape(-1)[taken.reshape(-1)]})
    grouped = flat.group_by("feature", maintain_order=True).agg("value")
    everyone = pl.DataFrame({"feature": np.arange(len(values))})
    joined = everyone.join(grouped, on="feature", how="left", maintain_order="left")
    empty = pl.lit(pl.Series([[]], dtype=joined["value"].dtype))
    return joined.select(pl.col("value").fill_null(empty))["value"]
