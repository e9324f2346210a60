"""Concepts: labelled items, loaded, checked, split, generated and annotated."""

from conceptatlas.concepts.model import GRADES, Concept, build_concept, holdout_mask, split_hash_of

__all__ = ["GRADES", "Concept", "build_concept", "holdout_mask", "split_hash_of"]
