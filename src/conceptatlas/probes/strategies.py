"""What a probe may be asked: from which input to which target. One table, looked up by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from conceptatlas.base.errors import unknown_name

Source = Literal["embed", "hidden", "features"]
Target = Literal["feature", "concept"]
Task = Literal["classification", "regression"]


@dataclass(frozen=True)
class Strategy:
    """A question that a probe answers.

    Attributes:
        name: As written on the command line.
        source: Where ``X`` comes from.
        target: What ``y`` is: one feature's activation, or the concept's grade.
        question: The question in words.
    """

    name: str
    source: Source
    target: Target
    question: str

    @property
    def task(self) -> Task:
        """The natural task: the size of an activation is regressed, a grade is classified."""
        return "regression" if self.target == "feature" else "classification"


STRATEGIES: dict[str, Strategy] = {}


def _add(strategy: Strategy) -> None:
    if strategy.name in STRATEGIES:
        raise ValueError(f"Strategy {strategy.name!r} is registered twice.")
    STRATEGIES[strategy.name] = strategy


_add(Strategy("embedding-to-feature", "embed", "feature", "Can embeddings predict the feature without the SAE?"))
_add(Strategy("hidden-to-feature", "hidden", "feature", "Can this one feature be read cheaply from the hidden state?"))
_add(Strategy("hidden-to-concept", "hidden", "concept", "Do raw states predict the concept, and from which layer on?"))
_add(Strategy("feature-to-concept", "features", "concept", "Are a few features worth as much as the whole state?"))


def find_strategy(name: str) -> Strategy:
    """Return the strategy called ``name``.

    Raises:
        InputError: There is none; the nearest names are listed.
    """
    if name not in STRATEGIES:
        raise unknown_name("strategy", name, STRATEGIES)
    return STRATEGIES[name]
