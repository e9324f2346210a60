"""The dose–response of a feature as an inline picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from conceptatlas.evidence import damage
from conceptatlas.views.svg.build import Scale, dots, picture, polyline, text, x_axis, y_axis


def dose_response(entry: Mapping[str, Any], *, width: float = 520.0, height: float = 240.0) -> Markup:
    """Draw the rise by dose (solid; hollow where the damage is out of bounds) and its controls (dashed).

    Args:
        entry: One of ``effects.json``.
        width: Pixels.
        height: Pixels.
    """
    doses = entry["doses"]
    if not doses:
        return Markup("")
    alphas = [float(dose["alpha"]) for dose in doses]
    rises = [float(dose["rise"]) for dose in doses]
    bars = [max(0.0, float(dose["bar"])) for dose in doses]
    x = Scale(0.0, max(alphas), 52.0, width - 14)
    y = Scale(min(0.0, *rises), max(0.1, *rises, *bars), height - 42, 12.0)
    feature = [(x(a), y(r)) for a, r in zip(alphas, rises, strict=True)]
    control = [(x(a), y(b)) for a, b in zip(alphas, bars, strict=True)]
    harmful = [
        point for point, dose in zip(feature, doses, strict=True) if damage(dose.get("kl_other"), dose.get("loss_rise"))
    ]
    middle = (height - 30) / 2
    return picture(
        width,
        height,
        f"Rise of the targets' log-probability by dose, up to {max(rises):.1f} nats",
        y_axis(y, 52, width - 14, about=5),
        x_axis(x, height - 42, 12.0, about=5, title="dose, in mean residual norms"),
        polyline(control, "s1 dash"),
        dots(control, "s1 mid"),
        polyline(feature, "s0"),
        dots(feature, "s0 big"),
        dots(harmful, "hole"),
        text(14, middle, "rise in nats", class_="tt", anchor="middle", transform=f"rotate(-90 14 {middle:g})"),
    )
