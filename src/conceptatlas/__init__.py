"""conceptatlas: from a concept to the features that carry it, with the evidence, in minutes.

>>> import conceptatlas as ca
>>> rec = ca.record("builtin:dishonesty", "organism", "organism", "rec")  # doctest: +SKIP
>>> ranking = ca.rank(rec)  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import Any

from conceptatlas.base import slots

__version__ = version("conceptatlas")

# Name -> room. Resolved on first use, so that `import conceptatlas` costs nothing.
_PUBLIC: dict[str, str] = {
    "effect": "conceptatlas.views",
    "run_study": "conceptatlas.study",
    "label_features": "conceptatlas.evidence",
    "run_labeling": "conceptatlas.evidence",
    "steer": "conceptatlas.evidence",
    "AnnotateOptions": "conceptatlas.concepts",
    "GenerateOptions": "conceptatlas.concepts",
    "Concept": "conceptatlas.concepts",
    "Ranking": "conceptatlas.ranking",
    "rank": "conceptatlas.ranking",
    "compare_rankings": "conceptatlas.ranking",
    "compare_concepts": "conceptatlas.views",
    "ConceptCheck": "conceptatlas.concepts",
    "annotate": "conceptatlas.concepts",
    "check_concept": "conceptatlas.concepts",
    "generate": "conceptatlas.concepts",
    "load_concept": "conceptatlas.concepts",
    "open_llm": "conceptatlas.llm",
    "LLMOptions": "conceptatlas.llm",
    "local_model": "conceptatlas.evidence",
    "Recording": "conceptatlas.recording",
    "record": "conceptatlas.recording",
    "TrainOptions": "conceptatlas.training",
    "train": "conceptatlas.training",
    "estimate_training": "conceptatlas.training",
    "trace": "conceptatlas.views",
    "report": "conceptatlas.views",
    "card": "conceptatlas.views",
    "explore": "conceptatlas.views",
    "ProbeRun": "conceptatlas.probes",
    "Sweep": "conceptatlas.probes",
    "compare_probes": "conceptatlas.probes",
    "predict_probe": "conceptatlas.probes",
    "prepare_probe": "conceptatlas.probes",
    "sweep_probes": "conceptatlas.probes",
    "train_probe": "conceptatlas.probes",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'conceptatlas' has no attribute {name!r}")


def _give(name: str) -> None:
    """Give rooms below what stands in a room above them, resolved when it is called."""
    slots.fill(name, lambda *args, **options: __getattr__(name)(*args, **options))


# What `ranking.explore()` and `ranking.card()` call.
for _name in ("card", "explore"):
    _give(_name)


def __dir__() -> list[str]:
    return sorted(__all__)
