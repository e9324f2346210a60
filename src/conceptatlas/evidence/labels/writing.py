"""The files of a label run: ``feature_examples.jsonl``, ``feature_labels.json``, ``run.json``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conceptatlas.base.files import write_json, write_text
from conceptatlas.base.kinds import LABELS
from conceptatlas.evidence.labels.collect import FeatureExamples
from conceptatlas.evidence.labels.contexts import Context, marked
from conceptatlas.evidence.labels.scoring import Score

EXAMPLES_FILE = "feature_examples.jsonl"
LABELS_FILE = LABELS.marker
_DIGITS = 5


@dataclass(frozen=True)
class FeatureLabel:
    """A feature with its label and what is known of the label.

    Attributes:
        found: Its examples.
        keywords: Of the search label, best first.
        label_search: The keywords as a label; None for a feature that never fired.
        label_llm: The language model's label; None without one.
        reason: Why there is no language model's label; empty where there is one or none was asked for.
        detection: How well the label tells texts that activate the feature from others.
        fuzzing: How well it tells right marks from wrong ones.
    """

    found: FeatureExamples
    keywords: list[str]
    label_search: str | None
    label_llm: str | None = None
    reason: str = ""
    detection: Score = field(default_factory=Score)
    fuzzing: Score = field(default_factory=Score)

    @property
    def label(self) -> str | None:
        """The language model's label, else the search label."""
        return self.label_llm or self.label_search

    def as_dict(self) -> dict[str, Any]:
        """Return the entry of ``feature_labels.json``."""
        target, found = self.found.target, self.found
        return {
            "feature_index": target.index,
            "score": target.score,
            "label_llm": self.label_llm,
            "label_search": self.label_search,
            "label": self.label,
            "num_examples": len(found.top),
            "detection_accuracy": _rounded(self.detection.accuracy),
            "fuzzing_accuracy": _rounded(self.fuzzing.accuracy),
            "detection_n": self.detection.n,
            "fuzzing_n": self.fuzzing.n,
            "keywords": self.keywords,
            "reason": self.reason,
            "rank": target.rank,
            "slug": target.source.slug,
            "release": target.source.release,
            "sae_id": target.source.sae_id,
            "site": target.source.site,
            "neuronpedia_url": target.source.url(target.index),
            "n_active_tokens": found.n_active_tokens,
            "n_active_windows": found.n_active_windows,
            "max_activation": _rounded(found.max_activation),
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{_DIGITS + 1}g}")


def example_dict(context: Context) -> dict[str, Any]:
    """Return an example as it is written; ``marked`` has the activating tokens between ``<<`` and ``>>``."""
    entry: dict[str, Any] = {
        "activation": _rounded(context.activation),
        "sequence_index": context.sequence_index,
        "token_position": context.token_position,
        "text": context.text,
        "marked": marked(context.pieces, context.active),
        "tokens": context.pieces,
        "activations": [_rounded(float(value)) for value in context.activations],
    }
    return entry if context.decile is None else entry | {"decile": context.decile}


def write_examples(folder: Path, features: Sequence[FeatureExamples], *, per_decile: int, silent: int) -> Path:
    """Write ``feature_examples.jsonl``: a line for each feature, with examples of each decile and silent ones."""
    lines = []
    for found in features:
        target = found.target
        entry = {
            "feature_id": target.index,
            "score": target.score,
            "slug": target.source.slug,
            "sae_id": target.source.sae_id,
            "examples": [example_dict(context) for context in found.top],
            "decile_examples": [example_dict(c) for members in found.by_decile.values() for c in members[:per_decile]],
            "non_activating_examples": [
                {"sequence_index": c.sequence_index, "token_position": c.token_position, "text": c.text}
                for c in found.silent[:silent]
            ],
        }
        lines.append(json.dumps(entry, ensure_ascii=False, allow_nan=False))
    path = folder / EXAMPLES_FILE
    write_text(path, "".join(f"{line}\n" for line in lines))
    return path


def write_labels(folder: Path, labels: Sequence[FeatureLabel]) -> Path:
    """Write ``feature_labels.json``."""
    path = folder / LABELS_FILE
    write_json(path, {"num_features": len(labels), "features": [label.as_dict() for label in labels]})
    return path
