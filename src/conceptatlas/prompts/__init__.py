"""Chat prompts: features at the assistant's own tokens."""

from __future__ import annotations

import importlib
from typing import Any

# Name -> module. Resolved on first use: torch is slow to import.
_NAMES = {
    "ChatOptions": "reading",
    "PromptsConfig": "run",
    "PromptsResult": "run",
    "Source": "sources",
    "analyse_prompts": "run",
    "load_prompts": "data",
    "name_of": "sources",
    "preset_of": "sources",
    "prompts": "stage",
    "read_sources": "reading",
    "resolve_sources": "sources",
}

__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
