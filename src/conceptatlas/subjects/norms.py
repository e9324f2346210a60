"""Norms of hidden states, and the attention sinks among them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

SINK_FACTOR = 10.0


def row_norms(hidden_TD: torch.Tensor, step: int = 4096) -> npt.NDArray[np.float32]:
    """Return the Euclidean norm of each row of hidden states [T, D], float32 [T]; ``step`` rows are widened at a time."""
    parts = [torch.linalg.vector_norm(hidden_TD[i : i + step].float(), dim=-1) for i in range(0, len(hidden_TD), step)]
    return torch.cat(parts).cpu().numpy() if parts else np.zeros(0, np.float32)


def attention_sinks(norms_T: npt.NDArray[np.float32], *, factor: float = SINK_FACTOR) -> npt.NDArray[np.bool_]:
    """Flag rows whose norm is more than ``factor`` times the median norm, bool [T].

    Some models park attention on a token that carries no content; its hidden state has a norm of tens to hundreds of
    times the usual one (Xiao et al. 2023, "Efficient Streaming Language Models with Attention Sinks"; Sun et al. 2024,
    "Massive Activations in Large Language Models"), and max-pooling over rows would see little else.
    """
    if len(norms_T) == 0:
        return np.zeros(0, dtype=bool)
    return np.asarray(norms_T > factor * float(np.median(norms_T)), dtype=bool)
