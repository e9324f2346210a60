"""Recordings: one forward pass over a concept, every SAE encoded, kept on disk as plain arrays."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from conceptatlas.recording.manifest import EMBED_SITE, Manifest, RecordedSAE
from conceptatlas.recording.store import Recording
from conceptatlas.saes.sparse import SparseColumns

if TYPE_CHECKING:
    from conceptatlas.recording.exporter import export
    from conceptatlas.recording.recorder import record
    from conceptatlas.recording.verifier import Problem, verify

__all__ = [
    "EMBED_SITE",
    "Manifest",
    "Problem",
    "RecordedSAE",
    "Recording",
    "SparseColumns",
    "export",
    "record",
    "verify",
]

# Resolved on first use, so that reading a recording stays quick.
_LAZY = {"record": "recorder", "export": "exporter", "verify": "verifier", "Problem": "verifier"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
