"""The image laboratory: an SAE on a small classifier, where input patterns can be looked at."""

from conceptatlas.images.analysis import FeatureEvidence, analyse_features
from conceptatlas.images.functions import (
    collect_feature_bank,
    feature_input_pattern,
    feature_logit_effect,
    show_feature_gallery,
    visualize_feature_pattern,
)
from conceptatlas.images.laboratory import Laboratory, LaboratoryConfig, TargetSummary, accuracy, run_laboratory
from conceptatlas.images.saved import SavedPair, load_pair, run_demo, save_pair

__all__ = [
    "FeatureEvidence",
    "Laboratory",
    "LaboratoryConfig",
    "SavedPair",
    "TargetSummary",
    "accuracy",
    "analyse_features",
    "collect_feature_bank",
    "feature_input_pattern",
    "feature_logit_effect",
    "load_pair",
    "run_demo",
    "run_laboratory",
    "save_pair",
    "show_feature_gallery",
    "visualize_feature_pattern",
]
