"""The explorer: a local web app over studies, recordings, rankings and label runs.

Server-rendered pages, one small script for the keyboard, no build step, no network. ``create_app`` makes the app,
``serve`` runs it.
"""

from __future__ import annotations

import importlib
from typing import Any

_NAMES = {
    "FeatureTable": "table",
    "Library": "library",
    "NetworkPolicy": "policy",
    "Notes": "notes",
    "Query": "table",
    "create_app": "app",
    "serve": "server",
}

__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
