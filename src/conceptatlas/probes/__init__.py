"""Probes: classifiers and regressors on hidden states, embeddings or features."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conceptatlas.probes.comparison import Comparison, compare_probes
    from conceptatlas.probes.config import ProbeConfig, load_config
    from conceptatlas.probes.dataset_file import ProbeDataset
    from conceptatlas.probes.datasets import prepare_probe
    from conceptatlas.probes.plots import emergence_figure
    from conceptatlas.probes.prediction import Prediction, predict_probe
    from conceptatlas.probes.sweep import Sweep, sweep_probes
    from conceptatlas.probes.training import train_probe
    from conceptatlas.probes.versions import ProbeRun, list_versions, new_config

# Name -> module, resolved on first use: importing the room costs nothing.
_LAZY = {
    "Comparison": "comparison",
    "Prediction": "prediction",
    "ProbeConfig": "config",
    "ProbeDataset": "dataset_file",
    "ProbeRun": "versions",
    "Sweep": "sweep",
    "compare_probes": "comparison",
    "emergence_figure": "plots",
    "list_versions": "versions",
    "load_config": "config",
    "new_config": "versions",
    "predict_probe": "prediction",
    "prepare_probe": "datasets",
    "sweep_probes": "sweep",
    "train_probe": "training",
}

__all__ = [
    "Comparison",
    "Prediction",
    "ProbeConfig",
    "ProbeDataset",
    "ProbeRun",
    "Sweep",
    "compare_probes",
    "emergence_figure",
    "list_versions",
    "load_config",
    "new_config",
    "predict_probe",
    "prepare_probe",
    "sweep_probes",
    "train_probe",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'conceptatlas.probes' has no attribute {name!r}")
