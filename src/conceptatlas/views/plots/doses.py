"""The dose–response of a feature as a plot file: how far the targets rise as the direction is added, beside controls."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from conceptatlas.evidence.effects import BAR_FACTOR, Dose
from conceptatlas.views.plots.style import INK, MUTED, heading, line_look, new_figure

_SIZE = (9.0, 5.4)
_HARM = "damage out of bounds"


def dose_figure(doses: Sequence[Dose], *, used: float, title: str, dpi: int = 150) -> Figure:
    """Draw the rise of the targets' log-probability on discovery items by dose.

    Args:
        doses: The curve.
        used: The dose that was chosen.
        title: One line: the feature.
        dpi: Dots per inch.
    """
    figure, axes = new_figure(*_SIZE, dpi)
    heading(
        axes, title, "Rise of the targets' log-probability on discovery items when the feature's direction is added"
    )
    x = [dose.alpha for dose in doses]
    feature, control = line_look(0), line_look(1)
    axes.plot(
        x, [d.rise for d in doses], color=feature.colour, marker=feature.marker, linewidth=2, label="this feature"
    )
    axes.plot(
        x,
        [max(0.0, d.bar) for d in doses],
        color=control.colour,
        marker=control.marker,
        linewidth=1.6,
        linestyle="--",
        label="95th percentile of controls of the same norm",
    )
    axes.plot(
        x,
        [BAR_FACTOR * max(0.0, d.bar) for d in doses],
        color=control.colour,
        linewidth=1,
        linestyle=":",
        label=f"{BAR_FACTOR:g} times that",
    )
    harmful = [dose for dose in doses if not dose.clean]
    if harmful:
        axes.plot(
            [d.alpha for d in harmful], [d.rise for d in harmful], linestyle="none", marker=feature.marker,
            markerfacecolor="white", markeredgecolor=feature.colour, label=_HARM,
        )  # fmt: skip
    axes.axvline(used, color=MUTED, linewidth=1)
    axes.annotate(
        f"used: {used:g}", (used, 1.0), xycoords=("data", "axes fraction"), xytext=(4, -14), textcoords="offset points",
        color=MUTED, fontsize=9,
    )  # fmt: skip
    axes.axhline(0, color=MUTED, linewidth=0.8)
    axes.set_xlabel("dose, in mean residual norms", color=MUTED)
    axes.set_ylabel("rise in nats", color=MUTED)
    axes.legend(frameon=False, labelcolor=INK, fontsize=9.5)
    return figure
