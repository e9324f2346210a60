"""Recordings made without a model, for the tests of everything that reads one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import scipy.sparse as sp

from conceptatlas.concepts import build_concept
from conceptatlas.recording.files import write_array, write_columns, write_table
from conceptatlas.recording.manifest import (
    FEATURES_FOLDER,
    HIDDEN_FOLDER,
    ITEMS_FILE,
    ROWS_FILE,
    ConceptInfo,
    Manifest,
    PlanInfo,
    RecordedSAE,
    RecordOptions,
    SubjectInfo,
    pooled_file,
    seal_recording,
)
from conceptatlas.recording.store import ROW_COLUMNS, Recording
from conceptatlas.saes.sparse import SparseColumns


def columns_of(matrix: Any) -> SparseColumns:
    """Return a (dense or sparse) [T, F] matrix as sparse columns, sorted, zeros dropped."""
    csc = sp.csc_matrix(matrix, copy=True)
    csc.eliminate_zeros()
    csc.sort_indices()
    return SparseColumns(csc.indptr.astype(np.int64), csc.indices.astype(np.int32), csc.data.astype(np.float32))


def texts_for(rows_per_item: Sequence[int]) -> list[str]:
    """Return one text per item, with as many words as the item has rows."""
    return [" ".join(f"w{i}x{j}" for j in range(n)) for i, n in enumerate(rows_per_item)]


def write_synthetic_recording(
    path: Path,
    columns: Mapping[str, Any],
    labels: Sequence[int],
    rows_per_item: Sequence[int] | None = None,
    *,
    hidden: Mapping[str, np.ndarray] | None = None,
    groups: Sequence[str | None] | None = None,
    splits: Sequence[str | None] | None = None,
    texts: Sequence[str] | None = None,
    extra: pl.DataFrame | None = None,
    saes: Mapping[str, Mapping[str, Any]] | None = None,
    keep: str = "all",
    hidden_rows: str = "final",
    pooled: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    subject: str = "synthetic",
    name: str = "synthetic",
    sinks: Sequence[int] = (),
) -> Recording:
    """Write a valid recording without any model, and open it.

    Args:
        path: The folder to write.
        columns: slug → [T, F] matrix (scipy sparse or dense; with ``keep="final"`` only final rows may be non-zero).
        labels: Grades, [N].
        rows_per_item: Rows of each item, [N] (default: 4 each).
        hidden: site → [N, D] (or [T, D] with ``hidden_rows="all"``).
        groups: Group of each item.
        splits: ``"discovery"``, ``"holdout"`` or None for each item.
        texts: The items' texts (default: as many words as rows); words are the tokens while there are as many.
        extra: Further columns of the items.
        saes: slug → any fields of ``RecordedSAE`` to set (layer, site, average_l0, neuronpedia_id, …).
        keep: ``all`` or ``final``.
        hidden_rows: ``final`` or ``all``.
        pooled: ``mean`` or ``max`` → site → [N, D], the hidden states pooled over each item's rows.
        subject: The model's id.
        name: The concept's name.
        sinks: Rows to flag as attention sinks.
    """
    n_items = len(labels)
    lengths = list(rows_per_item) if rows_per_item is not None else [4] * n_items
    texts = list(texts) if texts is not None else texts_for(lengths)
    concept = build_concept(name, texts, list(labels), groups=groups, splits=splits, extra=extra)
    path.mkdir(parents=True, exist_ok=True)
    first = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int32) if n_items else np.zeros(0, np.int32)
    n_rows = int(sum(lengths))
    items = concept.items.with_columns(
        pl.Series("n_rows", lengths, dtype=pl.Int32), pl.Series("first_row", first, dtype=pl.Int32)
    )
    rows = _rows_table(texts, lengths, set(sinks))
    files = {
        ITEMS_FILE: write_table(path / ITEMS_FILE, items),
        ROWS_FILE: write_table(path / ROWS_FILE, rows),
    }
    for site, array in (hidden or {}).items():
        (path / HIDDEN_FOLDER).mkdir(exist_ok=True)
        file = f"{HIDDEN_FOLDER}/{site}.npy"
        files[file] = write_array(path / file, np.asarray(array, dtype=np.float32))
    for how, sites in (pooled or {}).items():
        for site, array in sites.items():
            file = pooled_file(how, site)
            (path / file).parent.mkdir(parents=True, exist_ok=True)
            files[file] = write_array(path / file, np.asarray(array, dtype=np.float32))
    width = next((array.shape[1] for array in (hidden or {}).values()), 8)
    recorded = []
    for number, (slug, matrix) in enumerate(columns.items()):
        sparse = matrix if isinstance(matrix, SparseColumns) else columns_of(matrix)
        checks = write_columns(path / FEATURES_FOLDER / slug, sparse)
        l0 = sparse.nnz / max(n_rows, 1)
        fields: dict[str, Any] = {
            "slug": slug,
            "sae_id": slug,
            "release": "synthetic",
            "site": f"blocks.{number}.hook_resid_post",
            "layer": number,
            "d_in": width,
            "d_sae": sparse.n_features,
            "architecture": "jumprelu",
            "average_l0": round(l0, 3),
            "l0": l0,
            "fvu": 0.1,
            "status": "ok",
            "nnz": sparse.nnz,
            "checksum": checks,
        }
        recorded.append(RecordedSAE.model_validate(fields | dict((saes or {}).get(slug, {}))))
    manifest = Manifest(
        subject=SubjectInfo(id=subject, model_class="Synthetic", d_model=width, n_layers=max(len(recorded), 1)),
        tokenizer="words",
        concept=ConceptInfo(name=name, data_hash=concept.data_hash, n_items=n_items),
        options=RecordOptions.model_validate(
            {"keep": keep, "hidden": hidden_rows if hidden else "none", "hidden_sites": list(hidden or {})}
        ),
        plan=PlanInfo(n_rows=n_rows, n_tokens=n_rows, shards=[(0, n_items)]),
        saes=recorded,
        files=files,
    )
    seal_recording(path, manifest)
    return Recording.open(path)


def _rows_table(texts: Sequence[str], lengths: Sequence[int], sinks: set[int]) -> pl.DataFrame:
    """Return the rows table; tokens are the text's words where there are as many as rows, else equal pieces of it."""
    table: dict[str, list[Any]] = {column: [] for column in ROW_COLUMNS}
    row = 0
    for item, (text, length) in enumerate(zip(texts, lengths, strict=True)):
        words = text.split()
        if len(words) == length:
            ends, at = [], 0
            for word in words:
                at = text.index(word, at) + len(word)
                ends.append(at)
        else:
            ends = [round(len(text) * (k + 1) / length) for k in range(length)]
        for position, end in enumerate(ends):
            begin = ends[position - 1] if position else 0
            for column, value in zip(
                ROW_COLUMNS,
                (row, item, position, row % 1000, text[begin:end], end, position == length - 1, row in sinks),
                strict=True,
            ):
                table[column].append(value)
            row += 1
    return pl.DataFrame(table, schema=ROW_COLUMNS)
