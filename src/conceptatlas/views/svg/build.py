"""Small pictures as SVG text: elements with everything escaped, linear scales with round ticks.

Colours come from the page's style sheet through classes, never from ``style`` attributes: so the pictures follow light
and dark, and a Content-Security-Policy without ``unsafe-inline`` holds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape


def number(value: float) -> str:
    """Return a coordinate with one decimal at most."""
    text = f"{value:.1f}"
    return text[:-2] if text.endswith(".0") else text


def el(tag: str, *children: str | Markup, **attributes: str | float | None) -> Markup:
    """Return one element. Children that are not Markup are escaped; ``class_`` and ``stroke_width`` lose their marks."""
    parts = []
    for key, value in attributes.items():
        if value is None:
            continue
        shown = number(value) if isinstance(value, float) else str(value)
        parts.append(f' {key.rstrip("_").replace("_", "-")}="{escape(shown)}"')
    inner = "".join(str(escape(child)) for child in children)
    if not inner:
        return Markup(f"<{tag}{''.join(parts)}/>")
    return Markup(f"<{tag}{''.join(parts)}>{inner}</{tag}>")


def joined(parts: Iterable[Markup]) -> Markup:
    """Return the elements one after the other."""
    return Markup("").join(parts)


def picture(width: float, height: float, label: str, *children: Markup, class_: str = "chart") -> Markup:
    """Return an SVG that scales with its box, with ``label`` for those who do not see it."""
    return el(
        "svg",
        *children,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {number(width)} {number(height)}",
        width=number(width),
        height=number(height),
        role="img",
        aria_label=label,
        class_=class_,
    )


@dataclass(frozen=True)
class Scale:
    """A linear map from data to pixels."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        """Return the pixel of a value."""
        if self.high == self.low:
            return (self.start + self.stop) / 2
        return self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return round numbers between ``low`` and ``high``, about so many (steps of 1, 2 or 5 times a power of ten)."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low] if math.isfinite(low) else []
    raw = (high - low) / max(about, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def dots(points: Sequence[tuple[float, float]], class_: str) -> Markup:
    """Return points as one path of round-capped strokes of no length: a tenth of the text of as many circles."""
    if not points:
        return Markup("")
    path = "".join(f"M{number(x)} {number(y)}h0" for x, y in points)
    return el("path", d=path, class_=f"dots {class_}")


def polyline(points: Sequence[tuple[float, float]], class_: str) -> Markup:
    """Return an open line through the points."""
    if not points:
        return Markup("")
    return el("path", d="M" + "L".join(f"{number(x)} {number(y)}" for x, y in points), class_=f"line {class_}")


def text(
    x: float, y: float, words: str, *, class_: str = "tk", anchor: str = "start", transform: str | None = None
) -> Markup:
    """Return a text, anchored ``start``, ``middle`` or ``end``."""
    return el("text", words, x=float(x), y=float(y), class_=class_, text_anchor=anchor, transform=transform)


def x_axis(scale: Scale, y: float, top: float, *, about: int = 5, title: str = "", below: float = 16) -> Markup:
    """Return vertical grid lines from ``top`` to ``y`` with their figures below, and the axis's title under them."""
    parts = []
    for tick in ticks(scale.low, scale.high, about):
        x = scale(tick)
        parts.append(el("line", x1=x, x2=x, y1=float(top), y2=float(y), class_="grid"))
        parts.append(text(x, y + below, f"{tick:g}", anchor="middle"))
    if title:
        parts.append(text(scale.stop, y + below + 15, title, class_="tt", anchor="end"))
    return joined(parts)


def y_axis(scale: Scale, x: float, right: float, *, about: int = 5, digits: int | None = None) -> Markup:
    """Return horizontal grid lines from ``x`` to ``right`` with their figures on the left."""
    parts = []
    for tick in ticks(scale.low, scale.high, about):
        y = scale(tick)
        shown = f"{tick:g}" if digits is None else f"{tick:.{digits}f}"
        parts.append(el("line", x1=float(x), x2=float(right), y1=y, y2=y, class_="grid"))
        parts.append(text(x - 6, y + 4, shown, anchor="end"))
    return joined(parts)
