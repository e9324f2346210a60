"""``--keep top`` over shards: their summaries are folded, a few shards at a time, into the one of all shards before them.

The fold of an SAE soon has as many entries as it ever will, so it is written once for ``FOLD_SHARDS`` shards. Until then
the shards' own summaries stay where they are: a run that was killed goes on from these. Summaries are added one after the
other in the order of the shards, so the sums are the same to the last bit wherever a run stopped.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce

import numpy as np

from conceptatlas.recording.job import Job
from conceptatlas.recording.strongest import Strongest, union
from conceptatlas.recording.work import FOLD_PREFIX, SAE_PREFIX, WorkFolder, load_piece_array

# More would wait on the disk, and hardly less would be written.
FOLD_SHARDS = 8

_ARRAYS = tuple(Strongest.__dataclass_fields__)


def read_summary(work: WorkFolder, shard: int, piece: str) -> Strongest:
    """Read a summary that a piece holds."""
    folder = work.piece_folder(shard, piece)
    return Strongest(**{name: np.asarray(load_piece_array(folder, f"{name}.npy")) for name in _ARRAYS})


def fold_shard(job: Job, shard: int) -> None:
    """Fold the summaries that wait, SAE by SAE, if the shard is the last of its group; shards come in order.

    May be called again after it was killed at any moment.
    """
    is_last = shard + 1 in (len(job.plan.shards), _first_of_group(shard) + FOLD_SHARDS)
    if job.options.keep != "top" or not is_last:
        return
    for source in job.sources:
        if job.work.merged_path(source.slug).exists():
            continue
        if job.work.last_folded(source.slug) < shard:
            _write_fold(job, source.slug, shard)
        _drop_folded(job.work, source.slug, shard)


def _first_of_group(shard: int) -> int:
    return shard - shard % FOLD_SHARDS


def _write_fold(job: Job, slug: str, shard: int) -> None:
    """Write the fold of all shards up to this one; it counts from when that is written down."""
    pieces = list(_waiting(job.work, slug, shard))
    summaries = (read_summary(job.work, *place) for place in pieces)
    options = job.options
    summary = reduce(lambda one, next_: union(one, next_, options.per_feature or 1, options.seed), summaries)
    facts = [job.work.read_piece(*place) for place in pieces]
    known = {"nnz": sum(fact["nnz"] for fact in facts), "check": facts[0]["check"]}
    job.work.write_piece(shard, FOLD_PREFIX + slug, summary.arrays(), known)
    job.work.set_last_folded(slug, shard)


def _waiting(work: WorkFolder, slug: str, shard: int) -> Iterator[tuple[int, str]]:
    """Yield the pieces that make up the next fold, in order: the last fold, then each shard after it."""
    folded = work.last_folded(slug)
    if folded >= 0:
        yield folded, FOLD_PREFIX + slug
    for later in range(folded + 1, shard + 1):
        yield later, SAE_PREFIX + slug


def _drop_folded(work: WorkFolder, slug: str, shard: int) -> None:
    """Remove what the fold that ends with this shard was made of."""
    first = _first_of_group(shard)
    for folded in range(first, shard + 1):
        work.drop_piece(folded, SAE_PREFIX + slug)
    if first:
        work.drop_piece(first - 1, FOLD_PREFIX + slug)
