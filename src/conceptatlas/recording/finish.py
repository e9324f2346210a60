"""The end of a recording: join what the shards left, write the tables, and, last of all, the manifest."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from conceptatlas.base.files import read_json, write_json
from conceptatlas.concepts import Concept
from conceptatlas.recording.check import SUSPECT, CheckRecord
from conceptatlas.recording.files import write_table
from conceptatlas.recording.fold import read_summary
from conceptatlas.recording.job import Job
from conceptatlas.recording.manifest import (
    FEATURES_FOLDER,
    HIDDEN_FOLDER,
    ITEMS_FILE,
    POOLINGS,
    ROWS_FILE,
    TOP_FILE,
    ConceptInfo,
    FileCheck,
    Manifest,
    PlanInfo,
    RecordedSAE,
    SiteInfo,
    pooled_file,
)
from conceptatlas.recording.merge import join_arrays, join_columns, open_part
from conceptatlas.recording.norms import norm_figures
from conceptatlas.recording.shard import NORMS_FILE
from conceptatlas.recording.strongest import HISTOGRAM_EDGES, as_table
from conceptatlas.recording.work import (
    FOLD_PREFIX,
    HIDDEN_PIECE,
    SAE_PREFIX,
    WorkFolder,
    as_file_checks,
    load_piece_array,
    pooled_piece_file,
)
from conceptatlas.saes.identity import reference_of
from conceptatlas.saes.source import SAESource

if TYPE_CHECKING:
    from conceptatlas.recording.prepare import Prepared


# The layer of an SAE that reads the embedding, which stands before block 0.
EMBED_LAYER = -1


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def join_sae(work: WorkFolder, slug: str, n_shards: int) -> dict[str, Any]:
    """Bring one SAE's columns to their place in the recording and return what is known of them.

    May be called again after it was killed at any moment.
    """
    done = work.merged_path(slug)
    if done.exists():
        found: dict[str, Any] = read_json(done)
        return found
    piece = SAE_PREFIX + slug
    target = work.recording / FEATURES_FOLDER / slug
    facts = work.read_piece(0, piece)
    if n_shards == 1:
        _move(work.piece_folder(0, piece), target)
        return {name: facts.get(name) for name in ("nnz", "files", "check")}
    parts = [open_part(work.piece_folder(shard, piece)) for shard in range(n_shards)]
    nnz, checks = join_columns(parts, target)
    done.parent.mkdir(exist_ok=True)
    files = {name: check.model_dump() for name, check in checks.items()}
    joined = {"nnz": nnz, "files": files, "check": facts.get("check")}
    write_json(done, joined)
    for shard in range(n_shards):
        work.drop_piece_arrays(shard, piece)
    return joined


def write_top(work: WorkFolder, slug: str, n_shards: int) -> dict[str, Any]:
    """Write the table of an SAE's strongest examples and return what is known of it."""
    done = work.merged_path(slug)
    if done.exists():
        found: dict[str, Any] = read_json(done)
        return found
    fold = FOLD_PREFIX + slug
    facts = work.read_piece(n_shards - 1, fold)
    target = work.recording / FEATURES_FOLDER / slug
    target.mkdir(parents=True, exist_ok=True)
    check = write_table(target / TOP_FILE, as_table(read_summary(work, n_shards - 1, fold)))
    done.parent.mkdir(exist_ok=True)
    written = {"nnz": facts["nnz"], "files": {TOP_FILE: check.model_dump()}, "check": facts["check"]}
    write_json(done, written)
    work.drop_piece(n_shards - 1, fold)
    return written


def _move(source: Path, target: Path) -> None:
    """Move a folder, unless a run that was killed has done so already; its new name is durable when its parent is synced."""
    if not source.exists() and target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)


def join_hidden(job: Job) -> dict[str, FileCheck]:
    """Bring the hidden states to their place; return their checks by path in the recording."""
    if job.options.hidden == "none":
        return {}
    shards = range(len(job.plan.shards))
    folders = [job.work.piece_folder(shard, HIDDEN_PIECE) for shard in shards]
    checks = {}
    for site in job.kept_sites:
        name = f"{site}.npy"
        checks[f"{HIDDEN_FOLDER}/{name}"] = join_arrays(folders, name, job.work.recording / HIDDEN_FOLDER / name)
        for how in POOLINGS if job.options.keeps_pooled else ():
            path = pooled_file(how, site)
            checks[path] = join_arrays(folders, pooled_piece_file(how, site), job.work.recording / path)
    return checks


