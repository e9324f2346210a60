"""One sentence, its tokens on the x axis, the features' activations as lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from conceptatlas.evidence import FeatureRef
from conceptatlas.views.plots.style import INK, MUTED, heading, line_look, new_figure, printable

# Rotated labels of 7 points or more, one per token, need about this much of the axis each.
_POINTS_PER_LABEL = 9.5


@dataclass(frozen=True)
class TrajectoryOptions:
    """How a trajectory is drawn.

    Attributes:
        width: Inches.
        height: Inches.
        dpi: Dots per inch.
        max_token_len: Characters of a token shown on the axis.
    """

    width: float = 14.0
    height: float = 7.0
    dpi: int = 150
    max_token_len: int = 15


def _label_tokens(axes: Axes, tokens: Sequence[str], options: TrajectoryOptions) -> None:
    """Name the tokens on the x axis; where there are too many to read, every second, third, ... only."""
    room = max(options.width - 3.75, options.width * 0.2) * 72
    step = max(1, int(np.ceil(len(tokens) * _POINTS_PER_LABEL / room)))
    places = list(range(0, len(tokens), step))
    shown = [printable(tokens[i].strip() or "␣", options.max_token_len) for i in places]
    size = 10 if len(places) <= 40 else 8.5 if len(places) <= 70 else 7
    axes.set_xticks(places)
    axes.set_xticklabels(shown, rotation=55, ha="right", rotation_mode="anchor", fontsize=size, parse_math=False)
    axes.set_xlabel("tokens" if step == 1 else f"tokens (one in {step} named)", color=MUTED)
    axes.set_xlim(-0.5, max(len(tokens) - 0.5, 0.5))


def trajectory_figure(
    tokens: Sequence[str],
    acts_KP: npt.NDArray[np.floating],
    features: Sequence[FeatureRef],
    *,
    title: str,
    subtitle: str,
    options: TrajectoryOptions,
) -> Figure:
    """Draw the activations of K features along the P tokens of one sentence.

    Args:
        tokens: The P tokens.
        acts_KP: Activations, [K, P].
        features: The K features, best first; the best is drawn strongest and on top.
        title: One line.
        subtitle: One quieter line.
        options: Size and lengths.
    """
    figure, axes = new_figure(options.width, options.height, options.dpi, margins=(0.75, 1.35, 3.0, 0.75))
    places = np.arange(len(tokens))
    for index, (feature, acts) in enumerate(zip(features, acts_KP, strict=True)):
        look = line_look(index)
        rank = f"{feature.rank}. " if feature.rank is not None else ""
        axes.plot(
            places,
            acts,
            color=look.colour,
            linestyle=look.dash,
            marker=look.marker,
            markersize=5 if index else 6,
            linewidth=1.6 if index else 2.4,
            zorder=3 + len(features) - index,
            label=f"{rank}layer {feature.layer} · L0 {feature.average_l0:g} · #{feature.feature_id}",
        )
    if not np.any(acts_KP):
        axes.text(
            0.5, 0.5, "No traced feature fires on this sentence.", transform=axes.transAxes, ha="center", color=MUTED
        )
        axes.set_ylim(0, 1)
    elif np.min(acts_KP) >= 0:
        axes.set_ylim(bottom=0)
    _label_tokens(axes, tokens, options)
    axes.set_ylabel("activation", color=MUTED)
    wide = int((options.width - 0.75) * 8.6)
    heading(axes, printable(title, wide), printable(subtitle, int(wide * 1.25)))
    if features:
        legend = axes.legend(
            loc="upper left",
            bbox_to_anchor=(1.01, 1.02),
            frameon=False,
            fontsize=9.5,
            title="rank. layer · L0 · feature",
            title_fontsize=9.5,
            alignment="left",
            labelcolor=INK,
        )
        legend.get_title().set_color(MUTED)
    return figure
