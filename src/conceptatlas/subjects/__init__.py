"""Subjects: the models under study. A subject gives activations at sites, and can be run with an edit at a site."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from conceptatlas.subjects.sites import Site, parse_sites

if TYPE_CHECKING:
    from conceptatlas.subjects.language import LanguageSubject, load_subject
    from conceptatlas.subjects.tokens import Tokenized

# Name -> module. These import torch, so they are resolved on first use.
_LAZY = {
    "LanguageSubject": "conceptatlas.subjects.language",
    "load_subject": "conceptatlas.subjects.language",
    "Tokenized": "conceptatlas.subjects.tokens",
}

__all__ = ["LanguageSubject", "Site", "Tokenized", "load_subject", "parse_sites"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'conceptatlas.subjects' has no attribute {name!r}")
