"""The feature bank: what activates each feature, for all features in one pass over the data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from conceptatlas.base.ties import comparable
from conceptatlas.subjects.protocol import Subject


@dataclass(frozen=True)
class FeatureBank:
    """What a pass over labelled inputs showed of every feature.

    Attributes:
        mean_active: Share of rows on which the feature is active, float [F].
        mean_activation: Its mean activation where it is active, float [F] (0 where it never is).
        top_values: Its strongest activations, float [F, K], falling; 0 where there were fewer.
        top_rows: The rows (in the order of the data) of ``top_values``, int64 [F, K]; −1 where there were fewer.
        label_counts: Active rows by label, int64 [F, C].
    """

    mean_active: torch.Tensor
    mean_activation: torch.Tensor
    top_values: torch.Tensor
    top_rows: torch.Tensor
    label_counts: torch.Tensor


@torch.no_grad()
def collect_bank(
    batches: Iterable[tuple[Any, torch.Tensor]],
    subject: Subject,
    sae: Any,
    site: str,
    *,
    n_labels: int,
    top_k: int = 16,
) -> FeatureBank:
    """Collect the feature bank of an SAE at a site.

    Args:
        batches: (inputs, labels [T]) in order; a label for each row of the activations.
        subject: Gives the activations.
        sae: A SAELens SAE.
        site: Where it sits.
        n_labels: C.
        top_k: How many of the strongest rows to keep for each feature.
    """
    n_features = int(sae.cfg.d_sae)
    active = torch.zeros(n_features, dtype=torch.int64)
    total = torch.zeros(n_features, dtype=torch.float64)
    values = torch.zeros(n_features, 0)
    rows = torch.zeros(n_features, 0, dtype=torch.int64)
    counts = torch.zeros(n_features, n_labels, dtype=torch.int64)
    seen = 0
    for inputs, labels in batches:
        acts_TF = sae.encode(subject.activations(inputs, site)).float().cpu()
        fired = acts_TF != 0
        active += fired.sum(0)
        total += acts_TF.sum(0, dtype=torch.float64)
        one_hot = torch.nn.functional.one_hot(labels.cpu().long(), n_labels)
        counts += (fired.T.float() @ one_hot.float()).round().long()
        # Ties go to the earlier row: topk does not promise it, a stable sort of (old, new) in this order does.
        values = torch.cat([values, acts_TF.T], dim=1)
        new_rows = torch.arange(seen, seen + len(acts_TF)).expand(n_features, -1)
        rows = torch.cat([rows, new_rows], dim=1)
        order = torch.from_numpy(comparable(values.numpy())).argsort(dim=1, descending=True, stable=True)[:, :top_k]
        values, rows = values.gather(1, order), rows.gather(1, order)
        seen += len(acts_TF)
    rows = torch.where(values > 0, rows, -1)
    return FeatureBank(
        mean_active=active / max(1, seen),
        mean_activation=(total / active.clamp(min=1)).float(),
        top_values=values.clamp(min=0),
        top_rows=rows,
        label_counts=counts,
    )
