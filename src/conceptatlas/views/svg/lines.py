"""Lines: activation along tokens, figures by layer, score by rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from conceptatlas.views.svg.build import Scale, dots, el, joined, number, picture, polyline, text, y_axis


@dataclass(frozen=True)
class Point:
    """A figure at a layer, with its interval where there is one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Series:
    """A named line; ``look`` is the number of its colour class."""

    name: str
    look: int
    points: tuple[Point, ...]


def along_sentence(
    relative_grid: npt.NDArray[np.floating],
    mean_GP: npt.NDArray[np.floating],
    grades: Sequence[int],
    *,
    width: float = 380.0,
    height: float = 170.0,
) -> Markup:
    """Draw the mean activation by relative position in the sentence, a line per grade.

    Args:
        relative_grid: Places from 0 (first token) to 1 (last), [P].
        mean_GP: Mean activation of each grade there, [G, P].
        grades: The G grades.
        width: Pixels.
        height: Pixels.
    """
    top = float(np.max(mean_GP, initial=0.0)) or 1.0
    bottom = min(0.0, float(np.min(mean_GP, initial=0.0)))
    x = Scale(0.0, 1.0, 44.0, width - 26)
    y = Scale(bottom, top, height - 38, 10.0)
    parts = [y_axis(y, 44, width - 26, about=4)]
    parts += [
        text(x(0), height - 20, "first token"),
        text(x(1), height - 20, "last token", anchor="end"),
        text(x(0.5), height - 20, "middle", anchor="middle"),
    ]
    ends: list[tuple[float, int]] = []
    for row, grade in enumerate(grades):
        points = [(x(float(p)), y(float(m))) for p, m in zip(relative_grid, mean_GP[row], strict=True)]
        parts.append(polyline(points, f"g{grade}"))
        ends.append((points[-1][1], grade))
    for place, grade in _spread(ends, 13.0):
        parts.append(text(width - 20, place + 4, str(grade), class_=f"gl g{grade}"))
    label = "Mean activation along the sentence, by grade " + ", ".join(str(g) for g in grades)
    return picture(width, height, label, *parts)


def _spread(ends: list[tuple[float, int]], room: float) -> list[tuple[float, int]]:
    """Move labels apart so that none covers another, keeping their order."""
    ordered = sorted(ends)
    placed: list[tuple[float, int]] = []
    for place, name in ordered:
        least = placed[-1][0] + room if placed else place
        placed.append((max(place, least), name))
    return placed


def sentence_lines(
    pieces: Sequence[str], acts_KP: npt.NDArray[np.floating], names: Sequence[str], *, height: float = 250.0
) -> Markup:
    """Draw K features along the P pieces of one sentence; as wide as the sentence needs (its box scrolls).

    Args:
        pieces: The tokens.
        acts_KP: Activations, [K, P].
        names: Name of each feature.
        height: Pixels.
    """
    step = 30.0
    foot = 78.0
    width = max(320.0, 56.0 + step * len(pieces) + 40)
    top = float(np.max(acts_KP, initial=0.0)) or 1.0
    y = Scale(min(0.0, float(np.min(acts_KP, initial=0.0))), top, height - foot, 12.0)
    parts = [y_axis(y, 40, width - 8, about=4)]
    xs = [56.0 + step * (i + 0.5) for i in range(len(pieces))]
    for x, piece in zip(xs, pieces, strict=True):
        word = piece.strip() or "␣"
        word = word if len(word) <= 12 else word[:11] + "…"
        turn = f"rotate(-52 {number(x)} {number(height - foot + 16)})"
        parts.append(text(x, height - foot + 16, word, class_="tok", anchor="end", transform=turn))
    for k in range(len(acts_KP) - 1, -1, -1):
        points = [(x, y(float(a))) for x, a in zip(xs, acts_KP[k], strict=True)]
        look = f"s{k % 7}" + (" dash" if k >= 7 else "")
        parts += [polyline(points, look), dots(points, f"{look} mid")]
    return picture(width, height, f"Activation along the sentence of {', '.join(names)}", *parts, class_="chart wide")


