"""Layer lists as people write them: ``12``, ``0-5``, ``2,5,10``, ``0-2,10,15-17``."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from conceptatlas.base.errors import InputError

_PART = re.compile(r"^(\d+)(?:-(\d+))?$")


def parse_layers(text: str) -> list[int]:
    """Return the layers that ``text`` names, ascending and each once.

    Raises:
        InputError: A part is neither a number nor a range, a range runs backwards, or there is no part.
    """
    layers: set[int] = set()
    for part in text.split(","):
        match = _PART.match(part.strip())
        if match is None:
            raise InputError(
                f"Cannot read {part.strip()!r} in the layer list {text!r}; write layers as 12, 0-5, 2,5,10 "
                "or 0-2,10,15-17."
            )
        first = int(match[1])
        last = int(match[2] or match[1])
        if last < first:
            raise InputError(
                f"The range {part.strip()!r} in the layer list {text!r} runs backwards; write {last}-{first}."
            )
        layers.update(range(first, last + 1))
    return sorted(layers)


def as_layers(layers: str | int | Iterable[int]) -> list[int]:
    """Return layers given as text, as one number or as numbers, ascending and each once."""
    if isinstance(layers, str):
        return parse_layers(layers)
    return sorted({layers} if isinstance(layers, int) else set(layers))


def format_layers(layers: Collection[int]) -> str:
    """Return ``layers`` in the shortest writing that ``parse_layers`` reads back: ``0-2,10,15-17``."""
    runs: list[list[int]] = []
    for layer in sorted(set(layers)):
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def require_recorded(asked: Iterable[int], recorded: Collection[int], *, what: str) -> None:
    """Check that every layer asked for was recorded.

    Raises:
        InputError: One was not; the sentence lists those that were.
    """
    missing = sorted(set(asked) - set(recorded))
    if missing:
        have = format_layers(recorded) if recorded else "none"
        plural = "s" if len(missing) > 1 else ""
        raise InputError(
            f"No {what} of layer{plural} {format_layers(missing)} were recorded; recorded: {have}. "
            "Choose among these, or record again with what is missing."
        )
