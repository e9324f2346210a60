"""Plot files of the curves: where the concept emerges, how far the best stand above chance, distribution by grade."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from conceptatlas.views.emergence import Emergence
from conceptatlas.views.plots.style import GRADE_COLOURS, INK, MUTED, OKABE_ITO, heading, line_look, new_figure
from conceptatlas.views.scores import ScoreCurve
from conceptatlas.views.svg.distribution import swarm_offsets

NULL_COLOUR = "#a3123a"
_SIZE = (10.0, 6.0)


def emergence_figure(found: Emergence | None, *, title: str, dpi: int = 150) -> Figure:
    """Draw held-out AUROC by layer, a line per baseline and one for the best feature, with 95% intervals.

    Args:
        found: The curves; None draws an empty plot that says what is missing.
        title: One line: the concept and the model.
        dpi: Dots per inch.
    """
    figure, axes = new_figure(*_SIZE, dpi)
    compared = "the highest grade against the lowest"
    if found is not None:
        compared = f"grade {found.grades[1]} against grade {found.grades[0]}"
    heading(axes, title, f"AUROC of {compared} on hold-out, 95% intervals")
    axes.set_xlabel("layer", color=MUTED)
    axes.set_ylabel("held-out AUROC", color=MUTED)
    if found is None:
        axes.text(
            0.5,
            0.5,
            "Nothing was held out: rank with --holdout above 0.",
            transform=axes.transAxes,
            ha="center",
            color=MUTED,
        )
        return figure
    layers = sorted({int(point.x) for series in found.series for point in series.points})
    for number, series in enumerate(found.series):
        look = line_look(number)
        x = np.array([point.x for point in series.points]) + (number - (len(found.series) - 1) / 2) * 0.06
        y = np.array([point.y for point in series.points])
        low = np.array([np.nan if point.low is None else point.low for point in series.points])
        high = np.array([np.nan if point.high is None else point.high for point in series.points])
        axes.plot(x, y, color=look.colour, marker=look.marker, linewidth=2, label=series.name, zorder=4)
        axes.vlines(x, low, high, color=look.colour, alpha=0.6, linewidth=1.4, zorder=3)
    if found.null is not None:
        axes.axhline(found.null, color=NULL_COLOUR, linestyle="--", linewidth=1.4, label=f"{found.null_name}", zorder=2)
    axes.set_xticks(layers[:: max(1, len(layers) // 20)])
    axes.set_ylim(top=1.01)
    axes.legend(frameon=False, labelcolor=INK, fontsize=9.5, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def score_by_rank_figure(curve: ScoreCurve | None, *, title: str, dpi: int = 150) -> Figure:
    """Draw each feature's correlation by rank, its hold-out correlation as dots, and the null line.

    Args:
        curve: The correlations; None draws an empty plot that says so.
        title: One line.
        dpi: Dots per inch.
    """
    figure, axes = new_figure(*_SIZE, dpi)
    heading(axes, title, "Pearson correlation with the grade, features in order of it")
    axes.set_xlabel("rank", color=MUTED)
    axes.set_ylabel("Pearson correlation", color=MUTED)
    if curve is None:
        axes.text(0.5, 0.5, "No feature fired.", transform=axes.transAxes, ha="center", color=MUTED)
        return figure
    ranks = np.arange(1, len(curve.scores) + 1)
    shown = np.unique(np.geomspace(1, len(ranks), 2000).astype(int)) - 1
    axes.plot(
        ranks[shown], curve.holdout[shown], ".", color=OKABE_ITO[1], markersize=4, label="the same features on hold-out"
    )
    axes.plot(ranks, curve.scores, color=OKABE_ITO[0], linewidth=2.2, label="discovery")
    if curve.null is not None:
        axes.axhline(
            curve.null,
            color=NULL_COLOUR,
            linestyle="--",
            linewidth=1.4,
            label="best of as many noise features, 95th percentile",
        )
    axes.set_xscale("log")
    axes.legend(frameon=False, labelcolor=INK, fontsize=9.5)
    return figure


def distribution_figure(
    scores_N: npt.NDArray[np.floating],
    labels_N: npt.NDArray[np.integer],
    holdout_N: npt.NDArray[np.bool_],
    *,
    threshold: float | None,
    title: str,
    subtitle: str,
    dpi: int = 150,
) -> Figure:
    """Draw every item's score, a row per grade: discovery filled, hold-out hollow, the mean as an upright stroke.

    Args:
        scores_N: Pooled scores, [N].
        labels_N: Grades, [N].
        holdout_N: Which items are hold-out, bool [N].
        threshold: The discovery threshold; None for none.
        title: One line.
        subtitle: One quieter line.
        dpi: Dots per inch.
    """
    figure, axes = new_figure(9.0, 5.0, dpi)
    axes.grid(axis="y", visible=False)
    heading(axes, title, subtitle)
    span = float(np.ptp(scores_N)) if len(scores_N) else 0.0
    for grade in np.unique(labels_N):
        colour = GRADE_COLOURS[int(grade) % len(GRADE_COLOURS)]
        own = labels_N == grade
        pixels = (scores_N[own] / span * 640) if span else np.zeros(int(own.sum()))
        y = grade + swarm_offsets(pixels, bin_width=5.0, half_height=20.0) / 52
        held = holdout_N[own]
        axes.scatter(scores_N[own][~held], y[~held], s=16, color=colour, linewidths=0, alpha=0.85, zorder=3)
        axes.scatter(scores_N[own][held], y[held], s=16, facecolors="none", edgecolors=colour, linewidths=1, zorder=3)
        axes.vlines(scores_N[own].mean(), grade - 0.36, grade + 0.36, color=INK, linewidth=2.2, zorder=4)
    if threshold is not None:
        axes.axvline(threshold, color=INK, linestyle="--", linewidth=1.1)
    axes.set_yticks([int(grade) for grade in np.unique(labels_N)])
    axes.set_ylabel("grade", color=MUTED)
    axes.set_xlabel("score of the sentence", color=MUTED)
    return figure
