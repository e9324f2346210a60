"""Views: plots, the static report, the local explorer."""

from __future__ import annotations

import importlib
from typing import Any

# Name -> module. Resolved on first use: matplotlib and FastAPI are slow to import.
_NAMES: dict[str, str] = {
    "CONCEPTS_FILE": "concepts_file",
    "write_concepts": "concepts_file",
    "card": "notebook",
    "explore": "notebook",
    "compare_concepts": "crossing",
    "effect": "effecting",
    "trace": "tracing",
    "report": "reporting",
}

__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
