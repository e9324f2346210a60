"""How a feature's score is distributed: by grade, and over all items."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from conceptatlas.views.svg.build import Scale, dots, el, joined, number, picture, text, x_axis

_ROW = 46.0
_LEFT = 26.0
_DOT = 4.6


def swarm_offsets(x_N: npt.NDArray[np.floating], *, bin_width: float, half_height: float) -> npt.NDArray[np.float64]:
    """Return a vertical offset for each point so that points near each other in x stand one above the other.

    Points of one bin are stacked outwards from the middle in turn, up and down, and pressed together where the stack
    would be higher than ``half_height`` on either side. Deterministic: no jitter that could be read as data.

    Args:
        x_N: Places on the axis, in pixels, [N].
        bin_width: Width of a bin in pixels.
        half_height: Room above and below the middle, in pixels.
    """
    offsets = np.zeros(len(x_N))
    bins = np.floor(np.asarray(x_N) / bin_width).astype(np.int64)
    for place in np.unique(bins):
        members = np.flatnonzero(bins == place)
        steps = (np.arange(len(members)) + 1) // 2 * np.where(np.arange(len(members)) % 2, 1, -1)
        room = half_height / max(int(np.abs(steps).max()), 1)
        offsets[members] = steps * min(_DOT, room)
    return offsets


def by_label(
    scores_N: npt.NDArray[np.floating],
    labels_N: npt.NDArray[np.integer],
    holdout_N: npt.NDArray[np.bool_],
    *,
    threshold: float | None,
    score_name: str,
    width: float = 380.0,
) -> Markup:
    """Draw every item's score, a row per grade: discovery filled, hold-out hollow, the mean as a tick.

    Args:
        scores_N: Pooled scores, [N].
        labels_N: Grades, [N].
        holdout_N: Which items are hold-out, bool [N].
        threshold: The discovery threshold, drawn as a dashed line; None for none.
        score_name: The axis's title.
        width: Pixels.
    """
    grades = [int(label) for label in np.unique(labels_N)]
    low = min(0.0, float(np.min(scores_N, initial=0.0)))
    high = max(float(np.max(scores_N, initial=0.0)), threshold or 0.0)
    scale = Scale(low, high if high > low else low + 1.0, _LEFT + 8, width - 14)
    bottom = 8 + _ROW * len(grades)
    parts = [x_axis(scale, bottom, 8, title=score_name)]
    means = []
    for row, grade in enumerate(reversed(grades)):
        middle = 8 + _ROW * (row + 0.5)
        members = np.flatnonzero(labels_N == grade)
        x = np.array([scale(float(value)) for value in scores_N[members]])
        y = middle + swarm_offsets(x, bin_width=_DOT, half_height=_ROW / 2 - 4)
        for held, kind in ((False, "solid"), (True, "hollow")):
            chosen = holdout_N[members] == held
            points = list(zip(x[chosen].tolist(), y[chosen].tolist(), strict=True))
            parts.append(dots(points, f"g{grade} {kind}"))
            if held:
                parts.append(dots(points, "hole"))
        mean = float(np.mean(scores_N[members]))
        means.append(f"grade {grade}: {mean:.3g}")
        parts.append(el("line", x1=scale(mean), x2=scale(mean), y1=middle - 15, y2=middle + 15, class_="mean"))
        parts.append(text(4, middle + 5, str(grade), class_=f"gl g{grade}"))
    if threshold is not None:
        cut = scale(threshold)
        parts.append(el("line", x1=cut, x2=cut, y1=2.0, y2=bottom, class_="cut"))
    label = f"Distribution of the score by grade; means: {', '.join(means)}"
    return picture(width, bottom + 36, label, *parts)


def histogram(
    values_N: npt.NDArray[np.floating], *, title: str, n_silent: int, width: float = 380.0, height: float = 150.0
) -> Markup:
    """Draw a histogram of the activations above 0 (the silent ones are counted in words, or they would hide the rest).

    Args:
        values_N: Values above 0, [N].
        title: The axis's title.
        n_silent: How many were not above 0.
        width: Pixels.
        height: Pixels.
    """
    if not len(values_N):
        return picture(width, 40, "No activation", text(4, 24, f"Above zero on none of {n_silent:,}.", class_="tt"))
    counts, edges = np.histogram(values_N, bins=min(40, max(8, int(np.sqrt(len(values_N)) * 2))))
    x = Scale(float(edges[0]), float(edges[-1]), 8.0, width - 8)
    y = Scale(0.0, float(counts.max()), height - 34, 14.0)
    bars = [
        f"M{number(x(edges[i]) + 0.5)} {number(y(0))}V{number(y(float(count)))}H{number(x(edges[i + 1]) - 0.5)}"
        f"V{number(y(0))}Z"
        for i, count in enumerate(counts)
        if count
    ]
    parts = [x_axis(x, height - 34, 14.0, title=title), el("path", d="".join(bars), class_="bar")]
    note = f"fires on {len(values_N):,}, silent on {n_silent:,}"
    parts.append(text(width - 8, 11, note, class_="tk", anchor="end"))
    return picture(width, height, f"Histogram of activations: {note}; largest {float(values_N.max()):.3g}", *parts)


def interval_mark(value: float | None, low: float | None, high: float | None, *, width: float = 120.0) -> Markup:
    """Draw one AUROC with its interval on a line from 0 to 1, with chance (0.5) as a dashed stroke: for a cell of a table."""
    if value is None:
        return Markup("")
    at = Scale(0.0, 1.0, 4.0, width - 4)
    parts = [el("line", x1=at(0.0), x2=at(1.0), y1=9.0, y2=9.0, class_="rail")]
    parts += [el("line", x1=at(t), x2=at(t), y1=6.0, y2=12.0, class_="rail") for t in (0.0, 0.25, 0.75, 1.0)]
    parts.append(el("line", x1=at(0.5), x2=at(0.5), y1=1.0, y2=17.0, class_="null"))
    if low is not None and high is not None:
        parts.append(el("line", x1=at(low), x2=at(high), y1=9.0, y2=9.0, class_="whisker"))
    parts.append(el("circle", cx=at(value), cy=9.0, r=4.0, class_="point"))
    return picture(width, 18, f"{value:.3f}", joined(parts), class_="mark")


def means_mark(means: Sequence[float | None], *, width: float = 56.0) -> Markup:
    """Draw the mean by grade as four small bars: for a cell of a table."""
    figures = [0.0 if mean is None else mean for mean in means]
    top = max((abs(f) for f in figures), default=0.0) or 1.0
    step = width / max(len(figures), 1)
    bars = [
        el(
            "rect",
            x=i * step + 1,
            y=17.0 - 16.0 * abs(f) / top,
            width=step - 3,
            height=max(16.0 * abs(f) / top, 0.8),
            class_=f"fill g{i}",
        )
        for i, f in enumerate(figures)
    ]
    said = ", ".join("–" if mean is None else f"{mean:.3g}" for mean in means)
    return picture(width, 18, f"Means by grade: {said}", joined(bars), class_="means")
