"""``--keep top`` over shards: each shard's summary is folded into the one of all shards before it."""

from __future__ import annotations

import numpy as np

from conceptatlas.recording.job import Job
from conceptatlas.recording.strongest import Strongest, union
from conceptatlas.recording.work import FOLD_PREFIX, SAE_PREFIX, WorkFolder, load_piece_array

_ARRAYS = tuple(Strongest.__dataclass_fields__)


def read_summary(work: WorkFolder, shard: int, piece: str) -> Strongest:
    """Read a summary that a piece holds."""
    folder = work.piece_folder(shard, piece)
    return Strongest(**{name: np.asarray(load_piece_array(folder, f"{name}.npy")) for name in _ARRAYS})


def fold_shard(job: Job, shard: int) -> None:
    """Fold what a shard left into what the shards before it left, SAE by SAE; shards come in order.

    May be called again after it was killed at any moment.
    """
    if job.options.keep != "top":
        return
    for source in job.sources:
        piece, fold = SAE_PREFIX + source.slug, FOLD_PREFIX + source.slug
        if job.work.merged_path(source.slug).exists():
            continue
        if job.work.last_with(fold) < shard:
            summary = read_summary(job.work, shard, piece)
            facts = job.work.read_piece(shard, piece)
            if shard:
                before = job.work.read_piece(shard - 1, fold)
                summary = union(read_summary(job.work, shard - 1, fold), summary)
                facts = {"nnz": before["nnz"] + facts["nnz"], "check": before["check"]}
            arrays = dict(summary.arrays())
            job.work.write_piece(shard, fold, arrays, {"nnz": facts["nnz"], "check": facts["check"]})
        job.work.drop_piece(shard, piece)
        if shard:
            job.work.drop_piece(shard - 1, fold)
