"""Subjects: the models under study. A subject gives activations at sites, and can be run with an edit at a site."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from conceptatlas.subjects.sites import Site, parse_sites

if TYPE_CHECKING:
    from conceptatlas.subjects.generation import Generated
    from conceptatlas.subjects.language import LanguageSubject, load_subject
    from conceptatlas.subjects.loading import choose_device, resolve_source
    from conceptatlas.subjects.norms import attention_sinks, row_norms
    from conceptatlas.subjects.tokens import Tokenized

# Name -> module. These import torch, so they are resolved on first use.
_LAZY = {
    "Generated": "generation",
    "LanguageSubject": "language",
    "attention_sinks": "norms",
    "row_norms": "norms",
    "choose_device": "loading",
    "resolve_source": "loading",
    "load_subject": "language",
    "Tokenized": "tokens",
}

__all__ = [
    "Generated",
    "LanguageSubject",
    "Site",
    "Tokenized",
    "attention_sinks",
    "choose_device",
    "load_subject",
    "parse_sites",
    "resolve_source",
    "row_norms",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'conceptatlas.subjects' has no attribute {name!r}")
