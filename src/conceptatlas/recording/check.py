"""The self-check of an SAE on the first rows, and what the manifest keeps of it."""

from __future__ import annotations

from typing import Any

import torch

from conceptatlas.recording.encode import LoadedSAE


def self_check(loaded: LoadedSAE, states: dict[str, torch.Tensor], *, strict: bool) -> dict[str, Any]:
    """Check an SAE (to come)."""
    del loaded, states, strict
    return {"status": "not judged", "message": ""}
