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

__all__ = [
    "FeatureEvidence",
    "Laboratory",
    "LaboratoryConfig",
    "TargetSummary",
    "accuracy",
    "analyse_features",
    "collect_feature_bank",
    "feature_input_pattern",
    "feature_logit_effect",
    "run_laboratory",
    "show_feature_gallery",
    "visualize_feature_pattern",
]
