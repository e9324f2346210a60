"""``verify``: is every file of a recording as it was written, and does what is in them fit together?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import polars as pl

from conceptatlas.base.artefact import FileSeal, seal_of
from conceptatlas.base.errors import ConceptAtlasError
from conceptatlas.recording.manifest import (
    COLUMN_FILES,
    FEATURES_FOLDER,
    HIDDEN_FOLDER,
    POOLINGS,
    RecordedSAE,
    pooled_file,
)
from conceptatlas.recording.store import Recording

_CHUNK = 4 << 20


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong."""

    file: str
    """The path in the recording."""
    problem: str
    """What is wrong with it."""


def verify(recording: Recording, tick: Callable[[str], None] = lambda _: None) -> list[Problem]:
    """Return what is damaged: sizes and checksums of all files, then lengths, ranges and order of what they hold.

    Args:
        recording: The recording.
        tick: Called with each file's name when it is about to be read.
    """
    problems: list[Problem] = []
    for name, check in recording.sealed.files.items():
        tick(name)
        problems += _check_file(recording, name, check)
    damaged = {problem.file for problem in problems}
    if not damaged & {"items.parquet", "rows.parquet"}:
        problems += _check_tables(recording)
    for sae in recording.saes:
        folder = f"{FEATURES_FOLDER}/{sae.slug}"
        if recording.manifest.options.keep != "top" and not any(f"{folder}/{n}" in damaged for n in COLUMN_FILES):
            problems += _check_columns(recording, sae, folder)
    for site in recording.hidden_sites:
        name = f"{HIDDEN_FOLDER}/{site}.npy"
        if name not in damaged:
            problems += _check_hidden(partial(recording.hidden, site), name)
        for how in POOLINGS:
            name = pooled_file(how, site)
            if name in recording.manifest.files and name not in damaged:
                problems += _check_hidden(partial(recording.hidden_pooled, site, how), name)
    return problems


def _check_file(recording: Recording, name: str, check: FileSeal) -> Iterator[Problem]:
    path = recording.path / name
    if not path.is_file():
        yield Problem(name, "is missing")
    elif (found := seal_of(path)).size != check.size:
        yield Problem(name, f"has {found.size} bytes, and {check.size} were written")
    elif found.sha256 != check.sha256:
        yield Problem(name, "is not what was written (its checksum differs)")


def _check_tables(recording: Recording) -> Iterator[Problem]:
    try:
        items, rows = recording.items, recording.rows
    except ConceptAtlasError as error:
        yield Problem("items.parquet", str(error))
        return
    if int(items["n_rows"].sum()) != recording.n_rows:
        yield Problem("items.parquet", f"counts {items['n_rows'].sum()} rows, and there are {recording.n_rows}")
    elif not np.array_equal(rows["item"].to_numpy(), recording.item_of_row):
        yield Problem("rows.parquet", "does not give the items' rows in order")
    elif not np.array_equal(rows.filter(pl.col("is_final"))["row"].to_numpy(), recording.final_rows):
        yield Problem("rows.parquet", "does not mark each item's last row as final")


def _check_columns(recording: Recording, sae: RecordedSAE, folder: str) -> Iterator[Problem]:
    try:
        columns = recording.columns(sae.slug)
    except ConceptAtlasError as error:
        yield Problem(folder, str(error))
        return
    if (np.diff(columns.indptr) < 0).any():
        yield Problem(f"{folder}/{COLUMN_FILES[0]}", "does not ascend")
        return
    starts = columns.indptr[:-1]
    for first in range(0, columns.nnz, _CHUNK):
        last = min(first + _CHUNK, columns.nnz)
        rows, values = columns.rows[first : last + 1], columns.values[first:last]
        if int(rows.min()) < 0 or int(rows.max()) >= recording.n_rows:
            yield Problem(f"{folder}/{COLUMN_FILES[1]}", f"names rows outside 0 to {recording.n_rows - 1}")
            return
        step = np.diff(rows) > 0
        boundary = starts[(starts > first) & (starts < first + len(rows))] - first - 1
        step[boundary] = True
        if not step.all():
            at = first + int(np.argmin(step))
            yield Problem(f"{folder}/{COLUMN_FILES[1]}", f"is not sorted within a feature (entry {at})")
            return
        if not np.isfinite(values).all() or not values.all():
            yield Problem(f"{folder}/{COLUMN_FILES[2]}", "holds zeros or values that are not finite")
            return


def _check_hidden(read: Callable[[], npt.NDArray[np.float32]], name: str) -> Iterator[Problem]:
    try:
        hidden = read()
    except ConceptAtlasError as error:
        yield Problem(name, str(error))
        return
    step = max(1, _CHUNK // max(1, hidden.shape[1]))
    for first in range(0, len(hidden), step):
        if not np.isfinite(hidden[first : first + step]).all():
            yield Problem(name, "holds values that are not finite")
            return