def site_figures(job: Job) -> tuple[dict[str, SiteInfo], npt.NDArray[np.bool_]]:
    """Return the norms' figures of every site, and which rows are attention sinks at some site, bool [T]."""
    shards = range(len(job.plan.shards))
    names: list[str] = job.work.read_piece(0, HIDDEN_PIECE)["sites"]
    parts = [load_piece_array(job.work.piece_folder(shard, HIDDEN_PIECE), NORMS_FILE) for shard in shards]
    found = norm_figures(parts)
    figures = {
        name: SiteInfo(
            median_norm=float(found.medians[site]), mean_norm=float(found.means[site]), sinks=int(found.sinks[site])
        )
        for site, name in enumerate(names)
    }
    return figures, found.is_sink


def write_tables(folder: Path, concept: Concept, job: Job, sinks: npt.NDArray[np.bool_]) -> dict[str, FileCheck]:
    """Write items and rows; return their checks."""
    first = job.plan.first_rows
    items = concept.items.with_columns(
        pl.Series("n_rows", np.diff(first).astype(np.int32)), pl.Series("first_row", first[:-1].astype(np.int32))
    )
    rows = job.plan.rows.with_columns(pl.Series("sink", sinks))
    return {
        ITEMS_FILE: write_table(folder / ITEMS_FILE, items),
        ROWS_FILE: write_table(folder / ROWS_FILE, rows),
    }


def recorded_sae(source: SAESource, joined: Mapping[str, Any]) -> RecordedSAE:
    """Return the manifest's entry of one SAE."""
    check = CheckRecord.model_validate(joined["check"] or {})
    return RecordedSAE(
        slug=source.slug,
        sae_id=source.sae_id,
        release=source.release or "",
        site=str(source.site),
        layer=EMBED_LAYER if source.layer is None else source.layer,
        d_in=source.d_in or 0,
        d_sae=source.d_sae or 0,
        architecture=source.architecture or "",
        average_l0=source.average_l0 if source.average_l0 is not None else round(check.l0 or 0.0, 1),
        l0_measured=source.average_l0 is None or bool(source.l0_measured),
        neuronpedia_id=source.neuronpedia_id,
        model_name=source.model_name,
        source=getattr(source, "asked_by", ""),
        reference=reference_of(source) if isinstance(source, SAESource) else None,
        control_of=getattr(source, "control_of", None),
        l0=check.l0,
        fvu=check.fvu,
        status=check.status,
        message=check.message,
        rows_checked=check.rows,
        nnz=joined["nnz"],
        checksum=as_file_checks(joined["files"]),
    )


def finish(prepared: Prepared, concept: Concept, request: Mapping[str, Any]) -> Manifest:
    """Join everything, write the tables, and return the manifest, which is to be written last of all."""
    job = prepared.job
    n_shards = len(job.plan.shards)
    join = write_top if job.options.keep == "top" else join_sae
    saes = [recorded_sae(source, join(job.work, source.slug, n_shards)) for source in job.sources]
    if saes:
        sync_folder(job.work.recording / FEATURES_FOLDER)
    files = join_hidden(job)
    sites, sinks = site_figures(job)
    files = write_tables(job.work.recording, concept, job, sinks) | files
    suspect = [sae.message for sae in saes if sae.status == SUSPECT]
    return Manifest(
        subject=prepared.info,
        tokenizer=prepared.tokenizer,
        concept=ConceptInfo(
            name=concept.name, data_hash=concept.data_hash, n_items=len(concept), skipped=concept.skipped
        ),
        options=job.options,
        request=dict(request),
        plan=PlanInfo(
            n_rows=job.plan.n_rows,
            n_tokens=job.plan.n_tokens,
            shards=job.plan.shards,
            batch_tokens=job.batch_tokens,
            tile_features=job.tile_features(),
            truncated=prepared.truncated,
        ),
        sites=sites,
        warnings=[*prepared.warnings, *suspect],
        histogram_edges=HISTOGRAM_EDGES.tolist() if job.options.keep == "top" else None,
        saes=saes,
        files=files,
    )
