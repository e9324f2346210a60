"""How every plot file looks. Figures are made without pyplot: no global state, no display.

Colours are those of Okabe and Ito (2008), which people with any common colour blindness can tell apart; yellow is left
out because it cannot be read on white. Lines differ in dash and marker, too, so that print in grey serves.
"""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from conceptatlas.base.files import atomic_file

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Grades are ordered, so their colours are, too: one ramp (viridis without its yellow end), pale for 0.
GRADE_COLOURS = ("#7a8aa0", "#35b779", "#26828e", "#440154")
DASHES = ("-", "--", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

INK = "#1c2430"
MUTED = "#5b6675"
GRID = "#e3e6ea"


class LineLook(NamedTuple):
    """The look of one line."""

    colour: str
    dash: str
    marker: str


def line_look(index: int) -> LineLook:
    """Return the look of the line number ``index``; the first 21 differ in colour or dash."""
    turn, place = divmod(index, len(OKABE_ITO))
    return LineLook(OKABE_ITO[place], DASHES[turn % len(DASHES)], MARKERS[index % len(MARKERS)])


def new_figure(
    width: float, height: float, dpi: int, *, margins: tuple[float, float, float, float] | None = None
) -> tuple[Figure, Axes]:
    """Return a figure of ``width`` by ``height`` inches with one plain axes.

    ``margins`` (left, bottom, right, top, in inches) fixes the room around the axes; without it matplotlib measures
    every text, which doubles the time of a plot.
    """
    figure = Figure(figsize=(width, height), dpi=dpi, layout=None if margins else "constrained", facecolor="white")
    FigureCanvasAgg(figure)
    if margins is None:
        axes = figure.add_subplot()
    else:
        left, bottom, right, top = margins
        axes = figure.add_axes(
            (
                left / width,
                bottom / height,
                max(width - left - right, width * 0.2) / width,
                max(height - bottom - top, height * 0.2) / height,
            )
        )
    plain(axes)
    return figure, axes


def plain(axes: Axes) -> None:
    """Take away what carries no information: frame on two sides, dark grid."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(MUTED)
    axes.tick_params(colors=MUTED, labelcolor=INK)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def heading(axes: Axes, title: str, subtitle: str = "") -> None:
    """Set a title (and a quieter line under it) flush left, verbatim: a ``$`` in a sentence is no formula."""
    pad = 24 if subtitle else 10
    axes.set_title(title, loc="left", fontsize=13, fontweight="bold", color=INK, pad=pad, parse_math=False)
    if subtitle:
        axes.text(
            0,
            1,
            subtitle,
            transform=axes.transAxes,
            ha="left",
            va="bottom",
            fontsize=10,
            color=MUTED,
            parse_math=False,
        ).set_y(1.015)


def printable(text: str, limit: int) -> str:
    """Return ``text`` as one line of at most ``limit`` characters: line ends shown, control characters replaced."""
    shown = text.replace("\n", "⏎").replace("\t", "⇥")
    shown = "".join("�" if unicodedata.category(char) in ("Cc", "Cf", "Cs") else char for char in shown)
    return shown if len(shown) <= limit else shown[: max(limit - 1, 0)] + "…"


@contextmanager
def _quiet_about_glyphs() -> Iterator[None]:
    # A script that the bundled font lacks is drawn as boxes; a warning per character would help nobody.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*missing from.*font.*")
        warnings.filterwarnings("ignore", message=".*does not contain.*glyph.*")
        yield


def save_png(figure: Figure, path: Path) -> None:
    """Write ``figure`` as PNG to ``path``, whole or not at all; the same figure gives the same bytes."""
    with _quiet_about_glyphs(), atomic_file(path) as handle:
        figure.savefig(handle, format="png", metadata={"Software": None})
