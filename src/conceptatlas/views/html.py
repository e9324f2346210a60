"""The template environment that the report and the explorer share: everything escaped, nothing undefined."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from conceptatlas.ranking.summary import shuffles, upper_first

_HERE = Path(__file__).parent
STATIC = _HERE / "static"
STYLE_FILE = STATIC / "style.css"

HEAT_LEVELS = 9


def figure(value: float | int | None, digits: int = 3) -> str:
    """Return a number for people: a dash where there is none, integers with commas."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.{digits}f}"


def interval(low: float | None, high: float | None, digits: int = 2) -> str:
    """Return ``low–high``, or nothing where there is none."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return ""
    return f"{low:.{digits}f}–{high:.{digits}f}"


def chance(p_value: float | None, permutations: int) -> str:
    """Return a permutation p-value as what was counted (``0 of 1,000``); a dash where there is none."""
    if p_value is None or not permutations:
        return "–"
    return shuffles(p_value, permutations).removesuffix(" shuffles")


def probability(value: float | None) -> str:
    """Return a p-value for people: small ones as a power of ten."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.3f}" if value >= 0.0005 else f"{value:.0e}"


def clipped(text: str, limit: int) -> str:
    """Return at most ``limit`` characters of ``text``."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def heat_levels(activations: Sequence[float], top: float) -> list[str]:
    """Return the heat class of each activation: ``w1`` to ``w9`` relative to ``top``, ``c1``/``c2`` below 0, or none.

    Args:
        activations: One per piece of text.
        top: The activation that is hottest: the largest of all the examples shown together, so that they compare.
    """
    levels = []
    for value in activations:
        if value > 0 and top > 0:
            levels.append(f"w{min(HEAT_LEVELS, max(1, math.ceil(HEAT_LEVELS * value / top)))}")
        elif value < 0:
            levels.append("c2" if top > 0 and -value > top / 2 else "c1")
        else:
            levels.append("")
    return levels


@cache
def environment() -> Environment:
    """Return the template environment."""
    env = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters.update(figure=figure, probability=probability, chance=chance, clipped=clipped, upper_first=upper_first)
    env.globals.update(interval=interval, heat_levels=heat_levels, zip=zip)
    return env


def compile_templates() -> None:
    """Compile every template now, so that no page waits for it."""
    for name in environment().list_templates(extensions=["html"]):
        environment().get_template(name)


def render(template: str, **context: Any) -> Markup:
    """Return a template's text, escaped, as Markup."""
    return Markup(environment().get_template(template).render(**context))


@cache
def style_text() -> str:
    """Return the style sheet."""
    return STYLE_FILE.read_text(encoding="utf-8")


def content_hash(text: str) -> str:
    """Return the Content-Security-Policy source for an inline block of exactly this text."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
