"""Joining what the shards wrote: in item order, in pieces, so that memory does not grow with the recording.

Shards are consecutive items, so a feature's entries are those of shard 0, then those of shard 1, and so on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from conceptatlas.recording.files import npy_stream
from conceptatlas.recording.manifest import COLUMN_FILES, FileCheck
from conceptatlas.recording.work import load_piece_array
from conceptatlas.saes.sparse import SparseColumns

# Entries that are joined at a time: 8 bytes each, and as much again for the places they go to.
MERGE_ENTRIES = 2 << 20


def feature_blocks(indptr: npt.NDArray[np.int64], entries: int) -> list[tuple[int, int]]:
    """Cut features into blocks of at most ``entries`` entries (a single feature may have more)."""
    blocks, first, n_features = [], 0, len(indptr) - 1
    while first < n_features:
        last = int(np.searchsorted(indptr, indptr[first] + entries, side="right")) - 1
        last = min(max(last, first + 1), n_features)
        blocks.append((first, last))
        first = last
    return blocks


def join_block(
    parts: Sequence[SparseColumns], indptr: npt.NDArray[np.int64], first: int, last: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Return (rows, values) of the features ``first:last`` over all parts, feature by feature, part by part."""
    base = indptr[first]
    size = int(indptr[last] - base)
    rows, values = np.empty(size, np.int32), np.empty(size, np.float32)
    place = indptr[first:last] - base  # where the next entry of each feature goes
    for part in parts:
        start, stop = int(part.indptr[first]), int(part.indptr[last])
        counts = np.diff(part.indptr[first : last + 1])
        target = np.repeat(place - (part.indptr[first:last] - start), counts) + np.arange(stop - start)
        rows[target] = part.rows[start:stop]
        values[target] = part.values[start:stop]
        place = place + counts
    return rows, values


def join_columns(parts: Sequence[SparseColumns], folder: Path) -> tuple[int, dict[str, FileCheck]]:
    """Write the union of ``parts`` (same features, ascending rows) into ``folder``; return (nnz, checks by file)."""
    indptr = np.zeros(parts[0].n_features + 1, dtype=np.int64)
    for part in parts:
        indptr += part.indptr
    nnz = int(indptr[-1])
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in COLUMN_FILES]
    with (
        npy_stream(paths[0], np.int64, indptr.shape) as counts_file,
        npy_stream(paths[1], np.int32, (nnz,)) as rows_file,
        npy_stream(paths[2], np.float32, (nnz,)) as values_file,
    ):
        counts_file.append(indptr)
        for first, last in feature_blocks(indptr, MERGE_ENTRIES):
            rows, values = join_block(parts, indptr, first, last)
            rows_file.append(rows)
            values_file.append(values)
        checks = {
            name: stream.finish()
            for name, stream in zip(COLUMN_FILES, (counts_file, rows_file, values_file), strict=True)
        }
    return nnz, checks


def open_part(folder: Path) -> SparseColumns:
    """Memory-map one shard's columns."""
    indptr, rows, values = (load_piece_array(folder, name) for name in COLUMN_FILES)
    return SparseColumns(indptr, rows, values)


def join_arrays(folders: Sequence[Path], name: str, target: Path) -> FileCheck:
    """Write the arrays ``name`` of ``folders``, one under the other, to ``target``."""
    parts = [load_piece_array(folder, name) for folder in folders]
    shape = (sum(len(part) for part in parts), *parts[0].shape[1:])
    target.parent.mkdir(parents=True, exist_ok=True)
    with npy_stream(target, parts[0].dtype, shape) as stream:
        for part in parts:
            step = max(1, (16 << 20) // max(1, part[:1].nbytes))
            for start in range(0, len(part), step):
                stream.append(part[start : start + step])
        return stream.finish()
