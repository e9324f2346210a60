"""Evidence: what is known of one feature beyond its rank."""

from __future__ import annotations

import importlib
from typing import Any

# Name -> module. Resolved on first use: some of the modules behind them import torch.
_NAMES: dict[str, str] = {
    "BAR_FACTOR": "effects",
    "DEFINITION": "trajectories",
    "MAX_KL_OTHER": "effects",
    "MAX_LOSS_RISE": "effects",
    "MIN_PERCENTILE": "effects",
    "MIN_RISE": "effects",
    "Dose": "effects",
    "Effect": "effects",
    "Effects": "effect_result",
    "FeatureEffect": "effect_result",
    "FeaturePeaks": "trajectories",
    "FeatureRef": "features",
    "ItemTexts": "examples",
    "LabelPeaks": "trajectories",
    "Peaks": "trajectories",
    "TokenExample": "examples",
    "answer_of": "effects",
    "classify": "trajectories",
    "column_of_rows": "features",
    "cut_text": "examples",
    "damage": "effects",
    "decile_of": "examples",
    "effect_sentence": "effects",
    "examples_by_decile": "examples",
    "examples_by_label": "examples",
    "CollectOptions": "labels.collect",
    "LabelOptions": "labels.run",
    "LabelRun": "labels.run",
    "feature_examples": "examples",
    "features_of_ranking": "features",
    "find_peaks": "trajectories",
    "finish_labels": "labels.run",
    "item_bounds": "features",
    "label_features": "labels.run",
    "label_ranking": "labels.stage",
    "local_model": "labels.labeller",
    "measure_effects": "effect_stage",
    "prepare_labels": "labels.run",
    "run_labeling": "labels.stage",
    "output_scores": "output_lens",
    "safe_link": "neuronpedia",
    "sample_by_decile": "examples",
    "shared_dose": "effects",
    "steer": "effect_stage",
    "strongest_by_label": "examples",
    "trace_feature": "trajectories",
    "trace_features": "trajectories",
    "write_summary": "trajectories",
}

__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