def by_layer(
    series: Sequence[Series],
    *,
    null: float | None,
    width: float,
    height: float = 300.0,
    null_name: str = "chance",
    what: str = "held-out AUROC",
) -> Markup:
    """Draw a figure of at most 1 by layer with intervals, and the null line.

    Args:
        series: The lines.
        null: Where the best of as many noise features would lie; None for no line.
        width: Pixels.
        height: Pixels.
        null_name: What the null line is called.
        what: What the figure is.
    """
    layers = sorted({point.x for line in series for point in line.points})
    figures = [f for line in series for p in line.points for f in (p.y, p.low, p.high) if f is not None]
    low = min([0.45, *figures, *([null] if null is not None else [])])
    left, right, bottom = 42.0, width - 14, height - 40
    x = Scale(min(layers, default=0) - 0.4, max(layers, default=1) + 0.4, left, right)
    y = Scale(float(np.floor(low * 20) / 20), 1.0, bottom, 10.0)
    parts = [y_axis(y, left, right, about=5)]
    every = max(1, int(np.ceil(len(layers) * 22 / (right - left))))
    parts += [text(x(layer), bottom + 17, f"{layer:g}", anchor="middle") for layer in layers[::every]]
    parts.append(text(right, height - 6, "layer", class_="tt", anchor="end"))
    if null is not None:
        parts.append(el("line", x1=left, x2=right, y1=y(null), y2=y(null), class_="null"))
        parts.append(text(right, y(null) - 5, null_name, class_="nl", anchor="end"))
    dodge = min(7.0, (x(1) - x(0)) * 0.12)
    for index, line in enumerate(series):
        shift = (index - (len(series) - 1) / 2) * dodge
        points = [(x(p.x) + shift, y(p.y)) for p in line.points]
        parts.append(polyline(points, f"s{line.look}"))
        for point, (px, _) in zip(line.points, points, strict=True):
            if point.low is not None and point.high is not None:
                parts.append(
                    el("line", x1=px, x2=px, y1=y(point.low), y2=y(point.high), class_=f"line thin s{line.look}")
                )
        parts.append(dots(points, f"s{line.look} big"))
    label = f"{what} by layer of " + ", ".join(line.name for line in series)
    return picture(width, height, label, *parts)


def score_by_rank(
    scores_R: npt.NDArray[np.floating],
    holdout_R: npt.NDArray[np.floating],
    *,
    null: float | None,
    score_name: str,
    width: float,
    height: float = 280.0,
) -> Markup:
    """Draw the score of the best features by rank (log), discovery as a line, hold-out as dots, with the null line.

    Args:
        scores_R: Discovery scores, descending, [R].
        holdout_R: The same features' hold-out scores (NaN where there is none), [R].
        null: 95th percentile of the best score under permuted labels; None for no line.
        score_name: What the score is.
        width: Pixels.
        height: Pixels.
    """
    left, right, bottom = 42.0, width - 14, height - 40
    count = max(len(scores_R), 2)
    x = Scale(0.0, float(np.log10(count)), left + 8, right)
    every = np.concatenate([scores_R, holdout_R[~np.isnan(holdout_R)], [0.0 if null is None else null, 0.0]])
    y = Scale(min(0.0, float(every.min())), max(float(every.max()), 0.1), bottom, 12.0)
    parts = [y_axis(y, left, right, about=5)]
    parts += [
        text(x(power), bottom + 17, f"{10**power:,}", anchor="middle") for power in range(int(np.log10(count)) + 1)
    ]
    parts.append(text(right, height - 6, f"rank by {score_name}", class_="tt", anchor="end"))
    ranks = np.arange(1, len(scores_R) + 1)
    last = len(scores_R)
    shown: list[int] = (np.unique(np.geomspace(1, last, 400).astype(int)) - 1).tolist() if last else []
    held = [(x(float(np.log10(ranks[i]))), y(float(holdout_R[i]))) for i in shown if not np.isnan(holdout_R[i])]
    parts.append(dots(held, "s1 mid"))
    parts.append(polyline([(x(float(np.log10(ranks[i]))), y(float(scores_R[i]))) for i in shown], "s0"))
    if null is not None:
        parts.append(el("line", x1=left, x2=right, y1=y(null), y2=y(null), class_="null"))
        parts.append(text(right, y(null) - 5, "best of as many noise features (95%)", class_="nl", anchor="end"))
    return picture(width, height, f"{score_name} by rank", joined(parts))
