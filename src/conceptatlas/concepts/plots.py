"""Pictures of a data set: how many items each grade has, and how long they are."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from conceptatlas.base.files import ensure_folder, write_bytes
from conceptatlas.concepts.model import GRADES, Concept

# One hue, darker with the grade.
GRADE_COLOURS = ("#c6d3e3", "#8fb0d3", "#4d82b8", "#123f6e")


def plot_distribution(concept: Concept, path: Path, *, parts: Mapping[str, Sequence[bool]] | None = None) -> None:
    """Write a PNG: items by grade, and words by grade.

    Args:
        concept: The items.
        path: The PNG to write.
        parts: Up to four parts of the items (seeds, generated), each a mask over the items [N]: bars are then stacked.
    """
    labels = concept.labels
    words = np.array([len(text.split()) for text in concept.texts])
    figure = Figure(figsize=(9, 3.6), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    bottom = np.zeros(len(GRADES))
    hatches = ("", "///", "...", "xxx")
    for number, mask in enumerate((parts or {"": [True] * len(labels)}).values()):
        counts = np.array([(labels[np.asarray(mask, dtype=bool)] == grade).sum() for grade in GRADES])
        left.bar(
            GRADES,
            counts,
            bottom=bottom,
            color=GRADE_COLOURS,
            edgecolor="white",
            hatch=hatches[number],
        )
        bottom += counts
    for grade, total in zip(GRADES, bottom, strict=True):
        left.annotate(f"{int(total)}", (grade, total), ha="center", va="bottom", fontsize=9)
    left.set(title=f"{concept.name}: items", xlabel="grade", ylabel="items", xticks=GRADES)
    left.set_ylim(0, 1.12 * max(1, bottom.max()))
    if parts:
        handles = [
            Patch(facecolor="#8fb0d3", edgecolor="white", hatch=hatches[n], label=p) for n, p in enumerate(parts)
        ]
        figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), frameon=False, fontsize=8)
    present = [grade for grade in GRADES if (labels == grade).any()]
    boxes = right.boxplot([words[labels == grade] for grade in present], positions=present, patch_artist=True)
    for box, grade in zip(boxes["boxes"], present, strict=True):
        box.set_facecolor(GRADE_COLOURS[grade])
    right.set(title="length", xlabel="grade", ylabel="words", xticks=GRADES, xticklabels=[str(g) for g in GRADES])
    right.set_ylim(0, 1.08 * max(1, words.max()))
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    ensure_folder(path.parent)
    write_bytes(path, buffer.getvalue())
