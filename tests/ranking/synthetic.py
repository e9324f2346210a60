"""Recordings with planted features, for the tests of the whole ranking."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from conceptatlas.recording import Recording
from tests.helpers.recordings import write_synthetic_recording


def planted(
    path: Path,
    *,
    n: int = 160,
    rows: int = 3,
    n_features: int = 40,
    n_saes: int = 2,
    seed: int = 0,
    strengths: tuple[float, ...] = (3.0, 1.5, 0.8),
    groups: bool = False,
    hidden: bool = False,
    **options,
) -> Recording:
    """A recording in which the first features of the first SAE rise with the grade, the stronger the earlier.

    Everything else is noise with ties, sparse and dense, some of it negative, some constant, some silent.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, n)
    lengths = rng.integers(1, rows + 1, n)
    label_of_row = np.repeat(labels, lengths)
    total = int(lengths.sum())
    columns = {}
    for number in range(n_saes):
        share = rng.choice([0.02, 0.1, 0.5, 0.95], n_features)
        x = np.where(rng.random((total, n_features)) < share, np.round(rng.gamma(2, 2, (total, n_features)), 1), 0)
        x[:, -1] = 0
        x[:, -2] = 2
        x[:, -3] = np.where(rng.random(total) < 0.3, rng.normal(0, 1, total), 0)
        if number == 0:
            for f, strength in enumerate(strengths):
                x[:, f] = np.maximum(strength * label_of_row + rng.normal(0, 1, total), 0)
        columns[f"sae_{number}"] = x.astype(np.float32)
    if hidden:
        site = rng.normal(0, 1, (n, 12)).astype(np.float32)
        site[:, 0] += labels
        options["hidden"] = {f"blocks.{number}.hook_resid_post": site for number in range(n_saes)}
    names = [f"g{i // 2}" for i in range(n)] if groups else None
    return write_synthetic_recording(path, columns, labels.tolist(), lengths.tolist(), groups=names, **options)
