"""Hidden states pooled over the rows of each item: what ``--hidden final`` keeps beside those of the final rows.

A ranking that pools features by mean or max needs its dense baselines pooled alike; the mean and the elementwise
maximum of each item take 2·N·D numbers a site, and all rows would take T·D.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

Pooled = dict[str, torch.Tensor]


def pool_items(states_TD: torch.Tensor, lengths: npt.NDArray[np.int64]) -> Pooled:
    """Return the ``mean`` and the elementwise ``max`` of the hidden states over the rows of each item, float32 [N, D].

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
