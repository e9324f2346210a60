"""Plot file of the cross-concept matrix: the features of each concept on the held-out items of every concept."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from conceptatlas.ranking import CrossConcepts
from conceptatlas.views.plots.style import INK, MUTED, heading, new_figure, printable


def cross_figure(found: CrossConcepts, *, dpi: int = 150) -> Figure:
    """Draw a heat map: a row per feature, a column per concept, the AUROC in each cell; ½ (chance) is white.

    Args:
        found: The comparison.
        dpi: Dots per inch.
    """
    concepts = [entry["concept"] for entry in found.concepts]
    cells = {(c["concept"], c["slug"], c["feature_id"], c["on"]): c["auroc"] for c in found.matrix}
    keys = [(row["concept"], row["slug"], row["feature_id"]) for row in found.features]
    values = np.array([[cells[*key, on] for on in concepts] for key in keys], dtype=float)
    values = values.reshape(len(keys), len(concepts))
    figure, axes = new_figure(4.6 + 1.15 * len(concepts), 2.2 + 0.34 * max(len(keys), 1), dpi)
    heading(
        axes, "Features of each concept on every concept", "AUROC on held-out items; framed: the feature's own concept"
    )
    axes.grid(visible=False)
    axes.imshow(values, cmap="PuOr_r", vmin=0, vmax=1, aspect="auto")
    for k, key in enumerate(keys):
        for c, on in enumerate(concepts):
            own = key[0] == on
            dark = abs(values[k, c] - 0.5) > 0.33
            axes.text(
                c, k, f"{values[k, c]:.2f}", ha="center", va="center", fontsize=9, color="white" if dark else INK,
                fontweight="bold" if own else "normal",
            )  # fmt: skip
            if own:
                axes.add_patch(_frame(c, k))
    axes.set_xticks(range(len(concepts)), [printable(name, 24) for name in concepts], rotation=30, ha="right")
    axes.set_yticks(
        range(len(keys)),
        [printable(f"{r['concept']}: layer {r['layer']} · #{r['feature_id']}", 40) for r in found.features],
    )
    axes.set_xlabel("judged on the held-out items of", color=MUTED)
    return figure


def _frame(column: int, row: int) -> Rectangle:
    return Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, fill=False, edgecolor=INK, linewidth=1.6)
