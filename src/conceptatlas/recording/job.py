"""What a shard needs to know, whatever engine runs it. Plain values only, so that it can be sent to workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from conceptatlas.recording.check import output_site
from conceptatlas.recording.manifest import RecordOptions
from conceptatlas.recording.plan import Plan
from conceptatlas.recording.work import HIDDEN_PIECE, SAE_PREFIX, WorkFolder
from conceptatlas.saes.encode import tile_size
from conceptatlas.subjects.sites import Site

if TYPE_CHECKING:
    from conceptatlas.saes import SAESource


@dataclass(frozen=True)
class Job:
    """Everything that a shard needs to know.

    Attributes:
        plan: How the work is cut.
        sources: The SAEs, in order.
        sites: The sites at which states are taken, in the order of the forward pass.
        kept_sites: Those whose states go into the recording.
        options: The options.
        batch_tokens: Tokens of a forward batch.
        work: Where pieces go.
        strict: An SAE that fails the self-check is an error.
    """

    plan: Plan
    sources: Sequence[SAESource]
    sites: Sequence[Site]
    kept_sites: Sequence[str]
    options: RecordOptions
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

    def sites_of(self, shard: int) -> list[Site]:
        """Return the sites to read in a shard: the first one also needs those that transcoders write to, to check them."""
        if shard:
            return list(self.sites)
        outputs = [site for source in self.sources if (site := output_site(source)) is not None]
        return sorted({*self.sites, *outputs}, key=lambda site: (site.order, site.hook))

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
