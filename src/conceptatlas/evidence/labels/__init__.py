"""Labels: features named from the texts that activate them, and the names scored on texts that the namer never saw."""

from __future__ import annotations

import importlib
from typing import Any

# Name -> module. Resolved on first use: the modules behind them import torch.
_NAMES: dict[str, str] = {
    "CollectOptions": "collect",
    "FeatureLabel": "writing",
    "LabelOptions": "run",
    "LabelRun": "run",
    "Prepared": "run",
    "finish_labels": "run",
    "label_features": "run",
    "prepare_labels": "run",
    "label_ranking": "stage",
    "local_model": "labeller",
    "run_labeling": "stage",
}

__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
