"""The search: every feature of every SAE of a recording, chunk by chunk, in threads."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

from conceptatlas.base.errors import InputError
from conceptatlas.base.progress import progress_bar
from conceptatlas.ranking.columns import ItemColumns, RowMap, column_chunks, pool_columns
from conceptatlas.ranking.design import Design
from conceptatlas.ranking.hidden import Pooled, pooled_states
from conceptatlas.ranking.kernels import F64
from conceptatlas.ranking.null import F32, Permutations, extreme_correlations
from conceptatlas.ranking.options import RankOptions
from conceptatlas.ranking.rank_null import RankNull
from conceptatlas.ranking.scoring import FIGURES, score_columns
from conceptatlas.ranking.sinks import rows_to_leave_out
from conceptatlas.recording import Recording, SparseColumns

# Entries per chunk: its arrays stay in the cache, and memory does not grow with the recording.
CHUNK_ENTRIES = 1 << 18
# A feature that fires on more than this share of the rows is called dense: it seldom means one thing.
DENSE = 0.5

Table = dict[str, npt.NDArray[np.float32]]


def worker_count() -> int:
    """Return how many threads to use: the cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Source:
    """Scores per item of a recording's features, read through memory maps."""

    def __init__(self, recording: Recording, pool: str, *, without_sinks: bool = False) -> None:
        """Read scores pooled by ``pool``, over all rows or ``without_sinks``.

        Raises:
            InputError: The recording lacks the rows, or the flags, that this needs.
        """
        keep = recording.manifest.options.keep
        if pool != "final" and keep == "final":
            raise InputError(
                f"--pool {pool} needs features at every row, and {recording.path} kept final rows only; "
                "use --pool final, or record again into another folder with --keep all "
                "(with --features 11,313,… only the columns that you need)."
            )
        self.recording = recording
        self.pool = pool
        self.left_out = rows_to_leave_out(recording) if without_sinks and pool != "final" else None
        self._rows = RowMap.build(recording.item_of_row, recording.final_rows, self.left_out)
        self._opened: dict[int, SparseColumns] = {}

    def _columns(self, number: int) -> SparseColumns:
        """Return the memory-mapped columns of the SAE of this number, opened (and checked) once."""
        if number not in self._opened:
            self._opened[number] = self.recording.columns(self.recording.saes[number].slug)
        return self._opened[number]

    def chunks(self, numbers: Sequence[int] | None = None) -> list[Chunk]:
        """Return the columns of all SAEs but controls (or of those of these numbers), cut by ``CHUNK_ENTRIES``."""
        out = []
        for number, sae in enumerate(self.recording.saes):
            if sae.control_of is not None if numbers is None else number not in numbers:
                continue
            indptr = self._columns(number).indptr
            out += [Chunk(number, start, stop) for start, stop in column_chunks(indptr, CHUNK_ENTRIES)]
        return out

    def load(self, chunk: Chunk) -> ItemColumns:
        """Return the scores of a chunk's features."""
        stored = self._columns(chunk.sae)
        indptr = np.asarray(stored.indptr[chunk.start : chunk.stop + 1])
        part = slice(int(indptr[0]), int(indptr[-1]))
        rows, values = np.asarray(stored.rows[part]), np.asarray(stored.values[part])
        return pool_columns(indptr - indptr[0], rows, values, self._rows, how=self.pool)

    def firing_rows(self, chunk: Chunk) -> npt.NDArray[np.int64]:
        """Return on how many recorded rows each feature of a chunk fires, pooled over or not, int64 [F]."""
        return np.diff(self._columns(chunk.sae).indptr[chunk.start : chunk.stop + 1])

    @property
    def n_recorded_rows(self) -> int:
        """The rows whose features were kept: all, or the items' final ones."""
        return self.recording.n_rows if self.recording.keeps_all_rows else self.recording.n_items

    def pooled_states(self, site: str) -> Pooled | str:
        """Return the hidden states of a site pooled as the features are, or why they cannot be."""
        return pooled_states(self.recording, site, self.pool, self.left_out)

    def gather(self, saes: npt.NDArray[np.integer], features: npt.NDArray[np.integer]) -> ItemColumns:
        """Return the scores of chosen features: (number of the SAE, index) pairs, in the order given."""
        parts = [
            self.load(Chunk(int(sae), int(feature), int(feature) + 1))
            for sae, feature in zip(saes, features, strict=True)
        ]
        return stack(parts)


