"""Which examples the labeller is shown, and which judge its label: never the same text, a twin or a near-duplicate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

import numpy as np

from conceptatlas.concepts.grouping import LEVELS
from conceptatlas.concepts.similarity import NearDuplicates, normalised
from conceptatlas.evidence.labels.collect import FeatureExamples
from conceptatlas.evidence.labels.contexts import Context

# Pieces of texts are near-duplicates from this Jaccard index on, as items are that a recording groups.
NEAR_PIECES = LEVELS[0]


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
    of which it sees a piece, no twin of it (but for case, punctuation and white space) and no near-duplicate of a piece
    (Jaccard index of words and word pairs at least 0.8) is used in scoring.

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
    seen = _Seen(shown)
    activating = [c for c in _distinct([*across, *top]) if seen.is_new(c)][:n_scored]
    firing = {normalised(c.text) for c in chain(found.top, spread(found.by_decile))}
    silent = [c for c in _distinct(found.silent) if normalised(c.text) not in firing and seen.is_new(c)]
    return Choice(shown, activating, silent[:n_scored])


def spread(by_decile: dict[int, list[Context]]) -> list[Context]:
    """Return one example of each decile, strongest decile first, then a second of each, and so on."""
    rounds = zip_longest(*by_decile.values())
    return [context for one in rounds for context in one if context is not None]


def _distinct(contexts: Iterable[Context]) -> list[Context]:
    """Drop all but the first example of each text, and twins and near-duplicates of an earlier one."""
    kept: list[Context] = []
    seen = _Seen()
    for context in contexts:
        if seen.is_new(context):
            kept.append(context)
            seen.add(context)
    return kept


def unscored(found: FeatureExamples, choice: Choice) -> list[Context]:
    """Return the clear examples, strongest first, that share nothing with those by which a label is judged."""
    scored = _Seen(choice.activating)
    clear = [*filter(found.is_clear, found.top), *found.clear]
    places = {(c.sequence_index, c.token_position): c for c in clear if scored.is_new(c)}
    return list(places.values())


class _Seen:
    """Examples that were taken: tells whether another shares its text with one, is its twin or its near-duplicate."""

    def __init__(self, contexts: Iterable[Context] = ()) -> None:
        self._sequences: set[int] = set()
        self._keys: set[str] = set()
        self._near = NearDuplicates(NEAR_PIECES)
        for context in contexts:
            self.add(context)

    def add(self, context: Context) -> None:
        self._sequences.add(context.sequence_index)
        self._keys |= {context.twin_key, f"piece:{normalised(context.text)}"} - {""}
        self._near.add(context.text)

    def is_new(self, context: Context) -> bool:
        if context.sequence_index in self._sequences or context.twin_key in self._keys:
            return False
        return f"piece:{normalised(context.text)}" not in self._keys and not self._near.has_near(context.text)


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
