"""Recordings written without a model: for benchmarks that plant what is to be found."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import polars as pl

from conceptatlas.concepts import Concept
from conceptatlas.recording import Recording, SparseColumns
from conceptatlas.recording.files import write_columns, write_table
from conceptatlas.recording.manifest import (
    FEATURES_FOLDER,
    ITEMS_FILE,
    ROWS_FILE,
    ConceptInfo,
    Manifest,
    PlanInfo,
    RecordedSAE,
    RecordOptions,
    SubjectInfo,
    seal_recording,
)


def write_recording(
    path: Path, concept: Concept, saes: Iterable[tuple[int, float, SparseColumns]], *, rows: int = 1
) -> Recording:
    """Write a recording without hidden states.

    Args:
        path: Its folder.
        concept: The items.
        saes: For each SAE its layer, its L0 and its columns over the rows of all items.
        rows: Rows of each item; with 1 only final rows are kept.
    """
    path.mkdir(parents=True, exist_ok=True)
    items = concept.items.height
    table = concept.items.with_columns(
        pl.lit(rows, dtype=pl.Int32).alias("n_rows"),
        (pl.int_range(items, dtype=pl.Int32) * rows).alias("first_row"),
    )
    n_rows = items * rows
    files = {
        ITEMS_FILE: write_table(path / ITEMS_FILE, table),
        ROWS_FILE: write_table(path / ROWS_FILE, pl.DataFrame({"row": np.arange(n_rows, dtype=np.int32)})),
    }
    recorded = []
    for number, (layer, l0, columns) in enumerate(saes):
        slug = f"sae_{number:03d}"
        recorded.append(
            RecordedSAE(
                slug=slug,
                sae_id=slug,
                site=f"blocks.{layer}.hook_resid_post",
                layer=layer,
                d_in=8,
                d_sae=len(columns.indptr) - 1,
                average_l0=l0,
                nnz=columns.nnz,
                checksum=write_columns(path / FEATURES_FOLDER / slug, columns),
            )
        )
    manifest = Manifest(
        subject=SubjectInfo(id="benchmark", d_model=8, n_layers=1 + max(sae.layer or 0 for sae in recorded)),
        concept=ConceptInfo(name=concept.name, data_hash=concept.data_hash, n_items=items),
        options=RecordOptions(keep="all" if rows > 1 else "final", hidden="none"),
        plan=PlanInfo(n_rows=n_rows, n_tokens=n_rows, shards=[(0, items)]),
        saes=recorded,
        files=files,
    )
    seal_recording(path, manifest)
    return Recording.open(path)
