"""What a shard needs to know, whatever engine runs it. Plain values only, so that it can be sent to workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from conceptatlas.recording import check
from conceptatlas.recording.encode import output_site
from conceptatlas.recording.manifest import RecordOptions
from conceptatlas.recording.plan import Plan
from conceptatlas.recording.work import HIDDEN_PIECE, SAE_PREFIX, WorkFolder
from conceptatlas.saes.encode import tile_size
from conceptatlas.subjects.sites import Site

if TYPE_CHECKING:
    from conceptatlas.saes import SAESource

# On a CPU, encoders stay loaded between shards up to this; on a GPU, up to what is free less what a shard needs.
_RESIDENT_CPU = 1 << 30
# A batch's forward pass, and rows and tiles at work, whose sizes do not depend on the shard's.
_WORK_CUDA = 8 << 30
# The SAE at work and the one that comes in, each with its decoder and bfloat16 weights; and copies while these are made.
_SAES_AT_WORK = 7


@dataclass(frozen=True)
class Job:
    """Everything that a shard needs to know.

    Attributes:
        plan: How the work is cut.
        sources: The SAEs, in order.
        sites: The sites at which states are taken, in the order of the forward pass.
        kept_sites: Those whose states go into the recording.
        options: The options.
        row_bytes: What the hidden states of one row at all sites take, as float32.
        batch_tokens: Tokens of a forward batch.
        work: Where pieces go.
        strict: An SAE that fails the self-check is an error.
    """

    plan: Plan
    sources: Sequence[SAESource]
    sites: Sequence[Site]
    kept_sites: Sequence[str]
    options: RecordOptions
    row_bytes: int
    batch_tokens: int
    work: WorkFolder
    strict: bool = False

    def tile_features(self) -> list[int]:
        """Return how many features are encoded at a time in each shard."""
        device = torch.device(self.options.device)
        final = self.options.keep == "final"
        rows = [
            last - first if final else int(np.diff(self.plan.row_range(shard))[0])
            for shard, (first, last) in enumerate(self.plan.shards)
        ]
        return [tile_size(count, device) for count in rows]

    def states_bytes(self) -> int:
        """Return what the hidden states of the largest shard take, as float32; of every token where an SAE needs these."""
        widths = {source.site: source.d_in or 0 for source in self.sources if not source.is_row_wise}
        token_bytes = 4 * sum(widths.values())
        sizes = [
            int(np.diff(self.plan.row_range(shard))[0]) * self.row_bytes
            + sum(len(ids) for ids in self.plan.token_ids[first:last]) * token_bytes
            for shard, (first, last) in enumerate(self.plan.shards)
        ]
        return max(sizes, default=0)

    def sites_of(self, shard: int) -> dict[Site, int]:
        """Return the sites to read in a shard, in the order of the forward pass, and of how many of its first rows each.

        The first shard also needs those that transcoders write to, at the rows on which these are checked.
        """
        first, last = self.plan.row_range(shard)
        needed = dict.fromkeys(self.sites, last - first)
        outputs = [] if shard else [site for source in self.sources if (site := output_site(source)) is not None]
        for site in outputs:
            needed.setdefault(site, min(check.CHECK_ROWS, last - first))
        return dict(sorted(needed.items(), key=lambda item: (item[0].order, item[0].hook)))

    def missing(self, shard: int) -> list[SAESource]:
        """Return the SAEs whose piece of a shard is neither there nor joined nor folded already."""
        return [
            source
            for source in self.sources
            if not self.work.merged_path(source.slug).exists()
            and not self.work.has_piece(shard, SAE_PREFIX + source.slug)
            and not (self.options.keep == "top" and self.work.last_folded(source.slug) >= shard)
        ]

    def is_done(self, shard: int) -> bool:
        """Whether nothing of a shard is left to do."""
        return self.work.has_piece(shard, HIDDEN_PIECE) and not self.missing(shard)


def resident_bytes(device: str, job: Job) -> int:
    """Return how many bytes of encoders may stay loaded between shards (this changes no result); the model is loaded."""
    if device.startswith("cuda"):
        free, _ = torch.cuda.mem_get_info(torch.device(device))
        return max(0, free - reserve_bytes(job))
    return _RESIDENT_CPU


def reserve_bytes(job: Job) -> int:
    """Return what must stay free on a GPU beside the model: the largest shard's states, the SAEs at work, the work itself."""
    weights = max((4 * (source.d_in or 0) * (source.d_sae or 0) for source in job.sources), default=0)
    return job.states_bytes() + _SAES_AT_WORK * weights + _WORK_CUDA
