"""Concepts: labelled items, loaded, checked, split, generated and annotated."""

from __future__ import annotations

import importlib
from typing import Any

from conceptatlas.concepts.builtin import TRAITS, builtin_path, builtin_sets, trait_description, trait_rubric
from conceptatlas.concepts.holdout import data_column, holdout_by, holdout_of, whole_units
from conceptatlas.concepts.loading import load_concept
from conceptatlas.concepts.model import (
    GRADES,
    BadRow,
    Concept,
    build_concept,
    group_near_duplicates,
    holdout_mask,
    split_hash_of,
)

# These bring scikit-learn or the openai package along, so they are imported on first use.
_LAZY = {
    "AnnotateOptions": "annotating",
    "GenerateOptions": "generating",
    "Generated": "generating",
    "generate": "generating",
    "Annotation": "annotating",
    "ConceptCheck": "verdicts",
    "annotate": "annotating",
    "check_concept": "check",
}

__all__ = [
    "GRADES",
    "TRAITS",
    "BadRow",
    "Concept",
    "build_concept",
    "builtin_path",
    "builtin_sets",
    "group_near_duplicates",
    "data_column",
    "holdout_by",
    "holdout_mask",
    "holdout_of",
    "load_concept",
    "split_hash_of",
    "trait_description",
    "trait_rubric",
    "whole_units",
    *_LAZY,
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'conceptatlas.concepts' has no attribute {name!r}")
