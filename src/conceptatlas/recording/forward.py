"""The first phase of a shard: one pass of the base model over it, the hidden states of the asked sites kept.

For a causal model the state of "tokens 1..t" at its last token is the state of the whole text at t, so one pass gives
every fragment; where that does not hold the subject makes the passes that are needed.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from conceptatlas.recording.plan import Plan, batches
from conceptatlas.runtime.memory import roomy
from conceptatlas.runtime.threads import two_at_a_time

if TYPE_CHECKING:
    from conceptatlas.subjects.language import LanguageSubject
    from conceptatlas.subjects.sites import Site


def shard_states(
    plan: Plan,
    subject: LanguageSubject,
    sites: Sequence[Site] | Mapping[Site, int],
    shard: int,
    batch_tokens: int,
    *,
    every_token: bool = False,
) -> dict[str, torch.Tensor]:
    """Return the hidden states of a shard: site → [T_shard, D] on the subject's device, in row order, or as many as asked.

    Args:
        plan: The plan.
        subject: The model.
        sites: The sites to keep; a mapping says of how many of the shard's first rows each.
        shard: Which shard.
        batch_tokens: Tokens of one batch, padding included.
        every_token: Keep all tokens, special ones too, instead of the rows.
    """
    first, last = plan.shards[shard]
    token_ids, masks = plan.token_ids[first:last], plan.masks[first:last]
    if every_token:
        masks = [np.ones(len(ids), dtype=bool) for ids in token_ids]
    counts = np.array([int(mask.sum()) for mask in masks], dtype=np.int64)
    starts = np.cumsum(counts) - counts
    n_rows = int(counts.sum())
    asked = {str(site): sites[site] if isinstance(sites, Mapping) else n_rows for site in sites}
    states: dict[str, torch.Tensor] = {}
    making = threading.Lock()

    def kept(name: str, part: torch.Tensor) -> torch.Tensor:
        with making:
            if name not in states:
                states[name] = roomy((asked[name], part.shape[1]), part.dtype, part.device)
            return states[name]

    def take(batch: npt.NDArray[np.int64]) -> None:
        place = np.repeat(starts[batch] - (np.cumsum(counts[batch]) - counts[batch]), counts[batch])
        index = torch.from_numpy(place + np.arange(int(counts[batch].sum())))
        for name, part in read([token_ids[i] for i in batch], [masks[i] for i in batch]).items():
            rows, those = _those_below(asked[name], index, part)
            kept(name, part).index_copy_(0, rows.to(part.device), those)

    lengths = [len(ids) for ids in token_ids]
    # Two of the longest texts at a time would take twice the memory.
    side_by_side = subject.runs_side_by_side(list(sites)) and max(lengths) <= batch_tokens
    with subject.reading(list(sites)) as read:
        if side_by_side:
            two_at_a_time(take, batches(lengths, batch_tokens))
        else:
            for batch in batches(lengths, batch_tokens):
                take(batch)
    return states


def pool_items(states_TD: torch.Tensor, lengths: npt.NDArray[np.int64]) -> dict[str, torch.Tensor]:
    """Return the ``mean`` and the elementwise ``max`` of the hidden states over the rows of each item, float32 [N, D].

    ``--hidden final`` keeps them beside the final rows: a ranking that pools features so needs its dense baselines pooled
    alike, and these take 2·N·D numbers a site where all rows would take T·D.

    Args:
        states_TD: Hidden states, one line per row; the rows of an item stand together.
        lengths: Rows of each item, int64 [N], each at least 1; T in all.
    """
    if states_TD.device.type == "cuda":  # one kernel for all items
        wide, counts = states_TD.float(), torch.from_numpy(lengths).to(states_TD.device)
        return {how: torch.segment_reduce(wide, how, lengths=counts, axis=0) for how in ("mean", "max")}
    items = torch.split(states_TD, lengths.tolist())
    return {
        "mean": torch.stack([item.float().mean(dim=0) for item in items]),
        "max": torch.stack([item.amax(dim=0).float() for item in items]),
    }


def to_numpy(states: torch.Tensor) -> npt.NDArray[np.float32]:
    """Return a tensor as a float32 array in memory of the host."""
    return states.float().cpu().numpy()


def _those_below(n_rows: int, index: torch.Tensor, part: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the numbers and states of the rows whose number is below ``n_rows``."""
    below = index < n_rows
    return (index, part) if bool(below.all()) else (index[below], part[below.to(part.device)])
