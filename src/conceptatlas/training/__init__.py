"""Training: SAEs of one's own for any model and text, at several sites, widths and sparsities from one forward pass."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from conceptatlas.training.options import TrainOptions

if TYPE_CHECKING:
    from conceptatlas.training.card import Card
    from conceptatlas.training.estimate import Estimate, estimate_training
    from conceptatlas.training.run import train

# Name -> module. These import torch, so they are resolved on first use.
_LAZY = {
    "Card": "card",
    "Estimate": "estimate",
    "estimate_training": "estimate",
    "train": "run",
}

__all__ = ["Card", "Estimate", "TrainOptions", "estimate_training", "train"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
