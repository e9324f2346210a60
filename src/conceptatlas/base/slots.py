"""Functions that a room calls and a room above it gives, so that imports between rooms stay one-way.

``conceptatlas/__init__.py``, which stands above every room and is imported before any of them, fills the slots.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_SLOTS: dict[str, Callable[..., Any]] = {}


def fill(name: str, function: Callable[..., Any]) -> None:
    """Let :func:`call` find ``function`` under ``name``."""
    _SLOTS[name] = function


def call(name: str, *args: Any, **options: Any) -> Any:
    """Call the function of a slot."""
    return _SLOTS[name](*args, **options)
