"""Every feature as a point: how well it tells the grades apart against what it writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from conceptatlas.views.svg.build import Scale, dots, picture, text, x_axis, y_axis

# Points closer than this many pixels to one that is drawn are not drawn again.
_CELL = 3.0


@dataclass(frozen=True)
class Marked:
    """A ranked feature: its rank and where it stands."""

    rank: int
    x: float
    y: float


def detect_cause_map(
    x_F: npt.NDArray[np.floating],
    y_F: npt.NDArray[np.floating],
    marked: Sequence[Marked],
    *,
    x_title: str,
    y_title: str,
    width: float = 640.0,
    height: float = 380.0,
) -> Markup:
    """Draw features as points, the ranked ones large and with their rank.

    Args:
        x_F: How well each feature detects, [F].
        y_F: What it writes, [F].
        marked: The ranked features.
        x_title: The x axis's title.
        y_title: The y axis's title.
        width: Pixels.
        height: Pixels.
    """
    if not len(x_F):
        return Markup("")
    left, right, bottom, top = 56.0, width - 16, height - 44, 14.0
    x = Scale(float(x_F.min()), float(x_F.max()), left + 6, right - 6)
    y = Scale(min(0.0, float(y_F.min())), max(0.1, float(y_F.max())), bottom, top + 8)
    places = np.column_stack([[x(float(v)) for v in x_F], [y(float(v)) for v in y_F]])
    _, first = np.unique(np.floor(places / _CELL), axis=0, return_index=True)
    points = [(float(px), float(py)) for px, py in places[np.sort(first)]]
    spots = [(x(one.x), y(one.y)) for one in marked]
    middle = (top + bottom) / 2
    return picture(
        width,
        height,
        f"{y_title} against {x_title}: {len(x_F):,} features, {len(marked)} of them ranked",
        y_axis(y, left, right, about=5),
        x_axis(x, bottom, top, about=6, title=x_title),
        text(14, middle, y_title, class_="tt", anchor="middle", transform=f"rotate(-90 14 {middle:g})"),
        dots(points, "s4"),
        dots(spots, "s0 big"),
        *_labels(marked, spots, right),
    )


def _labels(marked: Sequence[Marked], spots: Sequence[tuple[float, float]], right: float) -> list[Markup]:
    """Return the ranks beside their points, on the side where there is room; those of close points share a label."""
    places: list[tuple[float, float, list[int]]] = []
    for one, (px, py) in zip(marked, spots, strict=True):
        near = next((ranks for qx, qy, ranks in places if abs(qx - px) < 30 and abs(qy - py) < 13), None)
        if near is None:
            places.append((px, py, [one.rank]))
        else:
            near.append(one.rank)
    labels = []
    for px, py, ranks in places:
        words = ", ".join(f"#{rank}" for rank in ranks)
        fits = px + 9 + 8 * len(words) < right
        labels.append(text(px + (9 if fits else -9), py + 4, words, class_="tt", anchor="start" if fits else "end"))
    return labels
