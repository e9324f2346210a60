"""Recordings: one forward pass over a concept, every SAE encoded, kept on disk as plain arrays."""

from __future__ import annotations

import importlib
from typing import Any

from conceptatlas.recording.manifest import EMBED_SITE, Manifest, RecordedSAE
from conceptatlas.recording.store import Recording
from conceptatlas.saes.sparse import SparseColumns

__all__ = ["EMBED_SITE", "Manifest", "RecordedSAE", "Recording", "SparseColumns"]

# Resolved on first use: these import torch.
_LATE: dict[str, str] = {}


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(importlib.import_module(_LATE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