@dataclass(frozen=True)
class Chunk:
    """Features ``start`` to ``stop`` (half-open) of the SAE of this number."""

    sae: int
    start: int
    stop: int


def stack(parts: Sequence[ItemColumns]) -> ItemColumns:
    """Return the columns of all parts, one after the other."""
    if not parts:
        return ItemColumns(np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))
    counts = np.concatenate([part.counts() for part in parts])
    return ItemColumns(
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        np.concatenate([part.items for part in parts]),
        np.concatenate([part.values for part in parts]),
    )


@dataclass(frozen=True)
class Found:
    """What a search leaves: one line per feature that fired on any recorded row, in the order of SAE and index.

    Attributes:
        sae: Number of the SAE, int32 [K].
        feature: Index in its SAE, int32 [K].
        table: Every figure of ``FIGURES``, float32 [K].
        p_value: Of highest grade against lowest by permutation, float64 [K]; NaN where it was not tested.
        kept: Which pass the filters, bool [K] (decided in float64).
        density: Share of the recorded rows on which the feature fires, float32 [K].
        n_scored: Features that fire on some row that was pooled over (the others score zero on every item).
        highest: Greatest null correlation of each SAE, float32 [S, P].
        lowest: Least null correlation of each SAE, float32 [S, P].
    """

    sae: npt.NDArray[np.int32]
    feature: npt.NDArray[np.int32]
    table: Table
    p_value: F64
    kept: npt.NDArray[np.bool_]
    density: F32
    n_scored: int
    highest: F32
    lowest: F32


def passes(figures: Mapping[str, npt.NDArray[np.floating]], options: RankOptions) -> npt.NDArray[np.bool_]:
    """Return which features pass the filters, bool [F]: Pearson (in its direction), monotonic, tpr, fpr."""
    sign = np.where(figures["falling"] > 0, -1, 1)
    with np.errstate(invalid="ignore"):
        return np.asarray(
            (sign * figures["pearson_corr"] >= options.min_pearson)
            & (figures["monotonic"] > 0)
            & (figures["tpr"] >= options.min_tpr)
            & (figures["fpr"] <= options.max_fpr)
        )


@dataclass(frozen=True)
class _Scored:
    chunk: Chunk
    feature: npt.NDArray[np.int32]
    table: Table
    z: F32
    stratum: npt.NDArray[np.int64]
    kept: npt.NDArray[np.bool_]
    density: F32
    n_scored: int
    highest: F32
    lowest: F32


def _score_chunk(
    source: Source, chunk: Chunk, null: RankNull, options: RankOptions, permutations: Permutations | None
) -> _Scored:
    design, columns = null.design, source.load(chunk)
    rows = source.firing_rows(chunk)
    fired = np.flatnonzero(rows)
    if len(fired) < columns.n_features:
        columns = columns.select(fired)
    figures = score_columns(columns, design, direction=options.direction)
    empty = np.zeros(0, np.float32)
    highest, lowest = (empty, empty) if permutations is None else extreme_correlations(columns, permutations, design)
    table = {name: figures[name].astype(np.float32) for name in FIGURES}
    feature = (fired + chunk.start).astype(np.int32)
    density = (rows[fired] / source.n_recorded_rows).astype(np.float32)
    kept = passes(figures, options)
    if options.without_dense:
        kept &= density <= DENSE
    n_scored = int(np.count_nonzero(columns.counts()))
    return _Scored(chunk, feature, table, *null.observe(columns), kept, density, n_scored, highest, lowest)


