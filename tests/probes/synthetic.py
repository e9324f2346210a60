"""Small recordings with planted answers, for the tests of the probes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from conceptatlas.recording import Recording
from tests.helpers.recordings import write_synthetic_recording

WIDTH = 12


def planted_recording(
    path: Path,
    *,
    n_items: int = 120,
    n_layers: int = 3,
    group_size: int = 2,
    strength: float = 1.5,
    hidden_rows: str = "all",
    keep: str = "all",
    n_features: int = 30,
    seed: int = 0,
) -> Recording:
    """Write a recording in which the grade shows from layer 1 on, in the hidden state and in feature 3.

    Layer 0 and the embedding are noise. The items of a group are near-duplicates of one grade. With ``strength`` 0
    nothing shows anywhere, and only a leak across the split can predict the grade.
    """
    rng = np.random.default_rng(seed)
    n_groups = n_items // group_size
    grade_of_group = rng.permutation(np.arange(n_groups) % 4)
    group = np.repeat(np.arange(n_groups), group_size)
    labels = grade_of_group[group]
    lengths = rng.integers(2, 6, size=n_items)
    item_of_row = np.repeat(np.arange(n_items), lengths)
    n_rows = len(item_of_row)
    final = np.cumsum(lengths) - 1
    direction = rng.normal(size=WIDTH) / np.sqrt(WIDTH)
    hidden: dict[str, np.ndarray] = {}
    columns: dict[str, np.ndarray] = {}
    for layer in range(-1, n_layers):
        essence = rng.normal(size=(n_groups, WIDTH))[group][item_of_row]
        states = essence + 0.05 * rng.normal(size=(n_rows, WIDTH))
        if layer >= 1:
            states += strength * 3 * labels[item_of_row][:, None] * direction
        states += 5.0 * np.arange(WIDTH)
        site = "embed" if layer < 0 else f"blocks.{layer}.hook_resid_post"
        hidden[site] = (states if hidden_rows == "all" else states[final]).astype(np.float32)
        if layer >= 0:
            acts = np.maximum(rng.normal(size=(n_groups, n_features))[group][item_of_row], 0)
            acts += 0.01 * rng.random(acts.shape) * (acts > 0)
            if layer >= 1 and strength:
                acts[:, 3] = np.maximum((states - 5.0 * np.arange(WIDTH)) @ direction - 2.0, 0)
            if keep == "final":
                acts[np.setdiff1d(np.arange(n_rows), final)] = 0
            columns[f"layer_{layer}"] = acts.astype(np.float32)
    return write_synthetic_recording(
        path,
        columns,
        labels.tolist(),
        lengths.tolist(),
        hidden=hidden,
        groups=[f"g{g}" for g in group],
        keep=keep,
        hidden_rows=hidden_rows,
    )
