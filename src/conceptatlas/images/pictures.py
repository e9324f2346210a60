"""Galleries and patterns as pictures, drawn with Pillow: a thousand of them take seconds."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

TILE = 84  # pixels a side of one example
GAP = 8
TITLE = 34
CAPTION = 20
PATTERN = 336
BAR = 22
INK = (25, 28, 36)
MUTED = (105, 110, 122)
PAPER = (255, 255, 255)


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which comes with matplotlib."""
    path = Path(str(files("matplotlib"))) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), size)


def _tile(image: npt.NDArray[np.float32], side: int) -> Image.Image:
    grey = np.clip(image / max(1e-9, float(image.max())), 0, 1)
    return Image.fromarray((255 - 255 * grey).astype(np.uint8)).resize((side, side), Image.Resampling.NEAREST)


def draw_gallery(
    images: npt.NDArray[np.float32], captions: Sequence[str], *, title: str, columns: int = 10
) -> Image.Image:
    """Return a grid of images [K, H, W], each with its caption below; an empty one says so."""
    columns = max(1, min(columns, len(images) or 4))
    rows = max(1, math.ceil(len(images) / columns))
    width = GAP + columns * (TILE + GAP)
    page = Image.new("RGB", (max(width, 380), TITLE + rows * (TILE + CAPTION + GAP)), PAPER)
    pen = ImageDraw.Draw(page)
    pen.text((GAP, 8), title, font=_font(15), fill=INK)
    if len(images) == 0:
        pen.text((GAP, TITLE + 20), "Never active on these images.", font=_font(14), fill=MUTED)
    for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
        left = GAP + index % columns * (TILE + GAP)
        top = TITLE + index // columns * (TILE + CAPTION + GAP)
        page.paste(_tile(image, TILE).convert("RGB"), (left, top))
        pen.rectangle((left, top, left + TILE - 1, top + TILE - 1), outline=(215, 218, 226))
        pen.text((left + TILE // 2, top + TILE + 3), caption, font=_font(12), fill=MUTED, anchor="ma")
    return page


def draw_pattern(heat: npt.NDArray[np.float32], *, title: str) -> Image.Image:
    """Return an input pattern [H, W] in red (pushes the feature up) and blue (down), with its scale."""
    from matplotlib import colormaps

    limit = float(np.abs(heat).max()) or 1.0
    colours = colormaps["RdBu_r"]
    shown = (colours(heat / (2 * limit) + 0.5)[..., :3] * 255).astype(np.uint8)
    height = round(PATTERN * heat.shape[0] / heat.shape[1])
    page = Image.new("RGB", (PATTERN + 2 * GAP, TITLE + height + BAR + 34), PAPER)
    pen = ImageDraw.Draw(page)
    pen.text((GAP, 8), title, font=_font(15), fill=INK)
    page.paste(Image.fromarray(shown).resize((PATTERN, height), Image.Resampling.NEAREST), (GAP, TITLE))
    scale = (colours(np.linspace(0, 1, PATTERN))[None, :, :3] * 255).astype(np.uint8)
    top = TITLE + height + GAP
    page.paste(Image.fromarray(scale).resize((PATTERN, 10), Image.Resampling.NEAREST), (GAP, top))
    pen.text((GAP, top + 14), f"−{limit:.2g} lowers", font=_font(12), fill=MUTED)
    pen.text((GAP + PATTERN, top + 14), f"raises +{limit:.2g}", font=_font(12), fill=MUTED, anchor="ra")
    return page
