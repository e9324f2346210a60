"""A sentence of a summary, and what a page writes beside each kind of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "chance",
    "holds",
    "best",
    "baselines",
    "truth",
    "strata",
    "judged",
    "set",
    "effect",
    "filters",
    "caution",
    "concept",
]
# What a page writes beside the sentences of each kind.
ABOUT: dict[Kind, str] = {
    "chance": "chance",
    "holds": "hold-out",
    "best": "rank 1",
    "baselines": "baselines",
    "effect": "effect",
    "truth": "truth",
    "set": "feature set",
    "strata": "strata",
    "judged": "other data",
    "filters": "filters",
    "caution": "caution",
    "concept": "concepts",
}


@dataclass(frozen=True)
class Sentence:
    """One sentence of a summary."""

    kind: Kind
    text: str

    @property
    def about(self) -> str:
        """What it is about, in a word or two."""
        return ABOUT[self.kind]
