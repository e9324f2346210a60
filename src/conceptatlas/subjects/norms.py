"""Norms of hidden states, and the attention sinks among them."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

SINK_FACTOR = 10.0


def row_norms(hidden_TD: torch.Tensor, step: int = 4096) -> npt.NDArray[np.float32]:
    """Return the Euclidean norm of each row of hidden states [T, D], float32 [T]; ``step`` rows are widened at a time."""
    parts = [torch.linalg.vector_norm(hidden_TD[i : i + step].float(), dim=-1) for i in range(0, len(hidden_TD), step)]
    return torch.cat(parts).cpu().numpy() if parts else np.zeros(0, np.float32)


def ignores_mean(block: nn.Module) -> bool:
    """Whether a block's norms take the mean off their rows (LayerNorm), so that centred writing weights change nothing.

    The norms are asked themselves, by rows with and without a constant added: RMSNorm tells these apart. Where a block
    has no norm that takes a row alone, the answer is no.
    """
    norms = [module for name, module in block.named_children() if re.search(r"norm|ln", name.lower())]
    answers = []
    for norm in norms:
        weight = next(norm.parameters(), None)
        if weight is None or weight.ndim != 1:
            continue
        rows = torch.sin(torch.arange(2 * len(weight), dtype=torch.float32)).reshape(2, -1).to(weight)
        with torch.no_grad():
            answers.append(torch.allclose(norm(rows + 1).float(), norm(rows).float(), rtol=0.1, atol=0.1))
    return bool(answers) and all(answers)


def attention_sinks(norms_T: npt.NDArray[np.float32], *, factor: float = SINK_FACTOR) -> npt.NDArray[np.bool_]:
    """Flag rows whose norm is more than ``factor`` times the median norm, bool [T].

    Some models park attention on a token that carries no content; its hidden state has a norm of tens to hundreds of
    times the usual one (Xiao et al. 2023, "Efficient Streaming Language Models with Attention Sinks"; Sun et al. 2024,
    "Massive Activations in Large Language Models"), and max-pooling over rows would see little else.
    """
    if len(norms_T) == 0:
        return np.zeros(0, dtype=bool)
    return np.asarray(norms_T > factor * float(np.median(norms_T)), dtype=bool)