def search(source: Source, design: Design, options: RankOptions, permutations: Permutations | None = None) -> Found:
    """Score every feature of the recording, and with ``permutations`` the best under chance, chunk by chunk."""
    chunks = source.chunks()
    if not chunks and source.recording.saes:
        raise InputError(
            f"{source.recording.path} holds controls with frozen decoders only, which are not ranked; record their SAEs too."
        )
    n_features = sum(chunk.stop - chunk.start for chunk in chunks)
    null = RankNull(design, n_features, np.random.default_rng([options.seed, 5]))
    with (
        progress_bar("Scoring features", len(chunks)) as bar,
        ThreadPoolExecutor(min(worker_count(), max(1, len(chunks)))) as threads,
    ):
        parts = []
        for part in threads.map(lambda chunk: _score_chunk(source, chunk, null, options, permutations), chunks):
            parts.append(part)
            bar.advance()
    return _collect(parts, null, len(source.recording.saes), 0 if permutations is None else permutations.count)


def _collect(parts: list[_Scored], null: RankNull, n_saes: int, n_permutations: int) -> Found:
    highest = np.full((n_saes, n_permutations), -np.inf, dtype=np.float32)
    lowest = np.full((n_saes, n_permutations), np.inf, dtype=np.float32)
    if n_permutations:
        for number, group in groupby(parts, key=lambda part: part.chunk.sae):
            for part in group:
                np.maximum(highest[number], part.highest, out=highest[number])
                np.minimum(lowest[number], part.lowest, out=lowest[number])
    table: Table = {}
    for name in FIGURES:
        # Taken out of the parts as we go, so that no figure is in memory twice.
        table[name] = np.concatenate([part.table.pop(name) for part in parts] or [np.zeros(0, np.float32)])
    z = np.concatenate([part.z for part in parts] or [np.zeros(0, np.float32)])
    stratum = np.concatenate([part.stratum for part in parts] or [np.zeros(0, np.int64)])
    return Found(
        np.concatenate([np.full(len(p.feature), p.chunk.sae, np.int32) for p in parts] or [np.zeros(0, np.int32)]),
        np.concatenate([part.feature for part in parts] or [np.zeros(0, np.int32)]),
        table,
        null.p_values(z, stratum),
        np.concatenate([part.kept for part in parts] or [np.zeros(0, bool)]),
        np.concatenate([part.density for part in parts] or [np.zeros(0, np.float32)]),
        sum(part.n_scored for part in parts),
        highest,
        lowest,
    )


def gather(source: Source, found: Found, lines: npt.NDArray[np.int64]) -> ItemColumns:
    """Return the scores of some ``lines`` of what was found, in that order."""
    return source.gather(found.sae[lines], found.feature[lines])


def in_order(score: npt.NDArray[np.floating], pearson: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """Return the order of a ranking, int64 [K]: score falling, then |Pearson| falling, then as given (SAE, index).

    Features without a score come last.
    """
    worst = -np.inf
    return np.lexsort((-np.nan_to_num(np.abs(pearson), nan=worst), -np.nan_to_num(score, nan=worst)))


def table_order(
    kept: npt.NDArray[np.bool_], score: npt.NDArray[np.floating], pearson: npt.NDArray[np.floating], least: int
) -> npt.NDArray[np.int64]:
    """Return the lines of a ranked table, best first, int64: all that are ``kept``, then the best others up to ``least``.

    Features without a score (constant ones) are never among them.
    """
    passed = np.flatnonzero(kept)
    passed = passed[in_order(score[passed], pearson[passed])]
    others = np.flatnonzero(~kept & ~np.isnan(score)) if len(passed) < least else passed[:0]
    return np.concatenate([passed, others[in_order(score[others], pearson[others])[: least - len(passed)]]])


def chunks_of(found: Found) -> Iterator[tuple[int, slice]]:
    """Yield (number of the SAE, its lines in ``found``)."""
    starts = np.flatnonzero(np.diff(found.sae, prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(found.sae)][: len(starts)], strict=True):
        yield int(found.sae[start]), slice(int(start), int(stop))
