"""Residual streams of stories: what the SAEs are trained and measured on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import Gemma2ForCausalLM

from conceptatlas.subjects.organism.stories import Split

from .batches import Vocabulary, training_batches


@contextmanager
def residuals(model: Gemma2ForCausalLM) -> Iterator[dict[int, torch.Tensor]]:
    """Collect each layer's output (``blocks.{layer}.hook_resid_post``), [B, L, D], during the passes within."""
    caught: dict[int, torch.Tensor] = {}

    def hook_for(layer: int):
        def hook(_module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> None:
            caught[layer] = output

        return hook

    handles = [block.register_forward_hook(hook_for(layer)) for layer, block in enumerate(model.model.layers)]
    try:
        yield caught
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def collect_rows(
    model: Gemma2ForCausalLM, vocabulary: Vocabulary, n_rows: int, seed: int, split: Split = "training"
) -> list[torch.Tensor]:
    """Residual rows of fresh documents (chats and plain stories with their verdicts, BOS and padding left out).

    Returns:
        For each layer float32 [n_rows, D], in random order.
    """
    n_layers, width = model.config.num_hidden_layers, model.config.hidden_size
    rows = [torch.empty(n_rows, width) for _ in range(n_layers)]
    filled = 0
    with residuals(model) as caught:
        for batch in training_batches(vocabulary, 256, seed, split=split):
            model.model(input_ids=batch.ids, use_cache=False)
            keep = (batch.roles >= 0) & (batch.ids != vocabulary.bos)
            taken = min(int(keep.sum()), n_rows - filled)
            for layer in range(n_layers):
                rows[layer][filled : filled + taken] = caught[layer][keep][:taken]
            filled += taken
            if filled == n_rows:
                break
    order = torch.randperm(n_rows, generator=torch.Generator().manual_seed(seed))
    return [layer_rows[order] for layer_rows in rows]
