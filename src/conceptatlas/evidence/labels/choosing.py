"""Which examples the labeller is shown, and which are kept for judging its label: never of the same text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

import numpy as np

from conceptatlas.evidence.labels.collect import FeatureExamples
from conceptatlas.evidence.labels.contexts import Context


@dataclass(frozen=True)
class Choice:
    """The examples of one feature by their use.

    Attributes:
        shown: For the labeller.
        activating: For the scores: activating examples, spread over the deciles.
        silent: For the scores: examples without the feature.
    """

    shown: list[Context]
    activating: list[Context]
    silent: list[Context]


def choose(found: FeatureExamples, *, n_shown: int, n_scored: int) -> Choice:
    """Divide a feature's examples between the labeller and the scores.

    Only clear examples count as activating: many features are faintly active on much that has nothing to do with what
    drives them, and a text like that neither fits a label nor fails to. The labeller sees the strongest (half) and
    some of each decile, from the strongest down; at most half of the texts there are, so that some are left. No text
    of which it sees a piece, and none that reads the same, is used in scoring.

    Args:
        found: What was collected.
        n_shown: Examples for the labeller.
        n_scored: Examples of each kind (activating, silent) for the scores.
    """
    top = _distinct(filter(found.is_clear, found.top))
    across = _distinct(filter(found.is_clear, spread(found.by_decile)))
    n_texts = len(_distinct([*top, *across]))
    budget = min(n_shown, max(1, n_texts // 2))
    strong = top[: (budget + 1) // 2]
    shown = _distinct([*strong, *across, *top])[:budget]
    texts, sequences = {c.text for c in shown}, {c.sequence_index for c in shown}
    activating = [c for c in _distinct([*across, *top]) if _is_new(c, texts, sequences)][:n_scored]
    firing = {c.text for c in chain(found.top, spread(found.by_decile))}
    silent = [c for c in _distinct(found.silent) if c.text not in firing and _is_new(c, texts, sequences)]
    return Choice(shown, activating, silent[:n_scored])


def spread(by_decile: dict[int, list[Context]]) -> list[Context]:
    """Return one example of each decile, strongest decile first, then a second of each, and so on."""
    rounds = zip_longest(*by_decile.values())
    return [context for one in rounds for context in one if context is not None]


def _distinct(contexts: Iterable[Context]) -> list[Context]:
    """Drop all but the first example of each text, and those that read the same as an earlier one."""
    kept: list[Context] = []
    texts: set[str] = set()
    sequences: set[int] = set()
    for context in contexts:
        if _is_new(context, texts, sequences):
            kept.append(context)
            texts.add(context.text)
            sequences.add(context.sequence_index)
    return kept


def _is_new(context: Context, texts: set[str], sequences: set[int]) -> bool:
    return context.text not in texts and context.sequence_index not in sequences


def wrong_marks(context: Context, rng: np.random.Generator) -> np.ndarray | None:
    """Return as many tokens to mark as activate the feature, drawn from the silent ones, bool [C]; None if too few.

    Tokens without a letter or digit are drawn only where there are no others left: they are no fair decoys.
    """
    n_active = int(context.active.sum())
    silent = np.flatnonzero(context.activations <= 0)
    if not n_active or len(silent) < n_active:
        return None
    pieces = context.pieces
    words = np.array([i for i in silent if any(ch.isalnum() for ch in pieces[i])], dtype=np.int64)
    pool = words if len(words) >= n_active else silent
    flags = np.zeros(len(context.activations), dtype=bool)
    flags[rng.choice(pool, size=n_active, replace=False)] = True
    return flags


def halves(contexts: Sequence[Context]) -> tuple[list[Context], list[Context]]:
    """Return every second example, and the others."""
    return list(contexts[::2]), list(contexts[1::2])
