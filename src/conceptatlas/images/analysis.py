"""Every feature's evidence: what activates it, which labels, which pixels push it, what it does to the classes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from conceptatlas.base.files import write_disposable, write_json, write_text
from conceptatlas.base.kinds import IMAGES
from conceptatlas.evidence.bank import FeatureBank
from conceptatlas.images.functions import (
    collect_feature_bank,
    feature_input_pattern,
    logit_effect,
    own_scale,
    show_feature_gallery,
    visualize_feature_pattern,
)
from conceptatlas.subjects.images import ImageData, ImageSubject

BANK_BATCH = 1024
# A histogram with at least this share in one label is called concentrated.
CONCENTRATED = 0.5
LISTED_EXAMPLES = 10


@dataclass(frozen=True)
class FeatureEvidence:
    """One entry of ``feature_report.json``."""

    feature: int
    mean_active: float
    label_mode_when_active: int | None
    label_histogram: dict[str, int]
    logit_boost_class: int
    logit_delta_vector: list[float]
    top_examples: list[int]

    @property
    def agreement(self) -> float:
        """Share of the active images that belong to the class that the feature boosts (0 where it never fires)."""
        total = sum(self.label_histogram.values())
        return self.label_histogram.get(str(self.logit_boost_class), 0) / total if total else 0.0

    @property
    def confidence(self) -> str:
        """``high`` where most active images are of the boosted class, ``medium`` where it is the commonest, else ``low``."""
        if self.label_mode_when_active is None:
            return "none: it never fires"
        if self.label_mode_when_active != self.logit_boost_class:
            return "low: the commonest label and the boosted class differ"
        return "high" if self.agreement >= CONCENTRATED else "medium"


def _evidence(
    bank: FeatureBank, subject: ImageSubject, sae: Any, images: torch.Tensor, scale: torch.Tensor, k: int
) -> FeatureEvidence:
    counts = bank.label_counts[k]
    delta, boosted = logit_effect(subject, sae, images, k, scale=float(scale[k]))
    rows = bank.top_rows[k]
    return FeatureEvidence(
        feature=k,
        mean_active=float(bank.mean_active[k]),
        label_mode_when_active=int(counts.argmax()) if int(counts.sum()) else None,
        label_histogram={str(label): int(count) for label, count in enumerate(counts) if int(count)},
        logit_boost_class=boosted,
        logit_delta_vector=[float(value) for value in delta],
        top_examples=rows[rows >= 0].tolist(),
    )


def analyse_features(
    subject: ImageSubject, sae: Any, data: ImageData, folder: Path, *, top_k: int, n_eval: int, drawn: Sequence[int]
) -> list[FeatureEvidence]:
    """Collect every feature's evidence over the test images and write it, with pictures of the features in ``drawn``."""
    device = subject.mean.device
    images = torch.from_numpy(data.test_images).to(device)
    labels = torch.from_numpy(data.test_labels)
    loader = [(images[start:][:BANK_BATCH], labels[start:][:BANK_BATCH]) for start in range(0, len(images), BANK_BATCH)]
    bank = collect_feature_bank(loader, subject.model, sae, subject.mean, subject.std, topk=top_k)
    some = images[:n_eval]
    scale = own_scale(subject, sae, some)
    report = [_evidence(bank, subject, sae, some, scale, k) for k in range(int(sae.cfg.d_sae))]
    write_json(folder / IMAGES.marker, [asdict(entry) for entry in report])
    write_text(folder / "hypotheses.md", worksheet(report))
    for k in drawn:
        _draw(subject, sae, bank, images, data, folder, k)
    return report


def _draw(
    subject: ImageSubject, sae: Any, bank: FeatureBank, images: torch.Tensor, data: ImageData, folder: Path, k: int
) -> None:
    heat = feature_input_pattern(subject.model, sae, subject.mean, subject.std, k, image_shape=data.image_shape).astype(
        np.float32
    )
    array = io.BytesIO()
    np.save(array, heat, allow_pickle=False)
    write_disposable(folder / f"feature_{k}_pattern.npy", array.getvalue())
    for name, picture in (
        (f"feature_{k}_gallery.png", show_feature_gallery(k, bank, images)),
        (f"feature_{k}_pattern.png", visualize_feature_pattern(heat, k)),
    ):
        buffer = io.BytesIO()
        picture.save(buffer, format="png", compress_level=1)
        write_disposable(folder / name, buffer.getvalue())


def worksheet(report: Sequence[FeatureEvidence]) -> str:
    """Return ``hypotheses.md``: each feature's evidence, and room for the reader's hypothesis. Dead features come last."""
    lines = [
        "# Hypotheses",
        "",
        "For each feature: the evidence, and room for yours. *Agreement* is the share of the images on which it is active",
        "that belong to the class it boosts; the confidence follows from it alone, so look at the gallery and the pattern.",
        "",
    ]
    for entry in sorted(report, key=lambda one: (one.label_mode_when_active is None, one.feature)):
        histogram = ", ".join(
            f"{label}: {count}" for label, count in sorted(entry.label_histogram.items(), key=lambda item: -item[1])
        )
        gain = entry.logit_delta_vector[entry.logit_boost_class]
        examples = ", ".join(map(str, entry.top_examples[:LISTED_EXAMPLES]))
        lines += [
            f"## Feature {entry.feature}",
            "",
            f"- Mean active: {entry.mean_active:.4f}",
            f"- Label histogram: {{{histogram}}}",
            f"- Boosts class {entry.logit_boost_class} by {gain:+.3f}",
            f"- Top activating examples: [{examples}]",
            f"- Agreement of histogram and boost: {entry.agreement:.2f}",
            f"- Confidence from that agreement: {entry.confidence}",
            f"- Look at: `feature_{entry.feature}_gallery.png`, `feature_{entry.feature}_pattern.png`",
            "- Hypothesis: ",
            "- Evidence for and against: ",
            "",
        ]
    return "\n".join(lines)
